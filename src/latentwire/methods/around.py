"""`Around`: what methods share that change another method's latents on the way and leave the rest to it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn

from latentwire.latent import Latent
from latentwire.methods import METHODS, Counts, Method, Weights
from latentwire.reader import Prefix, Reader
from latentwire.specs import Spec, build


@dataclass
class Around(Method):
    """Another method; subclasses override `encode`.

    Attributes:
        of: The other method, as `{name: ..., fields}`.
    """

    of: Spec = field(default_factory=lambda: {"name": "pooled"})

    def __post_init__(self) -> None:
        self._inner = build(METHODS, self.of)

    def prepare(self, reader: Reader, counts: Counts, weights: Weights | None = None) -> None:
        """Prepare the other method."""
        self._inner.prepare(reader, counts, weights)

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
