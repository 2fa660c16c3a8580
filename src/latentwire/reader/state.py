"""Where a reader stands between calls, and what it has answered."""

import copy
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """A reader that has read its inputs: key-value cache, mask `[B, T]`, and the last position's hidden state `[B, D]`."""

    cache: Any
    mask: Tensor
    hidden: Tensor


@dataclass(frozen=True, slots=True)
class Generation:
    """A greedy answer: its token ids (the stop included when one came) and its text."""

    ids: tuple[int, ...]
    text: str


def fork(state: State) -> State:
    """A copy of `state` whose cache can be consumed without touching the original."""
    return State(copy.deepcopy(state.cache), state.mask, state.hidden)


def narrowed(state: State, rows: Tensor) -> State:
    """The state of some rows `[N]` alone; `state` is consumed."""
    state.cache.batch_select_indices(rows)
    return State(state.cache, state.mask[rows], state.hidden[rows])
