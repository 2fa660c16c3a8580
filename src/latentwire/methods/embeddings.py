"""Raw input embeddings on the wire: the reference that every ratio divides by. No parameters."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from latentwire.latent import Latent, expect_space
from latentwire.methods import METHODS, Method, id_tensor
from latentwire.reader import Prefix, Reader, Slot


@METHODS.register("raw_embeddings")
@dataclass
class RawEmbeddings(Method):
    """The reader's own input embeddings, uncompressed; fp32 on the wire, so that nothing is rounded."""

    def encode(self, slots: Sequence[Slot], reader: Reader) -> list[Latent]:
        """Embeddings `[S, D]`."""
        space = f"embeddings-{reader.fingerprint}"
        rows = [reader.embed(id_tensor(slot.ids)).float().cpu().numpy() for slot in slots]
        return [
            Latent(row.astype(np.float32), "fp32", space, len(slot.ids)) for row, slot in zip(rows, slots, strict=True)
        ]

    def prefix(self, latents: Sequence[Latent], reader: Reader) -> Prefix:
        """The embeddings as they were."""
        expect_space(list(latents), f"embeddings-{reader.fingerprint}")
        return Prefix.stack([torch.from_numpy(latent.payload).to(reader.device, reader.dtype) for latent in latents])
