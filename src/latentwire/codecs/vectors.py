"""Codecs of vectors: single and half precision, integers of 8 and 4 bits with scales."""

import numpy as np
import numpy.typing as npt

from latentwire.codecs.base import CODECS, Bytes, refuse, whole
from latentwire.errors import LatentError
from latentwire.latent import FloatArray

FP16_MAX = 65504.0
SIGNED, UNSIGNED = np.dtype("<i2"), np.dtype("<u2")
GROUP = 32  # values of a vector that share a scale in int4
CLIPPED = (1.0, 0.9, 0.8, 0.7)  # shares of a group's largest value among which int4 looks for the scale that errs least


@CODECS.register("fp32")
class Fp32:
    """IEEE single precision, 4 bytes a value, exact."""

    number, dtype = 1, np.float32

    @staticmethod
    def size(count: int, width: int) -> int:
        """`M * d * 4`."""
        return 4 * count * width

    @staticmethod
    def encode(payload: FloatArray) -> bytes:
        """Row by row."""
        return payload.astype("<f4").tobytes()

    @staticmethod
    def check(data: Bytes, width: int) -> None:
        """All values are finite."""
        refuse(not np.isfinite(np.frombuffer(data, "<f4")).all(), "finite values", "NaN or infinity")

    @staticmethod
    def decode(data: Bytes, width: int) -> FloatArray:
        """The vectors as they were."""
        return whole(data, 4 * width, "<f4", width).astype(np.float32)


@CODECS.register("fp16")
class Fp16:
    """IEEE half precision, 2 bytes a value; values beyond its range are refused."""

    number, dtype = 2, np.float32

    @staticmethod
    def size(count: int, width: int) -> int:
        """`M * d * 2`."""
        return 2 * count * width

    @staticmethod
    def encode(payload: FloatArray) -> bytes:
        """Row by row."""
        largest = float(np.abs(payload).max(initial=0.0))
        if largest > FP16_MAX:
            raise LatentError(f"expected values within {FP16_MAX:g} for codec fp16, got {largest:g}; use int8 or fp32")
        return payload.astype("<f2").tobytes()

    @staticmethod
    def check(data: Bytes, width: int) -> None:
        """All values are finite."""
        refuse(not _finite_halves(data), "finite values", "NaN or infinity")

    @staticmethod
    def decode(data: Bytes, width: int) -> FloatArray:
        """The vectors rounded to fp16."""
        return whole(data, 2 * width, "<f2", width).astype(np.float32)


