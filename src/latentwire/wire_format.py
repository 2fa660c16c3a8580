"""A latent as bytes that other programs read: header, name, payload, signature. `docs/wire-format.md` is the norm; this is one reader.

Latent ─ pack ─▶ message ─ unpack ─▶ Message (its payload still where it was) ─ latent ─▶ Latent

Needs numpy and xxhash only, allocates nothing for a message that is refused, and never runs anything it reads.
"""

import hashlib
import hmac
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import xxhash

from latentwire.codecs import CODECS, Codec, codec_of
from latentwire.errors import (
    ChecksumError,
    CodecError,
    FormatError,
    LatentError,
    LimitError,
    SignatureError,
    SpaceError,
    TrailingBytesError,
    TruncatedError,
)
from latentwire.latent import Latent

MAGIC = b"LTWR"
VERSION = 1
HEADER = struct.Struct("<4sB3xQBBHIIIQ40s")
CHECKSUM_AT = 8
CHECKED = 16  # bytes before those that the checksum covers: magic, version and the checksum itself
SIGNED = 1  # flag
SIGNATURE = 32  # bytes
SPACE = 40
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


@dataclass(frozen=True, slots=True)
class Message:
    """A message that was read and found whole.

    Attributes:
        codec: Name of the codec.
        space: Fingerprint of the latent space.
        vectors: Number of vectors `M`.
        width: Values in each, `d`.
        source_tokens: Tokens that the latent stands for.
        name: What the sender calls it.
        signed: Whether it carries a signature; it was checked only if a key was given.
        payload: The payload's bytes, a view of what was read.
    """

    codec: str
    space: str
    vectors: int
    width: int
    source_tokens: int
    name: str
    signed: bool
    payload: memoryview

    def latent(self) -> Latent:
        """The latent, decoded."""
        payload = CODECS[self.codec].decode(self.payload, self.width)
        return Latent(payload, self.codec, self.space, self.source_tokens)


@dataclass(frozen=True, slots=True)
class Header:
    """A message's header, its numbers within the limits and in agreement with one another."""

    checksum: int
    signed: bool
    codec: str
    name_bytes: int
    vectors: int
    width: int
    source_tokens: int
    payload_bytes: int
    space: str

    @property
    def payload_start(self) -> int:
        """Where the payload begins."""
        return _aligned(HEADER.size + self.name_bytes)

    @property
    def length(self) -> int:
        """Bytes of the whole message."""
        return _aligned(self.payload_start + self.payload_bytes) + SIGNATURE * self.signed


def pack(latent: Latent, name: str = "", key: bytes | None = None) -> bytes:
    """A latent as a message, signed if there is a key.

    Raises:
        LatentError: No vectors, values that the codec cannot carry, a space or name that does not fit.
    """
    codec = CODECS[latent.codec]
    count, width = latent.payload.shape
    if not latent.payload.size or latent.payload.dtype != codec.dtype:
        raise LatentError(
            f"expected at least one vector of {codec.dtype.__name__} for codec {latent.codec}, got"
            f" {latent.payload.dtype} {[count, width]}"
        )
    payload, called, space = codec.encode(latent.payload), name.encode(), latent.space.encode()
    if not (_is_space(latent.space) and len(space) <= SPACE and len(called) < 2**16):
        raise LatentError(
            f"expected a space of 1 to {SPACE} printable ASCII characters and a name below 65,536 bytes, got"
            f" {latent.space!r} and {len(called):,}"
        )
    flags = SIGNED if key is not None else 0
    fields = (flags, codec.number, len(called), count, width, latent.source_tokens, len(payload), space)
    before = HEADER.size + len(called)
    after = _aligned(before) + len(payload)
    covered = b"".join(
        [
            HEADER.pack(MAGIC, VERSION, 0, *fields)[CHECKED:],
            called,
            bytes(_aligned(before) - before),
            payload,
            bytes(_aligned(after) - after),
        ]
    )
    if key is not None:
        covered += _sign(covered, key)
    return HEADER.pack(MAGIC, VERSION, xxhash.xxh3_64_intdigest(covered), *fields)[:CHECKED] + covered


