"""Codecs of text: token ids and UTF-8, so that text pays the same bill in the same format."""

import numpy as np
import numpy.typing as npt

from latentwire.codecs.base import CODECS, Bytes, refuse, whole
from latentwire.errors import LatentError, ValuesError


@CODECS.register("ids16")
class Ids16:
    """Token ids of vocabularies up to 65,536 entries, 2 bytes each."""

    number, dtype = 16, np.uint32

    @staticmethod
    def size(count: int, width: int) -> int:
        """`2 M d`."""
        return 2 * count * width

    @staticmethod
    def encode(payload: npt.NDArray[np.uint32]) -> bytes:
        """One after another."""
        if int(payload.max(initial=0)) >= 2**16:
            raise LatentError(f"expected token ids below 65536 for codec ids16, got {int(payload.max())}; use ids32")
        return payload.astype("<u2").tobytes()

    @staticmethod
    def check(data: Bytes, width: int) -> None:
        """An id is one value."""
        refuse(width != 1, "token ids, one in each row", f"rows of {width}")

    @staticmethod
    def decode(data: Bytes, width: int) -> npt.NDArray[np.uint32]:
        """The ids as they were."""
        return whole(data, 2 * width, "<u2", width).astype(np.uint32)


@CODECS.register("ids32")
class Ids32:
    """Token ids of any vocabulary, 4 bytes each."""

    number, dtype = 17, np.uint32

    @staticmethod
    def size(count: int, width: int) -> int:
        """`4 M d`."""
        return 4 * count * width

    @staticmethod
    def encode(payload: npt.NDArray[np.uint32]) -> bytes:
        """One after another."""
        return payload.astype("<u4").tobytes()

    @staticmethod
    def check(data: Bytes, width: int) -> None:
        """An id is one value, and fits a signed integer."""
        refuse(width != 1, "token ids, one in each row", f"rows of {width}")
        largest = int(np.frombuffer(data, "<u4").max(initial=0))
        refuse(largest >= 2**31, f"token ids below {2**31}", str(largest))

    @staticmethod
    def decode(data: Bytes, width: int) -> npt.NDArray[np.uint32]:
        """The ids as they were."""
        return whole(data, 4 * width, "<u4", width).astype(np.uint32)


@CODECS.register("utf8")
class Utf8:
    """UTF-8 text, its bytes as they are, one a row."""

    number, dtype = 18, np.uint8

    @staticmethod
    def size(count: int, width: int) -> int:
        """`M d`."""
        return count * width

    @staticmethod
    def encode(payload: npt.NDArray[np.uint8]) -> bytes:
        """As they are."""
        return payload.tobytes()

    @staticmethod
    def check(data: Bytes, width: int) -> None:
        """The bytes are UTF-8."""
        refuse(width != 1, "text, one byte in each row", f"rows of {width}")
        try:
            str(data, "utf-8")
        except UnicodeDecodeError as error:
            raise ValuesError(f"expected UTF-8 text as payload, got {error.reason} at byte {error.start}") from None

    @staticmethod
    def decode(data: Bytes, width: int) -> npt.NDArray[np.uint8]:
        """The bytes as they were."""
        return whole(data, width, np.uint8, width).copy()


def ids_codec(vocab_size: int) -> str:
    """The shortest token-id codec for a vocabulary."""
    return "ids16" if vocab_size <= 2**16 else "ids32"
