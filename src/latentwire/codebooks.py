"""Codebooks: what codes of codec `pq` stand for. Numpy reads and writes codes; faiss learns the codebooks.

latents [M, d] ─ encode ─▶ codes [M, m], a byte each ─ decode ─▶ latents [M, d], each piece its nearest codeword

Source: Jégou, Douze, Schmid 2011, product quantisation (doi 10.1109/TPAMI.2010.57, section 2).
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from latentwire.errors import LatentError, SpaceError
from latentwire.latent import FloatArray, Latent

CODEC = "pq"
CODES = 256  # codewords for each piece: what a byte can name
AT_ONCE = 512  # vectors that are looked up together
FEWEST = 39 * CODES  # vectors to learn from; faiss asks for as many


@dataclass(frozen=True, eq=False)
class Codebooks:
    """The codewords of a product quantiser.

    Attributes:
        words: `[m, 256, d / m]` half precision.
    """

    words: npt.NDArray[np.float16]

    def __post_init__(self) -> None:
        if self.words.ndim != 3 or self.words.shape[1] != CODES or self.words.dtype != np.float16:
            raise LatentError(
                f"expected codewords [m, {CODES}, d / m] of float16, got {self.words.dtype} {list(self.words.shape)}"
            )
        if not np.isfinite(self.words).all():
            raise LatentError("expected finite codewords, got NaN or infinity; learn them anew")

    @cached_property
    def id(self) -> str:
        """16 hex digits, of all codewords."""
        return hashlib.sha256(self.words.astype("<f2").tobytes()).hexdigest()[:16]

    @property
    def width(self) -> int:
        """Values `d` of a vector."""
        return int(self.words.shape[0] * self.words.shape[2])

    def space(self, base: str) -> str:
        """The space of codes for vectors of the space `base`."""
        return f"{base}/{self.id}"

    def coded(self, latent: Latent) -> Latent:
        """Vectors as codes."""
        return Latent(self.encode(latent.payload), CODEC, self.space(latent.space), latent.source_tokens)  # type: ignore[arg-type]

    def restored(self, latent: Latent) -> Latent:
        """Codes as vectors again.

        Raises:
            SpaceError: Codes of other codebooks.
        """
        base, _, own = latent.space.partition("/")
        if own != self.id or latent.payload.shape[1] != len(self.words):
            raise SpaceError(
                f"expected {len(self.words)} codes of the codebooks '{self.id}', got {latent.payload.shape[1]} of '{own}';"
                " encode it with the wire that reads it"
            )
        return Latent(self.decode(latent.payload), "fp32", base, latent.source_tokens)  # type: ignore[arg-type]

    def encode(self, vectors: FloatArray) -> npt.NDArray[np.uint8]:
        """Codes `[M, m]` of vectors `[M, d]`: of each piece the nearest codeword's."""
        pieces, _, size = self.words.shape
        if vectors.shape[1] != self.width:
            raise LatentError(
                f"expected vectors of width {self.width}, got {vectors.shape[1]}; use their own codebooks"
            )
        words = self.words.astype(np.float32)
        lengths = np.square(words).sum(axis=2)
        codes = np.empty((len(vectors), pieces), np.uint8)
        for first in range(0, len(vectors), AT_ONCE):
            parts = vectors[first : first + AT_ONCE].reshape(-1, pieces, size).transpose(1, 0, 2)
            distances = lengths[:, None, :] - 2 * parts @ words.transpose(0, 2, 1)
            codes[first : first + AT_ONCE] = distances.argmin(axis=2).T
        return codes

    def decode(self, codes: npt.NDArray[np.uint8]) -> FloatArray:
        """Vectors `[M, d]` of codes `[M, m]`."""
        found = self.words[np.arange(len(self.words)), codes]
        return found.reshape(len(codes), self.width).astype(np.float32)


def learn(vectors: FloatArray, pieces: int, seed: int = 0) -> Codebooks:
    """Codebooks for vectors `[N, d]`, `pieces` bytes a vector.

    Raises:
        LatentError: A width that is no multiple of `pieces`, too few vectors, or no faiss.
    """
    count, width = vectors.shape
    if pieces < 1 or width % pieces:
        fitting = [size for size in range(1, width + 1) if width % size == 0]
        raise LatentError(
            f"expected a number of bytes that divides {width} ({', '.join(map(str, fitting))}), got {pieces}; choose one"
        )
    if count < FEWEST:
        raise LatentError(f"expected at least {FEWEST:,} vectors to learn from, got {count:,}; give more text")
    try:
        import faiss
    except ImportError:
        raise LatentError("expected faiss to learn codebooks, found none; run: pip install faiss-cpu") from None
    quantiser = faiss.ProductQuantizer(width, pieces, 8)
    quantiser.cp.seed = seed
    quantiser.train(np.ascontiguousarray(vectors, np.float32))
    words = faiss.vector_to_array(quantiser.centroids).reshape(pieces, CODES, width // pieces)
    return Codebooks(words.astype(np.float16))
