"""A trained method whose latents are the wrong ones: whoever still scores has not read them.

shuffled   each question gets the latents of another context
zero       each question gets latents of zeros, as many as its own
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from latentwire.errors import MethodError
from latentwire.latent import Latent
from latentwire.methods import METHODS
from latentwire.methods.around import Around
from latentwire.reader import Reader, Slot


@METHODS.register("control")
@dataclass
class Control(Around):
    """Another method, its latents exchanged or emptied on the way.

    Attributes:
        of: The other method, as `{name: ..., fields}`.
        kind: "shuffled" or "zero".
    """

    kind: Literal["shuffled", "zero"] = "shuffled"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._earlier: list[Slot] = []

    def encode(self, slots: Sequence[Slot], reader: Reader) -> list[Latent]:
        """Latents of other contexts among `slots` and those encoded before, or zeros.

        Raises:
            MethodError: All slots so far have one context, so that there is no other.
        """
        latents = self._inner.encode([self._other(slot, slots) for slot in slots], reader)
        if self.kind == "zero":
            latents = [replace(latent, payload=np.zeros_like(latent.payload)) for latent in latents]
        self._earlier = [*slots, *self._earlier][: max(len(slots), len(self._earlier))]
        sizes = [len(slot.ids) for slot in slots]
        return [replace(latent, source_tokens=size) for latent, size in zip(latents, sizes, strict=True)]

    def _other(self, slot: Slot, slots: Sequence[Slot]) -> Slot:
        """The slot itself where latents become zeros, else the next one in the round that has another context."""
        if self.kind == "zero":
            return slot
        place = next(number for number, one in enumerate(slots) if one is slot)
        for one in [*slots[place + 1 :], *slots[:place], *self._earlier]:
            if one.context != slot.context:
                return one
        raise MethodError("control: expected slots of two contexts at least, got one context only; raise eval.batch")
