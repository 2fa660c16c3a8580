"""How a training context's latents stand in its prompt: alone, among those of other contexts, or between stretches of its text.

    whole        [ latents of the context ]
    company      [ latents of another ][ latents of the context ][ latents of another ]
    scaffold     [ text ][ latents ][ text ][ latents ][ latents ]     less and less text as training goes on

A frozen reader that sees nothing but latents that mean nothing yet gives no hint which of them an answer stands in. Between
stretches of text it finds the place as it always does, and what is left to learn is to read a latent.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from latentwire.errors import MethodError
from latentwire.reader import Reader

MOST_TOGETHER = 4  # latents in one prompt
FEWEST_LATENTS = 0.1  # their share, at the least, of a context when training begins
STRETCH = 3.0  # latents' worth in a stretch, on average


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


def scaffold(text: str, count: int, step: Step, steps: int) -> list[tuple[int, int, bool]]:
    """Stretches of `count` latents' places, from and to, and whether latents stand there; text stands elsewhere.

    The share of latents is drawn for each context from a range that shrinks to 1 at step `steps`, as ours goes from words
    to latents stage by stage in Hao et al. 2024, Coconut (arXiv 2412.06769, section 3).
    """
    if step.number >= steps:
        return [(0, count, True)]
    fewest, draw = FEWEST_LATENTS + (1 - FEWEST_LATENTS) * step.number / steps, step.draw(text)
    share, found, start = draw.uniform(fewest, 1), [], 0
    while start < count:
        end = min(count, start + int(draw.geometric(1 / STRETCH)))
        found.append((start, end, bool(draw.random() < share)))
        start = end
    return found


def starts_of(encoder: Reader, text: str, size: int, count: int) -> Sequence[int]:
    """Where each of `count` blocks of `size` encoder tokens begins in the text, and where the last one ends.

    Raises:
        MethodError: The encoder's tokenizer does not tell where its tokens stand.
    """
    try:
        found = encoder.tokenizer(
            text, add_special_tokens=False, verbose=False, split_special_tokens=True, return_offsets_mapping=True
        )
    except NotImplementedError:
        raise MethodError(
            f"method.scaffold: expected a fast tokenizer in encoder '{encoder.name}', got one that does not tell where its"
            " tokens stand; set method.scaffold=0"
        ) from None
    offsets = found["offset_mapping"]
    return [0, *(offsets[place * size][0] for place in range(1, count)), len(text)]
