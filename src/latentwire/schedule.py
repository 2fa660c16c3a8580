"""How long a training runs and how fast it learns."""

import math

from latentwire.config import ObjectiveSpec, TrainSpec
from latentwire.corpus import Corpus
from latentwire.objectives import OBJECTIVES


def planned_steps(corpus: Corpus, objective: ObjectiveSpec, spec: TrainSpec) -> int:
    """Steps of a training on `corpus`."""
    return count_steps(corpus.num_tokens, len(corpus.examples), objective, spec)


def count_steps(num_tokens: int, num_examples: int, objective: ObjectiveSpec, spec: TrainSpec) -> int:
    """`steps`, or `epochs` over examples where an objective needs them, else over tokens."""
    if spec.steps is not None:
        return spec.steps
    by_tokens = all(OBJECTIVES[name].needs == "tokens" for name in objective.weights)
    epoch = -(-num_tokens // spec.batch_tokens) if by_tokens else -(-num_examples // spec.batch_examples)
    return max(1, round(spec.epochs * epoch))


def learning_rate(done: float, spec: TrainSpec) -> float:
    """Linear warm-up, then cosine to zero, as a function of the share of training that is done."""
    if done < spec.warmup:
        return spec.lr * max(done / spec.warmup, 1e-2)
    return spec.lr * 0.5 * (1 + math.cos(math.pi * (done - spec.warmup) / (1 - spec.warmup)))
