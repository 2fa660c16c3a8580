"""What a codec is, and what all of them need."""

from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from latentwire.errors import CodecError, ValuesError
from latentwire.latent import Payload
from latentwire.registry import Registry

Bytes = bytes | memoryview


class Codec(Protocol):
    """Turns a payload `[M, d]` into bytes and back.

    Attributes:
        number: What names it in a message, 1 to 255; never used for another.
        dtype: What a payload is made of.
    """

    number: ClassVar[int]
    dtype: ClassVar[type[np.generic]]

    @staticmethod
    def size(count: int, width: int) -> int:
        """Bytes of `count` vectors of `width`."""
        ...

    @staticmethod
    def encode(payload: Any) -> bytes:
        """Bytes of `payload`; `LatentError` when it holds values that the codec cannot carry."""
        ...

    @staticmethod
    def check(data: Bytes, width: int) -> None:
        """Raise `ValuesError` where `data` decodes to values that no sender means."""
        ...

    @staticmethod
    def decode(data: Bytes, width: int) -> Payload:
        """Payload `[M, width]`; `CodecError` when `data` is no whole number of vectors."""
        ...


CODECS: Registry[type[Codec]] = Registry("codec")


def refuse(wrong: bool, expected: str, got: str) -> None:
    """Raise `ValuesError` where values are wrong."""
    if wrong:
        raise ValuesError(f"expected {expected} in the payload, got {got}; the sender is at fault, not the way")


def whole(data: Bytes, vector_bytes: int, dtype: npt.DTypeLike, width: int) -> npt.NDArray[Any]:
    """`data` as rows of `width` values; `CodecError` unless it is a whole number of vectors."""
    if width < 1 or len(data) % vector_bytes:
        raise CodecError(
            f"expected a multiple of {vector_bytes} bytes (vectors of width {width}), got {len(data)}; the payload is truncated or of another width"
        )
    return np.frombuffer(data, dtype=dtype).reshape(-1, width)
