"""Answer scores, paired bootstrap intervals, and decoder quality. Imports numpy and torch only."""

import re
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Floats = npt.NDArray[np.float64]


def normalise(answer: str) -> str:
    """Lower case, no punctuation, no articles, single spaces.

    Source: Rajpurkar et al. 2016, SQuAD (arXiv 1606.05250, section 6.1), the official evaluation script's steps.
    """
    bare = "".join(letter for letter in answer.lower() if letter not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", bare).split())


def exact_match(answer: str, gold: Sequence[str]) -> float:
    """1.0 when the answer equals a gold answer after `normalise`, else 0.0."""
    return float(any(normalise(answer) == normalise(one) for one in gold))


def f1(answer: str, gold: Sequence[str]) -> float:
    """Best token F1 over the gold answers, in 0..1. Two empty answers match."""
    return max(_f1(normalise(answer).split(), normalise(one).split()) for one in gold)


def _f1(words: list[str], gold: list[str]) -> float:
    if not words or not gold:
        return float(words == gold)
    common = sum((Counter(words) & Counter(gold)).values())
    return 2 * common / (len(words) + len(gold))


def share_of_gap(f1: float, floor: float, ceilings: Sequence[float]) -> float | None:
    """How far a score comes from the floor to the best of the ceilings; None where that is not above the floor."""
    gap = max(ceilings) - floor
    return (f1 - floor) / gap if gap > 0 else None


@dataclass(frozen=True, slots=True)
class Interval:
    """A value and the 2.5 % and 97.5 % quantiles of its resamples."""

    value: float
    low: float
    high: float


class PairedBootstrap:
    """Resamples of *contexts*, the same for every rung, so that two rungs are always compared on the same draw.

    Args:
        groups: Context identity of each example; the questions of one context stay together.
        resamples: Number of resamples.
        seed: Seed of the draw.

    Source: Efron and Tibshirani 1993, chapter 13; cluster resampling as in Field and Welsh 2007.
    """

    def __init__(self, groups: Sequence[str], resamples: int, seed: int = 0) -> None:
        names, self._where = np.unique(np.array(groups), return_inverse=True)
        draw = np.random.default_rng(seed)
        even = np.full(len(names), 1 / len(names))
        self._draws = draw.multinomial(len(names), even, size=resamples).astype(np.float64)
        self._sizes = self._draws @ np.bincount(self._where).astype(np.float64)

    def mean(self, scores: Floats) -> Interval:
        """Mean of a score per example."""
        return _interval(float(scores.mean()), self._means(scores))

    def difference(self, scores: Floats, other: Floats) -> Interval:
        """Mean paired difference `scores - other`."""
        return self.mean(scores - other)

    def ratio(self, scores: Floats, other: Floats) -> Interval:
        """Ratio of means, both sides from the same resample; resamples whose denominator is zero count as infinite."""
        top, bottom = self._means(scores), self._means(other)
        ratios = np.divide(top, bottom, out=np.full_like(top, np.inf), where=bottom > 0)
        return _interval(float(scores.mean() / other.mean()), ratios)

    def _means(self, scores: Floats) -> Floats:
        sums = np.bincount(self._where, weights=scores)
        means: Floats = (self._draws @ sums) / self._sizes
        return means


def _interval(value: float, resampled: Floats) -> Interval:
    low, high = np.quantile(resampled, [0.025, 0.975])
    return Interval(value, float(low), float(high))


@dataclass(frozen=True, slots=True)
class DecoderQuality:
    """How well a decoder restores token embeddings, as weighted means over tokens.

    Attributes:
        rms_ratio: RMS of restored over RMS of true embeddings; 1 is right.
        cosine: Mean cosine similarity.
        variance_unexplained: Squared error over the true embeddings' variance around their own mean.
        token_recovery: Share whose nearest table row is the token itself.
    """

    rms_ratio: float
    cosine: float
    variance_unexplained: float
    token_recovery: float


def decoder_quality(restored: Tensor, true: Tensor, weights: Tensor, recovered: Tensor) -> DecoderQuality:
    """Quality over tokens: `restored`, `true` `[N, D]`, `weights` `[N]`, `recovered` `[N]` (1 where named right)."""
    share = weights.double() / weights.double().sum()
    restored, true = restored.double(), true.double()
    mean = share @ true
    error = share @ (restored - true).square().sum(dim=1)
    spread = share @ (true - mean).square().sum(dim=1)
    size = share @ restored.square().sum(dim=1), share @ true.square().sum(dim=1)
    cosine = torch.nn.functional.cosine_similarity(restored, true, dim=1)
    return DecoderQuality(
        rms_ratio=float((size[0] / size[1]).sqrt()),
        cosine=float(share @ cosine),
        variance_unexplained=float(error / spread),
        token_recovery=float(share @ recovered.double()),
    )
