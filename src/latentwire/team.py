"""`Team`: the processes that train together. Alone, every call is a no-op.

accelerate launch --multi_gpu --num_processes N -m latentwire ... ─▶ N processes, each with its share of a step's micro-batches,
one sum of gradients a step, one process that writes.
"""

from dataclasses import dataclass
from functools import cache

import torch
from accelerate import PartialState
from torch import Tensor


@dataclass(frozen=True)
class Team:
    """This process and the others.

    Attributes:
        rank: Number of this process, from 0.
        size: How many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def writes(self) -> bool:
        """Whether this is the process that writes files and shows progress."""
        return self.rank == 0

    def total(self, values: Tensor) -> Tensor:
        """The sum of everyone's `values`, the same for all."""
        if self.size > 1:
            torch.distributed.all_reduce(values)
        return values

    def wait(self) -> None:
        """Until all have come here."""
        if self.size > 1:
            torch.distributed.barrier()


ALONE = Team()


@cache
def team() -> Team:
    """The processes that `accelerate launch` started, or this one alone; without a GPU they speak by gloo."""
    state = PartialState(cpu=not torch.cuda.is_available())
    return Team(state.process_index, state.num_processes)