def unpack(
    data: Bytes,
    space: str | None = None,
    width: int | None = None,
    key: bytes | None = None,
    limits: Limits = Limits(),
) -> Message:
    """Exactly one message.

    Args:
        data: Its bytes; the payload stays a view of them.
        space: The latent space that is expected; any if None.
        width: The width that is expected; any if None.
        key: Checks the signature, which must then be there.
        limits: What is accepted.

    Raises:
        LatentError: One of its kinds in `errors.py`, each for one thing that may be wrong.
    """
    view = memoryview(data).cast("B")
    header = read_header(view, limits)
    if len(view) > header.length:
        raise TrailingBytesError(
            f"expected a message of {header.length} bytes, got {len(view)}; split what follows it off"
        )
    return _read(view, header, space, width, key)


def unpack_all(
    data: Bytes,
    space: str | None = None,
    width: int | None = None,
    key: bytes | None = None,
    limits: Limits = Limits(),
) -> Iterator[Message]:
    """The messages of `data`, one after another. Raises as `unpack` does, at the message that is wrong."""
    view, count = memoryview(data).cast("B"), 0
    while len(view):
        count += 1
        if count > limits.messages:
            raise LimitError(f"expected at most {limits.messages} messages, got more; send them apart")
        header = read_header(view, limits)
        yield _read(view[: header.length], header, space, width, key)
        view = view[header.length :]


def read_header(data: Bytes, limits: Limits = Limits()) -> Header:
    """The header at the start of `data`, checked against the limits: how long the message is, before any of it is kept.

    Raises:
        LatentError: As `unpack`.
    """
    if len(data) < HEADER.size:
        raise TruncatedError(f"expected at least {HEADER.size} bytes, got {len(data)}; the message was cut")
    magic, version, checksum, flags, number, name_bytes, vectors, width, tokens, size, space = HEADER.unpack_from(data)
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
    if not _is_space(called):
        raise FormatError(f"expected a space in printable ASCII, got {called!r}")
    header = Header(checksum, bool(flags), codec, name_bytes, vectors, width, tokens, size, called)
    if header.length > limits.message_bytes:
        raise LimitError(f"expected at most {limits.message_bytes:,} bytes, got {header.length:,}; send less")
    return header


def _read(view: memoryview, header: Header, space: str | None, width: int | None, key: bytes | None) -> Message:
    """The message that a header begins: signature first, then checksum, then whose it is, then its values."""
    if len(view) < header.length:
        raise TruncatedError(f"expected {header.length} bytes, got {len(view)}; the message was cut")
    covered = view[CHECKED:]
    if key is not None:
        if not header.signed:
            raise SignatureError("expected a signed message, got one without a signature; have the sender sign it")
        if not hmac.compare_digest(_sign(covered[:-SIGNATURE], key), bytes(covered[-SIGNATURE:])):
            raise SignatureError("expected the signature of our key, got another; the message or the key is not ours")
    if xxhash.xxh3_64_intdigest(covered) != header.checksum:
        raise ChecksumError("expected the checksum that the header names, got another; send the message again")
    if space is not None and header.space != space:
        raise SpaceError(
            f"expected a latent of space '{space}', got one of space '{header.space}'; encode it with the wire that reads it"
        )
    if width is not None and header.width != width:
        raise SpaceError(
            f"expected vectors of width {width}, got {header.width}; encode it with the wire that reads it"
        )
    payload = view[header.payload_start : header.payload_start + header.payload_bytes]
    CODECS[header.codec].check(payload, header.width)
    try:
        name = str(view[HEADER.size : HEADER.size + header.name_bytes], "utf-8")
    except UnicodeDecodeError:
        raise FormatError("expected a name in UTF-8, got other bytes") from None
    return Message(
        header.codec,
        header.space,
        header.vectors,
        header.width,
        header.source_tokens,
        name,
        header.signed,
        payload,
    )


def _expect_size(codec: type[Codec], name: str, vectors: int, width: int, size: int) -> None:
    if not vectors or not width:
        raise FormatError(f"expected at least one vector of at least one value, got {vectors} of {width}")
    if size != codec.size(vectors, width):
        raise CodecError(
            f"expected {codec.size(vectors, width):,} bytes for {vectors:,} vectors of width {width} as {name}, got {size:,}"
        )


def _sign(covered: Bytes, key: bytes) -> bytes:
    """HMAC-SHA256 over magic, version and all that the checksum covers but the signature."""
    made = hmac.new(key, MAGIC + bytes([VERSION]), hashlib.sha256)
    made.update(covered)
    return made.digest()


def _is_space(text: str) -> bool:
    return bool(text) and text.isascii() and text.isprintable()


def _aligned(size: int) -> int:
    return -(-size // ALIGNED) * ALIGNED
