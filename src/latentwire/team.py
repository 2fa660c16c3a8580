"""`Team`: the processes that train together. Alone, every call is a no-op.

accelerate launch --multi_gpu --num_processes N -m latentwire ... ─▶ N processes, each with its share of a step's micro-batches,
one sum of gradients a step, one process that writes.
"""

import os
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any

import torch
from accelerate import PartialState
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard


@dataclass(frozen=True)
class Team:
    """This process and the others.

    Attributes:
        rank: Number of this process, from 0.
        size: How many there are.
        shards: Whether the layers of frozen models are shared out among them (FSDP2), so that all must read in step.
    """

    rank: int = 0
    size: int = 1
    shards: bool = False

    @property
    def writes(self) -> bool:
        """Whether this is the process that writes files and shows progress."""
        return self.rank == 0

    def total(self, values: Tensor) -> Tensor:
        """The sum of everyone's `values`, the same for all."""
        if self.size > 1:
            torch.distributed.all_reduce(values)
        return values

    def least(self, value: int) -> int:
        """The smallest of everyone's values, the same for all."""
        if self.size == 1:
            return value
        device = "cuda" if torch.cuda.is_available() else "cpu"
        values = torch.tensor(value, device=device)
        torch.distributed.all_reduce(values, torch.distributed.ReduceOp.MIN)
        return int(values)

    def share_out(self, model: Any) -> None:
        """Keep this process' part of each layer of a frozen model; the others' parts come when the layer is used.

        Source: Zhao et al. 2023, PyTorch FSDP (arXiv 2304.11277), in torch's second form. Embeddings and head stay whole.
        """
        if self.shards:
            mesh = init_device_mesh(model.device.type, (self.size,))
            for layer in model.get_decoder().layers:
                fully_shard(layer, mesh=mesh)

    def wait(self) -> None:
        """Until all have come here."""
        if self.size > 1:
            torch.distributed.barrier()


ALONE = Team()


@cache
def team() -> Team:
    """The processes that `accelerate launch` started, or this one alone; without a GPU they speak by gloo."""
    patience = timedelta(hours=6)  # while one encodes a corpus, the others wait
    state = PartialState(cpu=not torch.cuda.is_available(), timeout=patience)
    shards = state.num_processes > 1 and os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
    return Team(state.process_index, state.num_processes, shards)
