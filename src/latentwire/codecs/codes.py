"""A codec of codes: vectors that a product quantiser has looked up in its codebooks (`latentwire.codebooks`), a byte for each piece."""

import numpy as np
import numpy.typing as npt

from latentwire.codecs.base import CODECS, Bytes, whole


@CODECS.register("pq")
class Pq:
    """Codes as they are; the latent space's name says whose codebooks turn them into vectors."""

    number, dtype = 5, np.uint8

    @staticmethod
    def size(count: int, width: int) -> int:
        """`M d`, of `d` pieces."""
        return count * width

    @staticmethod
    def encode(payload: npt.NDArray[np.uint8]) -> bytes:
        """Row by row."""
        return payload.tobytes()

    @staticmethod
    def check(data: Bytes, width: int) -> None:
        """Every byte is a code."""

    @staticmethod
    def decode(data: Bytes, width: int) -> npt.NDArray[np.uint8]:
        """The codes as they were."""
        return whole(data, width, np.uint8, width).copy()
