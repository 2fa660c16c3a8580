"""A trained method whose latents are the wrong ones: whoever still scores has not read them.

shuffled   each question gets the latents of another context
zero       each question gets latents of zeros, as many as its own
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from torch import Tensor, nn

from latentwire.errors import MethodError
from latentwire.latent import Latent
from latentwire.methods import METHODS, Counts, Method, Weights
from latentwire.reader import Prefix, Reader, Slot
from latentwire.specs import Spec, build


@METHODS.register("control")
@dataclass
class Control(Method):
    """Another method, its latents exchanged or emptied on the way.

    Attributes:
        of: The other method, as `{name: ..., fields}`.
        kind: "shuffled" or "zero".
    """

    of: Spec = field(default_factory=lambda: {"name": "pooled"})
    kind: Literal["shuffled", "zero"] = "shuffled"

    def __post_init__(self) -> None:
        self._inner = build(METHODS, self.of)
        self._earlier: list[Slot] = []

    def prepare(self, reader: Reader, counts: Counts, weights: Weights | None = None) -> None:
        """Prepare the other method."""
        self._inner.prepare(reader, counts, weights)

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

    def prefix(self, latents: Sequence[Latent], reader: Reader) -> Prefix:
        """What the other method makes of them."""
        return self._inner.prefix(latents, reader)

    def module(self) -> nn.Module:
        """What the other method trained."""
        return self._inner.module()

    def tensors(self) -> dict[str, Tensor]:
        """Those of the other method."""
        return self._inner.tensors()

    def load(self, tensors: Mapping[str, Tensor], reader: Reader) -> None:
        """Restore the other method."""
        self._inner.load(tensors, reader)

    def _other(self, slot: Slot, slots: Sequence[Slot]) -> Slot:
        """The slot itself where latents become zeros, else the next one in the round that has another context."""
        if self.kind == "zero":
            return slot
        place = next(number for number, one in enumerate(slots) if one is slot)
        for one in [*slots[place + 1 :], *slots[:place], *self._earlier]:
            if one.context != slot.context:
                return one
        raise MethodError("control: expected slots of two contexts at least, got one context only; raise eval.batch")