@CODECS.register("int8")
class Int8:
    """Symmetric 8-bit integers with one fp16 scale per vector: `M` scales, then `M * d` values."""

    number, dtype = 3, np.float32

    @staticmethod
    def size(count: int, width: int) -> int:
        """`M * (d + 2)`."""
        return count * (width + 2)

    @staticmethod
    def encode(payload: FloatArray) -> bytes:
        """Scales are rounded up to fp16, so that no value is clipped."""
        scales = _halves_above(np.abs(payload).max(axis=1, initial=0.0) / 127.0, "int8")
        divisors = np.where(scales > 0, scales.astype(np.float32), np.float32(1.0))
        values: npt.NDArray[np.int8] = np.rint(payload / divisors[:, None]).astype(np.int8)
        head: bytes = scales.astype("<f2").tobytes()
        return head + values.tobytes()

    @staticmethod
    def check(data: Bytes, width: int) -> None:
        """All scales are finite and not below zero."""
        _expect_scales(data[: 2 * (len(data) // (width + 2))])

    @staticmethod
    def decode(data: Bytes, width: int) -> FloatArray:
        """The vectors, each value within half a scale of what was encoded."""
        count = len(whole(data, width + 2, np.int8, width + 2))
        scales = np.frombuffer(data, dtype="<f2", count=count).astype(np.float32)
        values = np.frombuffer(data, dtype=np.int8, offset=2 * count).reshape(count, width)
        return values.astype(np.float32) * scales[:, None]


@CODECS.register("int4")
class Int4:
    """4-bit integers from -7 to 7 with one fp16 scale for every 32 values of a vector: `M * ceil(d / 32)` scales, then for each vector
    `ceil(d / 2)` bytes, the earlier value in the low half of its byte, 8 more than it is."""

    number, dtype = 4, np.float32

    @staticmethod
    def size(count: int, width: int) -> int:
        """`M * (2 * ceil(d / 32) + ceil(d / 2))`."""
        return count * (2 * -(-width // GROUP) + -(-width // 2))

    @staticmethod
    def encode(payload: FloatArray) -> bytes:
        """Of a few scales for each group the one with the smallest squared error."""
        count, width = payload.shape
        groups = -(-width // GROUP)
        padded = np.zeros((count, groups * GROUP), np.float32)
        padded[:, :width] = payload
        parts = padded.reshape(count, groups, GROUP)
        largest = np.abs(parts).max(axis=2, initial=0.0) / 7.0
        best = np.full((count, groups), np.inf, np.float32)
        chosen, values = np.zeros((count, groups), np.float16), np.zeros(parts.shape, np.int8)
        for share in CLIPPED:
            scales = _halves_above(share * largest, "int4")
            exact = scales.astype(np.float32)[..., None]
            tried = np.rint(parts / np.where(exact > 0, exact, np.float32(1.0))).clip(-7, 7)
            errors = np.square(tried * exact - parts).sum(axis=2)
            better = errors < best
            best, chosen = np.where(better, errors, best), np.where(better, scales, chosen)
            values = np.where(better[..., None], tried, values).astype(np.int8)
        nibbles = np.full((count, width + width % 2), 8, np.uint8)
        nibbles[:, :width] = (values.reshape(count, -1)[:, :width] + 8).astype(np.uint8)
        packed: npt.NDArray[np.uint8] = nibbles[:, ::2] | (nibbles[:, 1::2] << 4)
        head: bytes = chosen.astype("<f2").tobytes()
        return head + packed.tobytes()

    @staticmethod
    def check(data: Bytes, width: int) -> None:
        """All scales are finite and not below zero."""
        _expect_scales(data[: len(data) // Int4.size(1, width) * -(-width // GROUP) * 2])

    @staticmethod
    def decode(data: Bytes, width: int) -> FloatArray:
        """The vectors, each value within half a scale of what was encoded, but for the largest of a group."""
        count = len(whole(data, Int4.size(1, width), np.uint8, Int4.size(1, width)))
        groups = -(-width // GROUP)
        scales = np.frombuffer(data, "<f2", count * groups).astype(np.float32).reshape(count, groups)
        packed = np.frombuffer(data, np.uint8, offset=2 * count * groups).reshape(count, -1)
        values = np.empty((count, 2 * packed.shape[1]), np.float32)
        values[:, ::2], values[:, 1::2] = packed & 15, packed >> 4
        decoded: FloatArray = (values[:, :width] - 8) * np.repeat(scales, GROUP, axis=1)[:, :width]
        return decoded


def _halves_above(exact: FloatArray, name: str) -> npt.NDArray[np.float16]:
    """Scales as fp16, rounded up."""
    if float(exact.max(initial=0.0)) > FP16_MAX:
        raise LatentError(f"expected scales within {FP16_MAX:g} for codec {name}, got {float(exact.max()):g}; use fp32")
    scales = exact.astype("<f2")
    return np.where(scales.astype(np.float32) < exact, np.nextafter(scales, np.float16(np.inf)), scales)


def _finite_halves(data: Bytes) -> bool:
    """Whether all of these fp16 values are finite: the others are the largest of either sign, seen as integers. Two passes without a
    copy."""
    if not len(data):
        return True
    bits = np.frombuffer(data, SIGNED)
    return bool(np.maximum.reduce(bits) < 0x7C00 and np.maximum.reduce(bits.view(UNSIGNED)) < 0xFC00)


def _expect_scales(data: Bytes) -> None:
    """Raise `ValuesError` unless these fp16 scales are finite and have no sign."""
    bits = np.frombuffer(data, "<u2")
    refuse(bool(bits.max(initial=0) >= 0x7C00), "scales that are finite and not below zero", "others")
