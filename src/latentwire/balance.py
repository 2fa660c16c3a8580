"""Weights of several objectives as *shares of the gradient norm* at the trained parameters.

Losses of different scale added 1:1 let the larger one win. Here each objective's gradient is divided by a moving
average of its own norm and multiplied by its weight, so that a weight of 0.3 means three tenths of the movement.

Source: Chen et al. 2018, GradNorm (arXiv 1711.02257, section 3). We normalise directly instead of learning weights.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

Gradient = list[Tensor]


def norm(gradient: Gradient) -> float:
    """Euclidean norm of a gradient over all parameters."""
    return float(torch.nn.utils.get_total_norm(gradient))


@dataclass
class Balance:
    """Combines the objectives' gradients into one.

    Attributes:
        weights: Weight of each objective; in mode "shares" they are normalised to sum to 1.
        mode: "shares" of the gradient norm, or "plain" factors of the losses.
        decay: Decay of the moving average of gradient norms, bias-corrected. Its memory is short, about three steps,
            because norms fall while training: at 0.9 the average lagged and shares were 14 % off.
        averages: State: the running sums, saved in checkpoints.
    """

    weights: Mapping[str, float]
    mode: Literal["shares", "plain"] = "shares"
    decay: float = 0.7
    averages: dict[str, float] = field(default_factory=dict)
    updates: int = 0

    def combine(self, gradients: Mapping[str, Gradient]) -> tuple[Gradient, dict[str, float]]:
        """The gradient to descend, and the share of its norm that each objective contributed."""
        norms = {name: norm(gradient) for name, gradient in gradients.items()}
        factors = self._factors(norms)
        parts: Gradient = []
        for columns in zip(*gradients.values(), strict=True):
            scaled = [part * factor for part, factor in zip(columns, factors.values(), strict=True)]
            parts.append(sum(scaled[1:], start=scaled[0]))
        sizes = {name: factors[name] * norms[name] for name in norms}
        total = sum(sizes.values())
        return parts, {name: size / total if total else 0.0 for name, size in sizes.items()}

    def _factors(self, norms: Mapping[str, float]) -> dict[str, float]:
        if self.mode == "plain":
            return {name: self.weights[name] for name in norms}
        self.updates += 1
        for name, value in norms.items():
            self.averages[name] = self.decay * self.averages.get(name, 0.0) + (1 - self.decay) * value
        correction = 1 - self.decay**self.updates
        whole = sum(self.weights.values())
        return {
            name: self.weights[name] / whole * correction / self.averages[name] if self.averages[name] else 0.0
            for name in norms
        }
