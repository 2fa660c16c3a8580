"""From spans of tokens to latents: the sender's trained half of a wire.

    kept token's embedding [M, D] ────────────────────────────────▶ + ──▶ latents [M, D]
      and its span's states [M, 2 K, D] ── one hidden layer ────────┘

A latent starts as the embedding of the one token of its span that is kept, which a reader understands already; what the hidden
layer adds of the others starts at zero. Coarser latents are those of coarser spans.
"""

import hashlib
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentwire.codecs import transmit
from latentwire.encoder import Encoder
from latentwire.latent import Latent

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
    """Trained map from spans to latents, one for each.

    Source: ComprExIT (arXiv 2602.03784, section 3) mixes the layers of a frozen model and pools in windows of fixed size; spans
    that end at chosen tokens and the start at their embeddings are ours.

    Args:
        width: `D` of the encoder.
        num_states: `2 K`, states kept of each span.
        hidden: Units between states and residual.
    """

    def __init__(self, width: int, num_states: int, hidden: int) -> None:
        super().__init__()
        self.standard = Standard(num_states, width)
        self.mix = nn.Linear((num_states + 1) * width, hidden)
        self.length = nn.Parameter(torch.zeros(hidden))
        self.residual = nn.Linear(hidden, width)
        nn.init.zeros_(self.residual.weight)
        nn.init.zeros_(self.residual.bias)

    def forward(
        self, embeds: Tensor, states: Tensor, sizes: Tensor, lengths: Sequence[int], counts: Sequence[int]
    ) -> Tensor:
        """Latents `[M, D]` float32 of kept tokens' `embeds [M, D]`, `states [M, 2 K, D]` and `sizes [M]` of spans, of any windows:
        how many of each (`lengths`, `counts`) does not matter."""
        seen = torch.cat([self.standard(states), F.layer_norm(embeds, embeds.shape[-1:])], dim=1)
        units = self.mix(seen) + sizes.float().log2()[:, None] * self.length
        latents: Tensor = embeds + self.residual(F.gelu(units))
        return latents.float()


class Queries(nn.Module):
    """Learned queries that look a window's spans up, in place of one latent for each: the rung to beat.

    Source: Jaegle et al. 2021, Perceiver (arXiv 2103.03206, section 3.1), one cross-attention; each query stands for a place.

    Args:
        width: `D` of the encoder.
        num_states: `2 K`, states kept of each span.
        most: Spans of the longest window.
        hidden: Units of the layer after the attention.
    """

    def __init__(self, width: int, num_states: int, most: int, hidden: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(most, width) * width**-0.5)
        self.places = nn.Parameter(torch.randn(most, width) * width**-0.5)
        self.standard = Standard(num_states, width)
        self.mix = nn.Linear(num_states * width, width)
        self.attention = nn.MultiheadAttention(width, HEADS, batch_first=True)
        self.inner = nn.Linear(width, hidden)
        self.outer = nn.Linear(hidden, width)

    def forward(
        self, embeds: Tensor, states: Tensor, sizes: Tensor, lengths: Sequence[int], counts: Sequence[int]
    ) -> Tensor:
        """Latents float32, `counts` of them for each window, of its `lengths` of `states [M, 2 K, D]`; the rest is not used."""
        parts = zip(states.split(list(lengths)), counts, strict=True)
        return torch.cat([self._looked_up(part, count) for part, count in parts])

    def _looked_up(self, states: Tensor, count: int) -> Tensor:
        seen = self.mix(self.standard(states)) + self.places[: len(states)]
        asked = self.queries[:: max(1, -(-len(states) // count))][:count]
        found = self.attention(asked[None], seen[None], seen[None], need_weights=False)[0][0]
        latents: Tensor = found + self.outer(F.gelu(self.inner(found)))
        return latents.float()


def start_latents(source: Encoder, hidden: int, queries: bool) -> Latents | Queries:
    """A new map, or queries, for an encoder's spans, untrained."""
    width, num_states = source.reader.width, 2 * len(source.layers)
    if queries:
        return Queries(width, num_states, source.window // source.pool, hidden)
    return Latents(width, num_states, hidden)


def as_received(row: Tensor, codec: str) -> Tensor:
    """Latents `[M, d]` as they come off the wire; gradients pass the rounding unchanged.

    Source: Bengio et al. 2013, straight-through (arXiv 1308.3432, section 4).
    """
    latent = Latent(row.detach().cpu().numpy(), codec, "", len(row))
    return row + (torch.from_numpy(transmit(latent)[0].payload).to(row.device) - row).detach()


def space_of(identity: str, latents: nn.Module) -> str:
    """Fingerprint of a latent space: the encoder's `identity` and the latents' weights, which decide what a latent means."""
    digest = hashlib.sha256(identity.encode())
    for parameter in latents.state_dict().values():
        digest.update(parameter.cpu().numpy().tobytes())
    return f"wire-{digest.hexdigest()[:16]}"
