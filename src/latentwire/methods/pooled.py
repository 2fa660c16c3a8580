"""Means of neighbouring input embeddings: the shortest sequence that needs no training, and where a trained one starts.

token ids [S] ─▶ embeddings [S, D] ─ mean of r neighbours, at their magnitude ─▶ [ceil(S / r), D] ─ wire ─▶ prefix
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from latentwire.errors import MethodError
from latentwire.latent import Latent, expect_space
from latentwire.methods import METHODS, Method, id_tensor
from latentwire.methods.text import tokens_of
from latentwire.reader import Prefix, Reader, Slot


@METHODS.register("pooled")
@dataclass
class Pooled(Method):
    """Mean-pooled input embeddings of the reader.

    Attributes:
        compression: `r`, how many tokens become one position; the last position may stand for fewer.
        counted_by: Name of the reader whose tokens `r` counts; of as many positions each then stands for about as many tokens.
        wire_dtype: "fp16" or "int8".
    """

    compression: int = 4
    counted_by: str | None = None
    wire_dtype: Literal["int8", "fp16"] = "fp16"

    def __post_init__(self) -> None:
        if self.compression < 1:
            raise MethodError(f"pooled: expected compression of at least 1, got {self.compression}; change the field")

    def encode(self, slots: Sequence[Slot], reader: Reader) -> list[Latent]:
        """Scaled means `[ceil(S / r), D]`."""
        rows = [self._pooled(slot, reader) for slot in slots]
        space = f"pooled-{reader.fingerprint}"
        return [
            Latent(row.cpu().numpy(), self.wire_dtype, space, len(slot.ids))
            for row, slot in zip(rows, slots, strict=True)
        ]

    def _pooled(self, slot: Slot, reader: Reader) -> Tensor:
        embeds = reader.embed(id_tensor(slot.ids)).float()
        if self.counted_by in (None, reader.source):
            return pooled(embeds.split(self.compression), embeds)
        count = math.ceil(tokens_of(slot, reader, self.counted_by) / self.compression)
        return pooled(embeds.tensor_split(min(count, len(embeds))), embeds)

    def prefix(self, latents: Sequence[Latent], reader: Reader) -> Prefix:
        """The means as they came."""
        expect_space(list(latents), f"pooled-{reader.fingerprint}")
        return Prefix.stack([torch.from_numpy(latent.payload).to(reader.device) for latent in latents])


def pooled(blocks: Sequence[Tensor], embeds: Tensor) -> Tensor:
    """Means `[M, D]` of the `M` blocks of `embeds [S, D]`, each scaled to the root mean square of what it stands for.

    A mean of unlike vectors is shorter than they are, and a reader takes the length of an embedding for part of its meaning.
    """
    means = []
    for block in blocks:
        mean = block.mean(dim=0)
        means.append(mean * block.square().mean().sqrt() / mean.square().mean().sqrt().clamp(min=1e-12))
    return torch.stack(means) if means else embeds
