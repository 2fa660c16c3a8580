"""Whose latents stand beside a training context's own in its prompt.

alone      [ latents of the context ]
company    [ latents of another ][ latents of the context ][ latents of another ]
"""

import zlib
from dataclasses import dataclass

import numpy as np

from latentwire.latent import MOST_TOGETHER


@dataclass(frozen=True, slots=True)
class Step:
    """A training step: the recipe's seed, its number and its distinct contexts. Every draw is a function of these."""

    seed: int = 0
    number: int = 0
    texts: tuple[str, ...] = ()

    def draw(self, text: str) -> np.random.Generator:
        """Random numbers of one context in this step."""
        return np.random.default_rng([self.seed, self.number, zlib.crc32(text.encode())])


def companions(text: str, step: Step, share: float) -> list[str]:
    """The text itself: alone or, in `share` of the draws, among others of the step in random order."""
    others, draw = [other for other in step.texts if other != text], step.draw(text)
    if not others or draw.random() >= share:
        return [text]
    count = int(draw.integers(1, MOST_TOGETHER))
    chosen = [others[place] for place in draw.permutation(len(others))[:count]]
    return [[text, *chosen][place] for place in draw.permutation(len(chosen) + 1)]
