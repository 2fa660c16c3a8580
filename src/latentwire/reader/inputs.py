"""What a reader reads: a `Prefix` for the slot, `Inputs` for the whole prompt, and how rows are padded to a batch."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


@dataclass(frozen=True, slots=True, eq=False)
class Prefix:
    """What takes the slot's place in a reader: `embeds [B, P, D]` and `mask [B, P]` (true where a position counts)."""

    embeds: Tensor
    mask: Tensor

    @classmethod
    def stack(cls, rows: Sequence[Tensor]) -> "Prefix":
        """A prefix from `B` rows of `[P_i, D]`, padded on the right."""
        lengths = torch.tensor([row.shape[0] for row in rows], device=rows[0].device)
        embeds = pad_sequence(list(rows), batch_first=True)
        return cls(embeds, torch.arange(embeds.shape[1], device=embeds.device) < lengths[:, None])

    def rows(self) -> list[Tensor]:
        """The rows without padding, each `[P_i, D]`."""
        return [embeds[mask] for embeds, mask in zip(self.embeds, self.mask, strict=True)]


@dataclass(frozen=True, slots=True, eq=False)
class Inputs:
    """A batch as the reader sees it, padded on the left: `embeds [B, T, D]`, `mask [B, T]`."""

    embeds: Tensor
    mask: Tensor


def pad_left(rows: Sequence[Tensor]) -> Inputs:
    """Rows `[T_i, D]` as one batch, padded on the left."""
    longest = max(row.shape[0] for row in rows)
    embeds = torch.stack([torch.nn.functional.pad(row, (0, 0, longest - row.shape[0], 0)) for row in rows])
    lengths = torch.tensor([row.shape[0] for row in rows], device=embeds.device)
    return Inputs(embeds, torch.arange(longest, 0, -1, device=embeds.device) <= lengths[:, None])


def shared_positions(inputs: Inputs) -> int:
    """How many leading positions all rows of a batch have in common, at least one position of each row left over."""
    lengths = inputs.mask.sum(dim=1)
    if len(lengths) == 1:
        return 0
    starts = inputs.mask.shape[1] - lengths
    columns = torch.arange(int(lengths.min()) - 1, device=lengths.device)
    leading = inputs.embeds[torch.arange(len(lengths), device=lengths.device)[:, None], starts[:, None] + columns]
    same = (leading == leading[:1]).all(dim=2).all(dim=0)
    return int(same.long().cumprod(dim=0).sum())


def split_beginning(inputs: Inputs, shared: int) -> tuple[Tensor, Inputs, Tensor]:
    """The beginning `[1, shared, D]` of all rows, the rest of each, and a mask `[B, shared]` of the beginning."""
    rows = [embeds[mask] for embeds, mask in zip(inputs.embeds, inputs.mask, strict=True)]
    ones = torch.ones(len(rows), shared, dtype=torch.bool, device=inputs.mask.device)
    return rows[0][None, :shared], pad_left([row[shared:] for row in rows]), ones


def positions(mask: Tensor) -> Tensor:
    """Position ids `[B, T]` that count only what `mask [B, T]` marks."""
    return (mask.long().cumsum(dim=1) - 1).clamp(min=0)
