"""A context's latent among others': a reader must find which of several latents holds the answer.

[ latent of another context ][ latent of the context ][ latent of another context ] ...
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from latentwire.errors import MethodError
from latentwire.latent import Latent
from latentwire.methods import METHODS
from latentwire.methods.around import Around
from latentwire.reader import Reader, Slot


@METHODS.register("among")
@dataclass
class Among(Around):
    """Another method's latents of `count` contexts in one prompt, in random order; the others come from the same batch, or those before it.

    Attributes:
        of: The other method, as `{name: ..., fields}`; one whose latents may follow one another.
        count: Contexts in a prompt.
    """

    count: int = 4

    def __post_init__(self) -> None:
        if self.count < 2:
            raise MethodError(f"among: expected at least 2 in count, got {self.count}; change the field")
        super().__post_init__()
        self._earlier: dict[str, Slot] = {}

    def encode(self, slots: Sequence[Slot], reader: Reader) -> list[Latent]:
        """Latents `[M_1 + ... + M_count, d]`, one of which stands for the slot.

        Raises:
            MethodError: This batch and those before it hold fewer than `count` contexts.
        """
        contexts = {slot.context: slot for slot in slots}
        contexts |= {name: slot for name, slot in self._earlier.items() if name not in contexts}
        if len(contexts) < self.count:
            raise MethodError(
                f"among: expected at least {self.count} contexts in a batch, got {len(contexts)}; raise eval.batch"
            )
        contexts = dict(list(contexts.items())[: max(self.count, len({slot.context for slot in slots}))])
        self._earlier = contexts
        found = dict(zip(contexts, self._inner.encode(list(contexts.values()), reader), strict=True))
        return [self._joined(slot, found) for slot in slots]

    def _joined(self, slot: Slot, found: Mapping[str, Latent]) -> Latent:
        """The slot's latent and those that follow it in the batch, in an order drawn by its tokens."""
        names = list(found)
        start = names.index(slot.context)
        chosen = [found[names[(start + step) % len(names)]] for step in range(self.count)]
        order = np.random.default_rng([0, *slot.ids]).permutation(self.count)
        payload = np.concatenate([chosen[place].payload for place in order])
        return replace(chosen[0], payload=payload, source_tokens=len(slot.ids))
