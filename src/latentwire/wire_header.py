"""The header of a message: its fields, its limits, and what is refused before a byte of the rest is looked at."""

import struct
from dataclasses import dataclass

from latentwire.codecs import CODECS, Codec, codec_of
from latentwire.errors import CodecError, FormatError, LimitError, TruncatedError

MAGIC = b"LTWR"
VERSION = 1
HEADER = struct.Struct("<4sB3xQBBHIIIQ40s16s")
CHECKSUM_AT = 8
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


@dataclass(frozen=True, slots=True)
class Header:
    """A message's header, its numbers within the limits and in agreement with one another.

    Attributes:
        checksum: XXH3-64 of what follows it.
        signed: Whether the message carries a signature.
        codec: Name of the codec.
        name_bytes: Length of the name.
        vectors: Number of vectors `M`.
        width: Values in each, `d`.
        source_tokens: Tokens that the latent stands for.
        payload_bytes: Length of the payload.
        space: Fingerprint of the latent space.
        source: Digest of the text that the latent stands for; zeros where the sender did not say.
    """

    checksum: int
    signed: bool
    codec: str
    name_bytes: int
    vectors: int
    width: int
    source_tokens: int
    payload_bytes: int
    space: str
    source: bytes

    @property
    def payload_start(self) -> int:
        """Where the payload begins."""
        return aligned(HEADER.size + self.name_bytes)

    @property
    def length(self) -> int:
        """Bytes of the whole message."""
        return aligned(self.payload_start + self.payload_bytes) + SIGNATURE * self.signed


def read_header(data: Bytes, limits: Limits = DEFAULT) -> Header:
    """The header at the start of `data`, checked against the limits: how long the message is, before any of it is kept.

    Raises:
        LatentError: As `unpack`.
    """
    if len(data) < HEADER.size:
        raise TruncatedError(f"expected at least {HEADER.size} bytes, got {len(data)}; the message was cut")
    magic, version, checksum, flags, number, name_bytes, vectors, width, tokens, size, space, source = (
        HEADER.unpack_from(data)
    )
    if magic != MAGIC:
        raise FormatError(f"expected a message that begins with {MAGIC!r}, got {magic!r}; this is no latent")
    if version != VERSION:
        raise FormatError(f"expected version {VERSION}, got {version}; update the reader, or have it sent as {VERSION}")
    if flags > SIGNED or any(data[5:CHECKSUM_AT]):
        raise FormatError("expected reserved bits that are zero, got others; update the reader")
    codec = codec_of(number)
    if codec is None:
        raise CodecError(f"expected a codec that is known, got number {number}; update the reader")
    for what, got, most in (
        ("vectors", vectors, limits.vectors),
        ("values a vector", width, limits.width),
        ("bytes of a name", name_bytes, limits.name_bytes),
        ("bytes", size, limits.message_bytes),
    ):
        if got > most:
            raise LimitError(f"expected at most {most:,} {what}, got {got:,}; send less, or raise the receiver's limit")
    _expect_size(CODECS[codec], codec, vectors, width, size)
    called = space.rstrip(b"\0").decode("latin-1")
    if not is_space(called):
        raise FormatError(f"expected a space in printable ASCII, got {called!r}")
    header = Header(checksum, bool(flags), codec, name_bytes, vectors, width, tokens, size, called, source)
    if header.length > limits.message_bytes:
        raise LimitError(f"expected at most {limits.message_bytes:,} bytes, got {header.length:,}; send less")
    return header


def _expect_size(codec: type[Codec], name: str, vectors: int, width: int, size: int) -> None:
    if not vectors or not width:
        raise FormatError(f"expected at least one vector of at least one value, got {vectors} of {width}")
    if size != codec.size(vectors, width):
        raise CodecError(
            f"expected {codec.size(vectors, width):,} bytes for {vectors:,} vectors of width {width} as {name}, got {size:,}"
        )


def is_space(text: str) -> bool:
    """Whether a text may name a latent space, but for its length."""
    return bool(text) and text.isascii() and text.isprintable()


def aligned(size: int) -> int:
    """The next multiple of 16."""
    return -(-size // ALIGNED) * ALIGNED
