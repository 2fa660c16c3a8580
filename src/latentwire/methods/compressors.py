"""Linear compressors of token embeddings: an orthonormal basis `[D, d]` around a mean `[D]`.

Input embeddings come from a finite table, so the covariance over a corpus is the count-weighted covariance of the
table's rows: exact, one pass over the vocabulary, and no memory that grows with the corpus.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from latentwire.errors import MethodError
from latentwire.methods import Counts, Weights
from latentwire.reader import Reader
from latentwire.registry import Registry

BLOCKS = 4  # a covariance is symmetric: of 4 x 4 blocks, 10 are made
ROWS = 512  # as many rows at a time as stay in a processor's cache


@dataclass(frozen=True, slots=True, eq=False)
class Basis:
    """An affine subspace of the embedding space.

    Attributes:
        mean: `[D]` float32.
        components: `[D, d]` float32, orthonormal columns.
        variances: `[d]` float32, variance of the corpus along each column.
        total_variance: Variance of the corpus in all `D` directions.
    """

    mean: Tensor
    components: Tensor
    variances: Tensor
    total_variance: float


class Compressor:
    """Fits a basis of `width` columns to a corpus given as token counts."""

    def basis(self, mean: Tensor, covariance: Tensor, width: int, seed: int) -> Basis:
        """The basis, from the corpus' float64 moments."""
        raise NotImplementedError


COMPRESSORS: Registry[type[Compressor]] = Registry("compressor")


@COMPRESSORS.register("pca")
class PCA(Compressor):
    """The `width` directions of largest variance.

    Source: Pearson 1901; Jolliffe, Principal Component Analysis, 2002, section 3.1. We differ only in that the
    covariance is accumulated from token counts instead of samples.
    """

    def basis(self, mean: Tensor, covariance: Tensor, width: int, seed: int) -> Basis:
        """Leading eigenvectors, the sign fixed so that each column's largest entry is positive."""
        variances, directions = symmetric_eigen(covariance)
        variances, directions = variances.flip(0)[:width].clamp(min=0), directions.flip(1)[:, :width]
        largest = directions.gather(0, directions.abs().argmax(dim=0, keepdim=True))
        return _basis(mean, directions * largest.sign(), covariance)


@COMPRESSORS.register("random")
class RandomProjection(Compressor):
    """`width` random orthonormal directions: the control that shows what PCA's choice of directions is worth.

    Source: Johnson and Lindenstrauss 1984; orthonormalised by QR, so that the transpose is the pseudo-inverse.
    """

    def basis(self, mean: Tensor, covariance: Tensor, width: int, seed: int) -> Basis:
        """Orthonormal columns drawn from `seed`."""
        noise = torch.randn(len(mean), width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        return _basis(mean, torch.linalg.qr(noise).Q, covariance)


def moments(reader: Reader, counts: Counts | Weights) -> tuple[Tensor, Tensor]:
    """Mean `[D]` and covariance `[D, D]`, float64, of a corpus whose token `v` occurs `counts[v]` times, or weighs so much.

    Raises:
        MethodError: `counts` does not fit the vocabulary, or is empty.
    """
    if counts.shape != (reader.vocab_size,) or counts.sum() <= 0:
        raise MethodError(
            f"expected token counts of shape [{reader.vocab_size}] with a positive sum, got {list(counts.shape)} with sum"
            f" {counts.sum():g}; count the corpus with the reader's own tokenizer"
        )
    used = torch.from_numpy(np.flatnonzero(counts))
    weights = torch.from_numpy(counts).double() / float(counts.sum())
    block = -(-reader.width // BLOCKS)
    mean = torch.zeros(reader.width, dtype=torch.float64)
    second = torch.zeros(reader.width, reader.width, dtype=torch.float64)
    for rows, embeds in reader.table(used):
        for part, share in zip(embeds.cpu().split(ROWS), weights[rows].split(ROWS), strict=True):
            exact = part.double()
            mean += share @ exact
            exact *= share.sqrt()[:, None]
            for start in range(0, reader.width, block):
                second[start : start + block, start:].addmm_(exact[:, start : start + block].T, exact[:, start:])
    return mean, second.triu() + second.triu(1).T - torch.outer(mean, mean)


def fit_basis(name: str, reader: Reader, counts: Counts, width: int, seed: int) -> Basis:
    """The basis of compressor `name` for a corpus.

    Raises:
        MethodError: `width` is not smaller than `D`, or the corpus has fewer distinct tokens than `width`.
    """
    distinct = int((counts > 0).sum())
    if not 1 <= width < reader.width:
        raise MethodError(
            f"expected a code narrower than the embedding, 1 <= d < D = {reader.width}, got d = {width}; raise"
            " method.compression"
        )
    if distinct <= width:
        raise MethodError(
            f"expected more distinct tokens in the corpus than d = {width}, got {distinct}; add data or raise"
            " method.compression"
        )
    return COMPRESSORS[name]().basis(*moments(reader, counts), width, seed)


def symmetric_eigen(covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Ascending eigenvalues and eigenvectors `[D, D]`, by one thread: on busy cores, threads that wait for each other took 8 s, not 0.03 s."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        variances, directions = torch.linalg.eigh(covariance)
    finally:
        torch.set_num_threads(threads)
    return variances, directions


def _basis(mean: Tensor, components: Tensor, covariance: Tensor) -> Basis:
    variances = ((covariance @ components) * components).sum(dim=0).clamp(min=0)
    return Basis(mean.float(), components.float(), variances.float(), float(covariance.trace()))
