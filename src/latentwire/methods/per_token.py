"""Stage 1: every token embedding is compressed on its own and decoded on its own.

    token ids [S] ─▶ embeddings [S, D] ─ compressor ─▶ codes [S, d] ─ wire ─▶ codes ─ decoder ─▶ embeddings [S, D]

The table of input embeddings is finite, so each token's code is computed once and looked up ever after.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentwire.codecs import transmit
from latentwire.errors import MethodError
from latentwire.latent import Latent, expect_space
from latentwire.methods import METHODS, Counts, Method, Weights, id_tensor
from latentwire.methods.compressors import Basis, fit_basis
from latentwire.methods.decoders import DECODERS, Decoder
from latentwire.reader import Prefix, Reader, Slot


@METHODS.register("per_token")
@dataclass
class PerToken(Method):
    """A linear code per token and a decoder.

    Attributes:
        compressor: "pca", or "random" for the control.
        decoder: "linear", "mlp", "codebook_hard" or "codebook_soft".
        compression: How many times narrower the code is: `d = round(D / compression)`.
        width: `d` itself, in place of `compression`.
        wire_dtype: "int8" or "fp16", applied for real before decoding.
        seed: Seed of the random projection.
    """

    compressor: str = "pca"
    decoder: str = "mlp"
    compression: float = 8.0
    width: int | None = None
    wire_dtype: Literal["int8", "fp16"] = "int8"
    seed: int = 0

    def prepare(self, reader: Reader, counts: Counts, weights: Weights | None = None) -> None:
        """Fit the compressor to the corpus and start the decoder at its inverse."""
        self._build(fit_basis(self.compressor, reader, counts, self.code_width(reader), self.seed), reader)
        self._decoder.start(self._sent, reader, torch.from_numpy(counts / counts.sum() if weights is None else weights))

    def code_width(self, reader: Reader) -> int:
        """`d`, the values sent for each token."""
        return round(reader.width / self.compression) if self.width is None else self.width

    def encode(self, slots: Sequence[Slot], reader: Reader) -> list[Latent]:
        """Codes `[S, d]`."""
        space = self._space(reader)
        return [
            Latent(self._codes[id_tensor(slot.ids)].numpy(), self.wire_dtype, space, len(slot.ids)) for slot in slots
        ]

    def prefix(self, latents: Sequence[Latent], reader: Reader) -> Prefix:
        """Decoded embeddings `[S, D]`; what occurs twice is decoded once."""
        expect_space(list(latents), self._space(reader))
        codes = torch.cat([torch.from_numpy(latent.payload) for latent in latents])
        distinct, where = torch.unique(codes, dim=0, return_inverse=True)
        # F.embedding, unlike indexing, sums the gradients of repeated rows in a fixed order: runs repeat bit for bit.
        embeds = F.embedding(where.to(reader.device), self._decoder(distinct.to(reader.device)))
        return Prefix.stack(embeds.split([latent.payload.shape[0] for latent in latents]))

    def restore(self, ids: Tensor, reader: Reader) -> Tensor:
        """Embeddings `[N, D]` float32 of tokens `[N]` after compression, wire and decoder; differentiable."""
        restored: Tensor = self._decoder(self._sent[ids])
        return restored

    @property
    def total_variance(self) -> float:
        """Variance of the corpus' embeddings around their mean, in all `D` directions."""
        return self._basis.total_variance

    def module(self) -> nn.Module:
        """The decoder, basis included."""
        self._require_prepared()
        return self._decoder

    def load(self, tensors: Mapping[str, Tensor], reader: Reader) -> None:
        """Restore basis and decoder."""
        basis = Basis(
            tensors["basis.mean"],
            tensors["basis.components"],
            tensors["basis.variances"],
            float(tensors["basis.total_variance"]),
        )
        self._build(basis, reader)
        own = {name.removeprefix("decoder."): tensor for name, tensor in tensors.items() if name.startswith("decoder.")}
        self._decoder.load_state_dict(own)

    def tensors(self) -> dict[str, Tensor]:
        """Everything that `load` needs."""
        self._require_prepared()
        basis = {
            "basis.mean": self._basis.mean,
            "basis.components": self._basis.components,
            "basis.variances": self._basis.variances,
            "basis.total_variance": torch.tensor(self._basis.total_variance, dtype=torch.float64),
        }
        return basis | {f"decoder.{name}": tensor for name, tensor in self._decoder.state_dict().items()}

    @torch.no_grad()
    def _build(self, basis: Basis, reader: Reader) -> None:
        self._basis = basis
        content = torch.cat([basis.mean[:, None], basis.components], dim=1).contiguous().numpy()
        self._identity = hashlib.sha256(content.tobytes()).hexdigest()[:16]
        self._codes = torch.cat([(rows.cpu() - basis.mean) @ basis.components for _, rows in reader.table()])
        sent, _ = transmit(Latent(self._codes.numpy(), self.wire_dtype, self._space(reader), len(self._codes)))
        self._sent = torch.from_numpy(sent.payload).to(reader.device)
        self._decoder: Decoder = DECODERS[self.decoder](basis, self._sent, reader).to(reader.device)

    def _space(self, reader: Reader) -> str:
        """The basis and the reader decide what a code means; who holds another basis must not read it."""
        self._require_prepared()
        return f"codes-{self._identity}-{reader.fingerprint}"

    def _require_prepared(self) -> None:
        if not hasattr(self, "_identity"):
            raise MethodError("expected a prepared method, got one without a basis; call prepare or load first")
