"""Where a reader stands between calls, and what it has answered."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
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


def merged(states: Sequence[State]) -> State:
    """The rows of several states of one reader as one batch, the shorter ones padded on the left; all are consumed.

    Padding is never seen, and stands before a row: a sliding window looks at what it looked at before.
    """
    longest = max(state.mask.shape[1] for state in states)
    mask = torch.cat([_padded(state.mask, longest, 1) for state in states])
    first, *others = [state.cache for state in states]
    for number, layer in enumerate(first.layers):
        alike = [layer, *(cache.layers[number] for cache in others)]
        size = max(one.keys.shape[2] for one in alike)
        layer.keys = torch.cat([_padded(one.keys, size, 2) for one in alike])
        layer.values = torch.cat([_padded(one.values, size, 2) for one in alike])
        if hasattr(layer, "cumulative_length"):
            layer.cumulative_length = longest
    return State(first, mask, torch.cat([state.hidden for state in states]))


def _padded(tensor: Tensor, size: int, dim: int) -> Tensor:
    """A tensor with zeros before what it holds along `dim`, `size` long."""
    sides = [0, 0] * (tensor.dim() - 1 - dim) + [size - tensor.shape[dim], 0]
    return F.pad(tensor, sides)
