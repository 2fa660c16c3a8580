"""From blocks of tokens to latents: the sender's trained half of a wire.

    embeddings of a block [M, r, D] ── a map per position ──▶ + ──▶ latents at r
      and its features [M, K, D] ───── one hidden layer ──────┘        │ merge neighbours
                                                                       ▼
                                                             latents at 2r ─▶ latents at 4r

A latent starts as the scaled mean of its tokens' embeddings, which a reader half understands already; the hidden layer's part
starts at zero.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentwire.encoder import Encoder

HEADS = 4
FARTHEST = 8.0  # deviations


class Standard(nn.Module):
    """Features with mean 0 and deviation 1 in each entry, once `measure` has seen some; as they are until then.

    A few entries of a model's hidden states are far larger than the others (Sun et al. 2024, arXiv 2402.17762): normalised as
    a whole, such a state would be those few.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, num_features: int, width: int) -> None:
        super().__init__()
        self.register_buffer("shift", torch.zeros(num_features, width))
        self.register_buffer("scale", torch.ones(num_features, width))

    @torch.no_grad()
    def measure(self, features: Tensor) -> None:
        """Take mean and deviation from `features [N, K, D]`; of a single one there are none to take."""
        if len(features) < 2:
            return
        spread, mean = torch.std_mean(features.float(), dim=0)
        self.shift.copy_(mean)
        self.scale.copy_(spread.clamp(min=1e-3 * float(spread.mean())))

    def forward(self, features: Tensor) -> Tensor:
        """`[M, K * D]` of `features [M, K, D]`."""
        deviations = (features - self.shift) / self.scale
        return deviations.clamp(-FARTHEST, FARTHEST).flatten(1)


class Latents(nn.Module):
    """Trained maps from blocks of `pool` tokens to latents, and from pairs of latents to one.

    Source: ComprExIT (arXiv 2602.03784, section 3) mixes the layers of a frozen model and pools in windows, as here; the map per
    position and the start at the mean embedding are ours.

    Args:
        width: `D` of the encoder.
        num_features: `K`, layers kept.
        pool: `r`, tokens in a block.
        merges: How often neighbours are merged: 0 for compression `r` alone, 2 for `r`, `2 r` and `4 r`.
        hidden: Units between features and residual.
    """

    def __init__(self, width: int, num_features: int, pool: int, merges: int, hidden: int) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.eye(width).repeat(pool, 1, 1) / pool**0.5)
        self.standard = Standard(num_features, width)
        self.mix = nn.Linear((num_features + pool) * width, hidden)
        self.residual = _zero(nn.Linear(hidden, width))
        self.merges = nn.ModuleList(Merge(width, hidden) for _ in range(merges))

    def forward(self, embeds: Tensor, features: Tensor, merges: int) -> Tensor:
        """Latents `[ceil(M / 2 ** merges), D]` float32 of `embeds [M, r, D]` and `features [M, K, D]`."""
        base = torch.einsum("mrd,rde->me", embeds, self.positions)
        seen = torch.cat([self.standard(features), F.layer_norm(embeds, embeds.shape[-1:]).flatten(1)], dim=1)
        latents: Tensor = base + self.residual(F.gelu(self.mix(seen)))
        for merge in self.merges[:merges]:
            latents = merge(latents)
        return latents.float()


class Queries(nn.Module):
    """Learned queries that look a window's features up, in place of contiguous blocks: the rung to beat.

    Source: Jaegle et al. 2021, Perceiver (arXiv 2103.03206, section 3.1), one cross-attention; each query stands for the place
    of the block that it replaces.

    Args:
        width: `D` of the encoder.
        num_features: `K`, layers kept.
        most: Blocks of the longest window.
        hidden: Units of the layer after the attention.
    """

    def __init__(self, width: int, num_features: int, most: int, hidden: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(most, width) * width**-0.5)
        self.places = nn.Parameter(torch.randn(most, width) * width**-0.5)
        self.standard = Standard(num_features, width)
        self.mix = nn.Linear(num_features * width, width)
        self.attention = nn.MultiheadAttention(width, HEADS, batch_first=True)
        self.inner = nn.Linear(width, hidden)
        self.outer = nn.Linear(hidden, width)

    def forward(self, embeds: Tensor, features: Tensor, merges: int) -> Tensor:
        """Latents `[ceil(M / 2 ** merges), D]` float32 of `features [M, K, D]`; `embeds` are not used."""
        count = len(features)
        seen = self.mix(self.standard(features)) + self.places[:count]
        asked = self.queries[: count : 2**merges]
        found = self.attention(asked[None], seen[None], seen[None], need_weights=False)[0][0]
        latents: Tensor = found + self.outer(F.gelu(self.inner(found)))
        return latents.float()


class Merge(nn.Module):
    """Two neighbouring latents as one: starts at their scaled mean. An odd one out is merged with itself."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.sides = nn.Parameter(torch.eye(width).repeat(2, 1, 1) / 2**0.5)
        self.mix = nn.Linear(2 * width, hidden)
        self.residual = _zero(nn.Linear(hidden, width))

    def forward(self, latents: Tensor) -> Tensor:
        """`[ceil(M / 2), D]` of `[M, D]`."""
        pairs = in_blocks(latents, 2)
        normed = F.layer_norm(pairs, pairs.shape[-1:]).flatten(1)
        base = torch.einsum("mrd,rde->me", pairs, self.sides)
        merged: Tensor = base + self.residual(F.gelu(self.mix(normed)))
        return merged


def start_latents(source: Encoder, merges: int, hidden: int, queries: bool) -> Latents | Queries:
    """New maps, or queries, for an encoder's features, untrained."""
    width, kept = source.reader.width, len(source.layers)
    if queries:
        return Queries(width, kept, source.window // source.pool, hidden)
    return Latents(width, kept, source.pool, merges, hidden)


def in_blocks(rows: Tensor, size: int) -> Tensor:
    """`[S, D]` as blocks `[ceil(S / size), size, D]`; the last is filled with copies of the last row."""
    missing = -len(rows) % size
    filled = torch.cat([rows, rows[-1:].expand(missing, -1)]) if missing else rows
    return filled.view(-1, size, rows.shape[-1])


def _zero(layer: nn.Linear) -> nn.Linear:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
