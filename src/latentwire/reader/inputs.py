"""What a reader reads: a `Prefix` for the slot, `Inputs` for the whole prompt, and how rows are padded to a batch."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

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
    """A batch as the reader sees it, padded on the left: `embeds [B, T, D]`, `mask [B, T]`.

    `opening` are the token ids that all rows begin with whatever the examples: template and worked examples.
    """

    embeds: Tensor
    mask: Tensor
    opening: tuple[int, ...] = ()


def pad_left(rows: Sequence[Tensor]) -> Inputs:
    """Rows `[T_i, D]` as one batch, padded on the left."""
    longest = max(row.shape[0] for row in rows)
    embeds = torch.stack([torch.nn.functional.pad(row, (0, 0, longest - row.shape[0], 0)) for row in rows])
    lengths = torch.tensor([row.shape[0] for row in rows], device=embeds.device)
    return Inputs(embeds, torch.arange(longest, 0, -1, device=embeds.device) <= lengths[:, None])


@dataclass(frozen=True, slots=True, eq=False)
class Level:
    """One reading of a batch: inputs `[N, T, D]`, and the row of the level above `[N]` that each of them follows."""

    inputs: Inputs
    follows: Tensor


def levels(inputs: Inputs, least: int, stems: bool = True) -> list[Level]:
    """The batch as up to three readings, so that what rows begin with in common is read once.

        [ beginning ][ stem: context 1 ][ question 1 ]
                                        [ question 2 ]
                     [ stem: context 2 ][ question 3 ]

    The last level holds the batch's rows, in their order. The beginning is the inputs' `opening` where they have one, else what
    all rows have in common. Fewer than `least` positions are not worth a reading of their own; without `stems` only the
    beginning of all rows is one. Rows are alike where their embeddings are equal: the gradient
    arrives at the first of such rows, summed over all.
    """
    rows = [embeds[mask] for embeds, mask in zip(inputs.embeds, inputs.mask, strict=True)]
    alike = [_positions_alike(*pair) for pair in pairwise(rows)]
    common = len(inputs.opening) or min(alike, default=0)
    common = common if common >= least else 0
    found = [([rows[0][:common]], [0])] if common else []
    groups = _neighbours(alike, common + least) if stems else [[row] for row in range(len(rows))]
    ends = [common] * len(rows)
    if len(groups) < len(rows):
        ends = _stem_ends(groups, [len(row) for row in rows], alike, common)
        found.append(([rows[group[0]][common : ends[group[0]]] for group in groups], [0] * len(groups)))
        above = [number for number, group in enumerate(groups) for _ in group]
    else:
        above = [0] * len(rows)
    found.append(([row[end:] for row, end in zip(rows, ends, strict=True)], above))
    read = [pad_left(parts) for parts, _ in found]
    if common:
        read[0] = replace(read[0], opening=inputs.opening)
    device = inputs.mask.device
    return [Level(part, torch.tensor(follows, device=device)) for part, (_, follows) in zip(read, found, strict=True)]


def joined(parts: Sequence[Level], states: Sequence[Tensor]) -> Tensor:
    """What was read of each level, `[N, T, D]` each, as whole rows `[B, T, D]`, padded on the left as the rows were."""
    rows = []
    for row in range(len(states[-1])):
        pieces, place = [], row
        for part, here in zip(reversed(parts), reversed(states), strict=True):
            first = int(part.inputs.mask[place].long().argmax())
            pieces.append(here[place, first:] if part.inputs.mask[place, first] else here[place, :0])
            place = int(part.follows[place])
        rows.append(torch.cat(pieces[::-1]))
    return pad_left(rows).embeds


def _positions_alike(one: Tensor, other: Tensor) -> int:
    """How many leading positions two rows have in common, at least one position of each left over."""
    size = min(len(one), len(other)) - 1
    return int((one[:size] == other[:size]).all(dim=1).long().cumprod(dim=0).sum())


def _neighbours(alike: Sequence[int], least: int) -> list[list[int]]:
    """Rows in groups of neighbours that begin alike for at least `least` positions."""
    groups = [[0]]
    for row, positions_alike in enumerate(alike, 1):
        if positions_alike >= least:
            groups[-1].append(row)
        else:
            groups.append([row])
    return groups


def _stem_ends(groups: Sequence[Sequence[int]], lengths: Sequence[int], alike: Sequence[int], common: int) -> list[int]:
    """Where each row's stem ends. A row that is alone is cut so that its rest is no longer than that of the others."""
    ends = [min((alike[row] for row in group[:-1]), default=0) for group in groups for _ in group]
    longest = max(length - end for length, end in zip(lengths, ends, strict=True) if end)
    return [end or max(common, length - longest) for length, end in zip(lengths, ends, strict=True)]


def positions(mask: Tensor) -> Tensor:
    """Position ids `[B, T]` that count only what `mask [B, T]` marks."""
    return (mask.long().cumsum(dim=1) - 1).clamp(min=0)
