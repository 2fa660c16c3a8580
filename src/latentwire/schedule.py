"""How long a training runs and how fast it learns."""

import math

from latentwire.config import ObjectiveSpec, TrainSpec
from latentwire.corpus import Corpus
from latentwire.objectives import OBJECTIVES


def planned_steps(corpus: Corpus, objective: ObjectiveSpec, spec: TrainSpec) -> int:
    """Steps of a training: `steps`, or `epochs` over examples where an objective needs them, else over tokens."""
    if spec.steps is not None:
        return spec.steps
    kinds = {OBJECTIVES[name].needs for name in objective.weights}
    epoch = corpus.token_steps(spec.batch_tokens) if kinds == {"tokens"} else corpus.example_steps(spec.batch_examples)
    return max(1, round(spec.epochs * epoch))


def learning_rate(done: float, spec: TrainSpec) -> float:
    """Linear warm-up, then cosine to zero, as a function of the share of training that is done."""
    if done < spec.warmup:
        return spec.lr * max(done / spec.warmup, 1e-2)
    return spec.lr * 0.5 * (1 + math.cos(math.pi * (done - spec.warmup) / (1 - spec.warmup)))
