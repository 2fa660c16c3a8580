"""`Latent`: what crosses the wire in place of a context. Needs numpy only, so that any client can hold one."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from latentwire.errors import LatentError, SpaceError

FloatArray = npt.NDArray[np.float32]
Payload = npt.NDArray[np.float32] | npt.NDArray[np.uint32] | npt.NDArray[np.uint8]
MOST_TOGETHER = 4  # latents in one prompt; no wire has learnt more


@dataclass(frozen=True, slots=True, eq=False)
class Latent:
    """A compressed context and its identity.

    Attributes:
        payload: `[M, d_latent]`: float32 vectors, finite; or uint32 token ids, or uint8 text bytes, one a row.
        codec: Name of the codec that turns the payload into bytes.
        space: Fingerprint of the latent space; a receiver refuses a latent of another space.
        source_tokens: Number of tokens `S` that the latent stands for.
    """

    payload: Payload
    codec: str
    space: str
    source_tokens: int

    def __post_init__(self) -> None:
        if self.payload.ndim != 2 or self.payload.dtype not in (np.float32, np.uint32, np.uint8):
            raise LatentError(
                "expected a payload [M, d_latent] of float32, uint32 or uint8, got"
                f" {self.payload.dtype} {list(self.payload.shape)}; reshape or cast it first"
            )
        if not np.isfinite(self.payload).all():
            raise LatentError("expected a finite payload, got NaN or infinity; check the encoder's weights")


def expect_space(latents: list[Latent], space: str, width: int | None = None) -> None:
    """Raise `SpaceError` unless every latent belongs to `space` and has vectors of `width`, if that is known."""
    for latent in latents:
        if latent.space != space:
            raise SpaceError(
                f"expected a latent of space '{space}', got one of space '{latent.space}'; encode it with the method"
                " that reads it"
            )
        if width is not None and latent.payload.shape[1] != width:
            raise SpaceError(
                f"expected vectors of width {width} in space '{space}', got {latent.payload.shape[1]}; whoever made the latent is"
                " at fault"
            )
