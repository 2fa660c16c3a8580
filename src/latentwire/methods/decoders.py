"""Decoders: codes `[N, d]` back to token embeddings `[N, D]`, each vector on its own.

None ends in a LayerNorm: norms differ from token to token, and a norm that is the same for all cannot restore them.
"""

import torch
from torch import Tensor, nn

from latentwire.methods.compressors import Basis
from latentwire.reader import Reader
from latentwire.registry import Registry

SEARCH_BYTES = 256 * 2**20


class Decoder(nn.Module):
    """Starts from the compressor's inverse, `mean + codes @ components.T`.

    Args:
        basis: The compressor's basis.
        sent: `[V, d]` codes of the whole vocabulary as they come off the wire.
        reader: The reader whose table the codes stand for.
    """

    mean: Tensor
    components: Tensor

    def __init__(self, basis: Basis, sent: Tensor, reader: Reader) -> None:
        super().__init__()
        self.register_buffer("mean", basis.mean, persistent=False)
        self.register_buffer("components", basis.components, persistent=False)

    def start(self, sent: Tensor, reader: Reader, weights: Tensor) -> None:
        """Set first parameters before training from `weights [V]`, how much each token counts; most have none."""

    def forward(self, codes: Tensor) -> Tensor:
        """Embeddings `[N, D]` of codes `[N, d]`, in float32 under autocast too."""
        with torch.autocast(codes.device.type, enabled=False):
            return torch.addmm(self.mean, codes, self.components.T)


DECODERS: Registry[type[Decoder]] = Registry("decoder")


@DECODERS.register("linear")
class Linear(Decoder):
    """The compressor's inverse and nothing else."""


@DECODERS.register("codebook_hard")
class CodebookHard(Decoder):
    """Looks up the token whose code is nearest and returns its embedding. No parameters beyond the reader's table."""

    def __init__(self, basis: Basis, sent: Tensor, reader: Reader) -> None:
        super().__init__(basis, sent, reader)
        self._sent = sent
        self._reader = reader

    def forward(self, codes: Tensor) -> Tensor:
        """Embeddings `[N, D]` of the nearest tokens."""
        return self._reader.embed(nearest_rows(codes, self._sent)).float()


@DECODERS.register("codebook_soft")
class CodebookSoft(Decoder):
    """The average of all tokens' embeddings, weighted by `exp(-distance² / (temperature * code variance))`."""

    temperature = 0.05

    def __init__(self, basis: Basis, sent: Tensor, reader: Reader) -> None:
        super().__init__(basis, sent, reader)
        self._sent = sent
        self._reader = reader
        self._sharpness = 1.0 / (self.temperature * float(basis.variances.sum()))

    def forward(self, codes: Tensor) -> Tensor:
        """Embeddings `[N, D]`, by a running soft-max over chunks of the table."""
        return torch.cat([self._average(part) for part in codes.split(256)])

    def _average(self, codes: Tensor) -> Tensor:
        best = torch.full((len(codes), 1), -torch.inf, device=codes.device)
        total = torch.zeros(len(codes), 1, device=codes.device)
        sums = torch.zeros(len(codes), self.mean.shape[0], device=codes.device)
        for rows, embeds in self._reader.table():
            scores = -self._sharpness * squared_distances(codes, self._sent[rows])
            peak = torch.maximum(best, scores.max(dim=1, keepdim=True).values)
            shrink, weights = (best - peak).exp(), (scores - peak).exp()
            total = total * shrink + weights.sum(dim=1, keepdim=True)
            sums = sums * shrink + weights @ embeds
            best = peak
        return sums / total


def squared_distances(left: Tensor, right: Tensor) -> Tensor:
    """`[N, V]` squared Euclidean distances between rows of `[N, d]` and `[V, d]`."""
    return left.square().sum(1, keepdim=True) - 2 * left @ right.T + right.square().sum(1)


@torch.no_grad()
def nearest_rows(queries: Tensor, table: Tensor) -> Tensor:
    """Index `[N]` of the row of `table [V, d]` nearest to each of `queries [N, d]`; at most 256 MB extra.

    The two nearest by matrix product, which cancels digits where norms are large, are compared again by true differences.
    """
    columns = min(len(table), 16_384)
    rows = max(1, SEARCH_BYTES // (16 * max(columns, table.shape[1])))
    return torch.cat([_nearest(part, table, columns) for part in queries.split(rows)])


def _nearest(queries: Tensor, table: Tensor, columns: int) -> Tensor:
    best = torch.full((len(queries), 2), torch.inf, device=queries.device)
    found = torch.zeros(len(queries), 2, dtype=torch.long, device=queries.device)
    for first in range(0, len(table), columns):
        distances = squared_distances(queries, table[first : first + columns])
        closest = distances.topk(min(2, distances.shape[1]), largest=False)
        merged = torch.cat([best, closest.values], dim=1)
        ids = torch.cat([found, closest.indices + first], dim=1)
        best, kept = merged.topk(2, largest=False)
        found = ids.gather(1, kept)
    exact = (queries[:, None] - table[found]).square().sum(-1)
    return found.gather(1, exact.argmin(dim=1, keepdim=True))[:, 0]
