"""The header of a message: its fields, its limits, and what is refused before a byte of the rest is looked at."""

import struct
from dataclasses import dataclass
from typing import NamedTuple, NoReturn

from latentwire.codecs import CODECS, NUMBERED, Codec
from latentwire.errors import CodecError, FormatError, LimitError, TruncatedError

MAGIC = b"LTWR"
VERSION = 1
HEADER = struct.Struct("<4sB3sQBBHIIIQ40s16s")
RESERVED = bytes(3)
CHECKED = 16  # bytes before those that the checksum covers: magic, version and the checksum itself
SIGNED = 1  # flag
SIGNATURE = 32  # bytes
SPACE = 40
DIGEST = 16
ALIGNED = 16

Bytes = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class Limits:
    """The most that a receiver accepts.

    Attributes:
        message_bytes: Of one message, header and all.
        messages: Of one input.
        vectors: Of one latent.
        width: Of a vector.
        name_bytes: Of a name.
    """

    message_bytes: int = 16 * 2**20
    messages: int = 64
    vectors: int = 65_536
    width: int = 16_384
    name_bytes: int = 1024


DEFAULT = Limits()


class Header(NamedTuple):
    """A message's header, its numbers within the limits and in agreement with one another.

    Attributes:
        checksum: XXH3-64 of what follows it.
        signed: Whether the message carries a signature.
        codec: Name of the codec.
        vectors: Number of vectors `M`.
        width: Values in each, `d`.
        source_tokens: Tokens that the latent stands for.
        space: Fingerprint of the latent space.
        source: Digest of the text that the latent stands for; zeros where the sender did not say.
        name_end: Where the name ends, which begins behind the header.
        start: Where the payload begins.
        end: Where it ends.
        length: Bytes of the whole message.
    """

    checksum: int
    signed: bool
    codec: str
    vectors: int
    width: int
    source_tokens: int
    space: str
    source: bytes
    name_end: int
    start: int
    end: int
    length: int


def read_header(data: Bytes, limits: Limits = DEFAULT) -> Header:
    """The header at the start of `data`, checked against the limits: how long the message is, before any of it is kept.

    Raises:
        LatentError: As `unpack`.
    """
    if len(data) < HEADER.size:
        raise TruncatedError(f"expected at least {HEADER.size} bytes, got {len(data)}; the message was cut")
    magic, version, reserved, checksum, flags, number, name_bytes, vectors, width, tokens, size, space, source = (
        HEADER.unpack_from(data)
    )
    if magic != MAGIC:
        raise FormatError(f"expected a message that begins with {MAGIC!r}, got {magic!r}; this is no latent")
    if version != VERSION:
        raise FormatError(f"expected version {VERSION}, got {version}; update the reader, or have it sent as {VERSION}")
    if flags > SIGNED or reserved != RESERVED:
        raise FormatError("expected reserved bits that are zero, got others; update the reader")
    codec = NUMBERED.get(number)
    if codec is None:
        raise CodecError(f"expected a codec that is known, got number {number}; update the reader")
    if vectors > limits.vectors:
        _refuse("vectors", vectors, limits.vectors)
    if width > limits.width:
        _refuse("values a vector", width, limits.width)
    if name_bytes > limits.name_bytes:
        _refuse("bytes of a name", name_bytes, limits.name_bytes)
    if size > limits.message_bytes:
        _refuse("bytes", size, limits.message_bytes)
    _expect_size(CODECS[codec], codec, vectors, width, size)
    called = space.rstrip(b"\0").decode("latin-1")
    if not is_space(called):
        raise FormatError(f"expected a space in printable ASCII, got {called!r}")
    name_end = HEADER.size + name_bytes
    start = aligned(name_end)
    end = start + size
    length = aligned(end) + SIGNATURE * flags
    if length > limits.message_bytes:
        _refuse("bytes", length, limits.message_bytes)
    signed = flags == SIGNED
    return Header(checksum, signed, codec, vectors, width, tokens, called, source, name_end, start, end, length)


def _refuse(what: str, got: int, most: int) -> NoReturn:
    raise LimitError(f"expected at most {most:,} {what}, got {got:,}; send less, or raise the receiver's limit")


def _expect_size(codec: type[Codec], name: str, vectors: int, width: int, size: int) -> None:
    if not vectors or not width:
        raise FormatError(f"expected at least one vector of at least one value, got {vectors} of {width}")
    due = codec.size(vectors, width)
    if size != due:
        raise CodecError(f"expected {due:,} bytes for {vectors:,} vectors of width {width} as {name}, got {size:,}")


def is_space(text: str) -> bool:
    """Whether a text may name a latent space, but for its length."""
    return bool(text) and text.isascii() and text.isprintable()


def aligned(size: int) -> int:
    """The next multiple of 16."""
    return size + -size % ALIGNED
