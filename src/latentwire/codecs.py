"""Codecs: latent payloads to bytes and back. Lossy ones are applied for real wherever a wire is measured.

Everything is little-endian. Needs numpy only. To add one, write a class with `encode` and `decode`, register it, and
give it golden bytes in `tests/test_codecs.py`.
"""

from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from latentwire.errors import LatentError
from latentwire.latent import FloatArray, Latent, Payload
from latentwire.registry import Registry

FP16_MAX = 65504.0


class Codec(Protocol):
    """Turns a payload `[M, d]` into bytes and back."""

    @staticmethod
    def encode(payload: Any) -> bytes:
        """Bytes of `payload`; `LatentError` when it holds values that the codec cannot carry."""
        ...

    @staticmethod
    def decode(data: bytes, width: int) -> Payload:
        """Payload `[M, width]`; `LatentError` when `data` is no whole number of vectors."""
        ...


CODECS: Registry[type[Codec]] = Registry("codec")


def transmit(latent: Latent) -> tuple[Latent, int]:
    """The latent as its receiver gets it, and how many payload bytes crossed the wire."""
    codec = CODECS[latent.codec]
    data = codec.encode(latent.payload)
    return replace(latent, payload=codec.decode(data, latent.payload.shape[1])), len(data)


@CODECS.register("fp32")
class Fp32:
    """IEEE single precision, 4 bytes a value, exact."""

    @staticmethod
    def encode(payload: FloatArray) -> bytes:
        """`M * d * 4` bytes, row by row."""
        return payload.astype("<f4").tobytes()

    @staticmethod
    def decode(data: bytes, width: int) -> FloatArray:
        """The vectors as they were."""
        return _whole(data, 4 * width, "<f4", width).astype(np.float32)


@CODECS.register("fp16")
class Fp16:
    """IEEE half precision, 2 bytes a value; values beyond its range are refused."""

    @staticmethod
    def encode(payload: FloatArray) -> bytes:
        """`M * d * 2` bytes, row by row."""
        largest = float(np.abs(payload).max(initial=0.0))
        if largest > FP16_MAX:
            raise LatentError(f"expected values within {FP16_MAX:g} for codec fp16, got {largest:g}; use int8 or fp32")
        return payload.astype("<f2").tobytes()

    @staticmethod
    def decode(data: bytes, width: int) -> FloatArray:
        """The vectors rounded to fp16."""
        return _whole(data, 2 * width, "<f2", width).astype(np.float32)


@CODECS.register("int8")
class Int8:
    """Symmetric 8-bit integers with one fp16 scale per vector: `M` scales, then `M * d` values: `M * (d + 2)` bytes."""

    @staticmethod
    def encode(payload: FloatArray) -> bytes:
        """Scales are rounded up to fp16, so that no value is clipped."""
        exact = np.abs(payload).max(axis=1, initial=0.0) / 127.0
        if float(exact.max(initial=0.0)) > FP16_MAX:
            raise LatentError(
                f"expected scales within {FP16_MAX:g} for codec int8, got {float(exact.max()):g}; use fp32"
            )
        scales = exact.astype("<f2")
        scales = np.where(scales.astype(np.float32) < exact, np.nextafter(scales, np.float16(np.inf)), scales)
        divisors = np.where(scales > 0, scales.astype(np.float32), np.float32(1.0))
        values: npt.NDArray[np.int8] = np.rint(payload / divisors[:, None]).astype(np.int8)
        head: bytes = scales.astype("<f2").tobytes()
        return head + values.tobytes()

    @staticmethod
    def decode(data: bytes, width: int) -> FloatArray:
        """The vectors, each value within half a scale of what was encoded."""
        count = len(_whole(data, width + 2, np.int8, width + 2))
        scales = np.frombuffer(data, dtype="<f2", count=count).astype(np.float32)
        values = np.frombuffer(data, dtype=np.int8, offset=2 * count).reshape(count, width)
        return values.astype(np.float32) * scales[:, None]


@CODECS.register("ids16")
class Ids16:
    """Token ids of vocabularies up to 65,536 entries, 2 bytes each."""

    @staticmethod
    def encode(payload: npt.NDArray[np.uint32]) -> bytes:
        """`2 M` bytes."""
        if int(payload.max(initial=0)) >= 2**16:
            raise LatentError(f"expected token ids below 65536 for codec ids16, got {int(payload.max())}; use ids32")
        return payload.astype("<u2").tobytes()

    @staticmethod
    def decode(data: bytes, width: int) -> npt.NDArray[np.uint32]:
        """The ids as they were."""
        return _whole(data, 2 * width, "<u2", width).astype(np.uint32)


@CODECS.register("ids32")
class Ids32:
    """Token ids of any vocabulary, 4 bytes each."""

    @staticmethod
    def encode(payload: npt.NDArray[np.uint32]) -> bytes:
        """`4 M` bytes."""
        return payload.astype("<u4").tobytes()

    @staticmethod
    def decode(data: bytes, width: int) -> npt.NDArray[np.uint32]:
        """The ids as they were."""
        return _whole(data, 4 * width, "<u4", width).astype(np.uint32)


@CODECS.register("utf8")
class Utf8:
    """UTF-8 text, its bytes as they are."""

    @staticmethod
    def encode(payload: npt.NDArray[np.uint8]) -> bytes:
        """`M` bytes."""
        return payload.tobytes()

    @staticmethod
    def decode(data: bytes, width: int) -> npt.NDArray[np.uint8]:
        """The bytes as they were."""
        return _whole(data, width, np.uint8, width).copy()


def ids_codec(vocab_size: int) -> str:
    """The shortest token-id codec for a vocabulary."""
    return "ids16" if vocab_size <= 2**16 else "ids32"


def _whole(data: bytes, vector_bytes: int, dtype: npt.DTypeLike, width: int) -> npt.NDArray[Any]:
    """`data` as rows of `width` values; `LatentError` unless it is a whole number of vectors."""
    if width < 1 or len(data) % vector_bytes:
        raise LatentError(
            f"expected a multiple of {vector_bytes} bytes (vectors of width {width}), got {len(data)}; the payload is truncated or of another width"
        )
    return np.frombuffer(data, dtype=dtype).reshape(-1, width)
