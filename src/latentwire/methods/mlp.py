"""The trained decoder: a wide hidden layer whose units start at the codes of tokens, and a correction that starts at zero.

code [d] ─▶ whitened, of length 1 ─▶ H units, each firing for its own token ─┬─ likeliest tokens: [D] ───────┬─▶ + inverse
                                                                             └─ the others: [r] ─▶ [r, D] ───┘
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from latentwire.methods.compressors import Basis, moments, symmetric_eigen
from latentwire.methods.decoders import DECODERS, SEARCH_BYTES, Decoder
from latentwire.reader import Reader

PARAMETERS = 20_000_000
GAIN = 8.0
LEAST_MARGIN = 0.05
FIRING_AT_MOST = 64
FIRING_BYTES = 16 * 2**20
COARSE_ERROR = 2**-6


def hidden_widths(wide: int, narrow: int, vocab: int) -> tuple[int, int, int]:
    """Units that write all `D` directions, units that write `r` of them, and `r`: `D / 4`, less above `D = 4472`.

    Half of `PARAMETERS` goes to each kind: `H1 (d + D + 1)`, and `H2 (d + r + 1) + r D`. A token needs one unit, so there
    are no more than `vocab`. 2,169 and 3,777 at 4,096 and 512; 13,869 and 41,068 at 640 and 80. The budget is the same at
    every width, because what must be learnt is the vocabulary, and that does not shrink with the reader.
    """
    rank = min(wide // 4, PARAMETERS // 4 // wide)
    full = min(PARAMETERS // 2 // (narrow + wide + 1), vocab)
    rest = min((PARAMETERS // 2 - rank * wide) // (narrow + rank + 1), vocab - full)
    return full, rest, rank


@DECODERS.register("mlp")
class Mlp(Decoder):
    """The inverse plus one hidden layer of rectified units on normalised codes; *exactly* the inverse before training.

    A unit starts at the code of one token and fires above the nearest rival's cosine, so that nearly all activations are
    zero and a step costs what the active ones cost. Where a table has more tokens than there are units, the likeliest
    have one; those in the first half correct the embedding in all `D` directions, the others in `r` (which start as
    the leading directions that the compressor lost). All of it is trained.

    Source: units at data points as in radial-basis networks (Broomhead and Lowe 1988); here they are half-spaces on a
    sphere, and are trained. A dense two-layer MLP of the same size was behind after three times the steps, see LOG.md.

    Parameters: about `PARAMETERS`, see `hidden_widths`; fewer where the vocabulary needs no more.
    """

    centre: Tensor
    whitening: Tensor
    gain: Tensor

    def __init__(self, basis: Basis, sent: Tensor, reader: Reader) -> None:
        super().__init__(basis, sent, reader)
        wide, narrow = basis.components.shape
        full, rest, rank = hidden_widths(wide, narrow, len(sent))
        self.register_buffer("centre", torch.zeros(narrow))
        self.register_buffer("whitening", torch.eye(narrow))
        self.register_buffer("gain", torch.ones(()))
        self.units = nn.Parameter(torch.zeros(full + rest, narrow))
        self.thresholds = nn.Parameter(torch.zeros(full + rest, 1))
        self.full = nn.Parameter(torch.zeros(full, wide))
        self.reduced = nn.Parameter(torch.zeros(rest, rank)) if rest else None
        self.directions = nn.Parameter(torch.zeros(rank, wide)) if rest else None
        self.offset = nn.Parameter(torch.zeros(wide))

    @torch.no_grad()
    def start(self, sent: Tensor, reader: Reader, weights: Tensor) -> None:
        """Put a unit at the code of each of the tokens that weigh most, and scale the correction to what is missing."""
        chosen = weights.argsort(descending=True, stable=True)[: len(self.units)]
        codes = sent[chosen.to(sent.device)]
        self.centre.copy_(codes.mean(dim=0))
        variances, axes = symmetric_eigen(
            (codes - self.centre).double().T @ (codes - self.centre).double() / len(codes)
        )
        self.whitening.copy_(axes / variances.clamp(min=variances.max() * 1e-6).sqrt())
        places = self._normalised(codes)
        margins = (1 - nearest_cosines(places)).clamp(min=LEAST_MARGIN)[:, None]
        self.units.copy_(places / margins)
        self.thresholds.copy_(1 - 1 / margins)
        missing = lost_covariance(self.mean, self.components, *moments(reader, weights.numpy()))
        _, axes = symmetric_eigen(missing)
        self.gain.fill_(GAIN * float(missing.diagonal().mean().clamp(min=0).sqrt()))
        if self.directions is not None:
            self.directions.copy_(axes.flip(1)[:, : len(self.directions)].T)

    def forward(self, codes: Tensor) -> Tensor:
        """Embeddings `[N, D]`, in float32 under autocast too; there, bf16 only tells which units may fire."""
        coarse = torch.is_autocast_enabled(codes.device.type)
        with torch.autocast(codes.device.type, enabled=False):
            inputs = self._normalised(codes)
            rows, units = self._firing(inputs, coarse)
            if len(units) > FIRING_AT_MOST * len(codes):
                size = max(1, SEARCH_BYTES // (8 * len(self.units)))
                parts = [checkpoint(self._dense, part, use_reentrant=False) for part in inputs.split(size)]
                correction = torch.cat(parts)
            else:
                correction = self._sparse(inputs, rows, units)
            return super().forward(codes) + self.gain * (correction + self.offset)

    def _normalised(self, codes: Tensor) -> Tensor:
        return F.normalize((codes - self.centre) @ self.whitening, dim=1)

    @torch.no_grad()
    def _firing(self, inputs: Tensor, coarse: bool) -> tuple[Tensor, Tensor]:
        """Pairs of input row and unit whose activation is above zero, by rows; 16 MB of activations at once on a CPU.

        `coarse` computes them in bf16, and thresholds lower by the largest error of that let some pairs in that do not fire.
        """
        table, thresholds = self.units.detach(), self.thresholds[:, 0]
        if coarse:
            thresholds = thresholds + COARSE_ERROR * (table.norm(dim=1) + thresholds.abs())
            table, thresholds, inputs = table.bfloat16(), thresholds.bfloat16(), inputs.bfloat16()
        spare = -len(table) % (8 // table.element_size())
        table, thresholds = F.pad(table, (0, 0, 0, spare)), F.pad(thresholds, (0, spare), value=-1.0)
        budget = FIRING_BYTES if table.device.type == "cpu" else SEARCH_BYTES
        size = max(1, budget // (table.element_size() * len(table)))
        rows, units = [], []
        for number, part in enumerate(inputs.split(size)):
            found = positive(torch.addmm(thresholds, part, table.T))
            rows.append(found[0] + number * size)
            units.append(found[1])
        return torch.cat(rows), torch.cat(units)

    def _sparse(self, inputs: Tensor, rows: Tensor, units: Tensor) -> Tensor:
        """The correction from the firing pairs alone. F.embedding sums gradients in a fixed order: runs repeat."""
        levels = (F.embedding(units, self.units) * inputs[rows]).sum(dim=1) + F.embedding(units, self.thresholds)[:, 0]
        levels = levels.relu()
        first = torch.arange(len(inputs), device=rows.device)
        chosen = units < len(self.full)

        def summed(kind: Tensor, table: Tensor, shift: int) -> Tensor:
            begins = torch.searchsorted(rows[kind], first)
            return F.embedding_bag(units[kind] - shift, table, begins, mode="sum", per_sample_weights=levels[kind])

        correction: Tensor = summed(chosen, self.full, 0)
        if self.reduced is not None and self.directions is not None:
            correction = correction + summed(~chosen, self.reduced, len(self.full)) @ self.directions
        return correction

    def _dense(self, inputs: Tensor) -> Tensor:
        """The same from all pairs: cheaper once units fire for many tokens."""
        levels = torch.addmm(self.thresholds[:, 0], inputs, self.units.T).relu()
        correction = levels[:, : len(self.full)] @ self.full
        if self.reduced is not None and self.directions is not None:
            correction = correction + levels[:, len(self.full) :] @ self.reduced @ self.directions
        return correction


def positive(levels: Tensor) -> tuple[Tensor, Tensor]:
    """Row and column numbers of the entries above zero of `levels [N, H]`, by rows; overwrites it. A row is whole words of 8 bytes.

    Few entries are above zero, so a word is tested at a time: `levels.gt(0).nonzero()` took four times as long.
    """
    pack = 8 // levels.element_size()
    rows, groups = levels.relu_().view(torch.int64).nonzero(as_tuple=True)
    which, places = levels.unflatten(1, (-1, pack))[rows, groups].nonzero(as_tuple=True)
    return rows[which], groups[which] * pack + places


def nearest_cosines(places: Tensor) -> Tensor:
    """Cosine `[N]` of each row of `places [N, d]`, all of length 1, with the nearest other row; at most 256 MB extra."""
    size = max(1, SEARCH_BYTES // (4 * max(1, len(places))))
    found = []
    for start in range(0, len(places), size):
        cosines = places[start : start + size] @ places.T
        cosines.diagonal(start).fill_(-1.0)
        found.append(cosines.max(dim=1).values)
    return torch.cat(found)


def lost_covariance(centre: Tensor, components: Tensor, mean: Tensor, covariance: Tensor) -> Tensor:
    """Second moment `[D, D]` float64 of what projecting on `components [D, d]` around `centre` loses of a distribution."""
    offset, axes = mean - centre.double().cpu(), components.double().cpu()
    lost = torch.eye(len(mean), dtype=torch.float64) - axes @ axes.T
    return lost @ (covariance + torch.outer(offset, offset)) @ lost
