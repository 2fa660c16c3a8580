"""A latent as bytes that other programs read: header, name, payload, signature. `docs/wire-format.md` is the norm; this is one reader.

Latent ─ pack ─▶ message ─ unpack ─▶ Message (its payload still where it was) ─ latent ─▶ Latent

Needs numpy and xxhash only, allocates nothing for a message that is refused, and never runs anything it reads.
"""

import hashlib
import hmac
from collections.abc import Iterator
from typing import NamedTuple

import xxhash

from latentwire.codecs import CODECS
from latentwire.errors import (
    ChecksumError,
    FormatError,
    LatentError,
    LimitError,
    SignatureError,
    SpaceError,
    TrailingBytesError,
    TruncatedError,
)
from latentwire.latent import Latent
from latentwire.wire_header import (
    CHECKED,
    DEFAULT,
    DIGEST,
    HEADER,
    MAGIC,
    RESERVED,
    SIGNATURE,
    SIGNED,
    SPACE,
    VERSION,
    Bytes,
    Header,
    Limits,
    aligned,
    is_space,
    read_header,
)


class Message(NamedTuple):
    """A message that was read and found whole.

    Attributes:
        header: What it says of itself. A signature was checked only if a key was given.
        name: What the sender calls it.
        payload: The payload's bytes, a view of what was read.
    """

    header: Header
    name: str
    payload: memoryview

    def latent(self) -> Latent:
        """The latent, decoded."""
        header = self.header
        payload = CODECS[header.codec].decode(self.payload, header.width)
        return Latent(payload, header.codec, header.space, header.source_tokens)


def digest(text: str) -> bytes:
    """The first 16 bytes of SHA-256 of a text: the same text, the same digest."""
    return hashlib.sha256(text.encode()).digest()[:DIGEST]


def pack(latent: Latent, name: str = "", source: bytes = bytes(16), key: bytes | None = None) -> bytes:
    """A latent as a message, with the `digest` of its text if wanted, signed if there is a key.

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
    if not (is_space(latent.space) and len(space) <= SPACE and len(called) < 2**16 and len(source) == DIGEST):
        raise LatentError(
            f"expected a space of 1 to {SPACE} printable ASCII characters, a name below 65,536 bytes and a digest of {DIGEST},"
            f" got {latent.space!r}, {len(called):,} and {len(source)}"
        )
    flags = SIGNED if key is not None else 0
    fields = (flags, codec.number, len(called), count, width, latent.source_tokens, len(payload), space, source)
    before = HEADER.size + len(called)
    after = aligned(before) + len(payload)
    covered = b"".join(
        [
            HEADER.pack(MAGIC, VERSION, RESERVED, 0, *fields)[CHECKED:],
            called,
            bytes(aligned(before) - before),
            payload,
            bytes(aligned(after) - after),
        ]
    )
    if key is not None:
        covered += _sign(covered, key)
    return HEADER.pack(MAGIC, VERSION, RESERVED, xxhash.xxh3_64_intdigest(covered), *fields)[:CHECKED] + covered


def unpack(
    data: Bytes,
    space: str | None = None,
    width: int | None = None,
    key: bytes | None = None,
    limits: Limits = DEFAULT,
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
    limits: Limits = DEFAULT,
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
    payload = view[header.start : header.end]
    CODECS[header.codec].check(payload, header.width)
    try:
        name = str(view[HEADER.size : header.name_end], "utf-8")
    except UnicodeDecodeError:
        raise FormatError("expected a name in UTF-8, got other bytes") from None
    return Message(header, name, payload)


def _sign(covered: Bytes, key: bytes) -> bytes:
    """HMAC-SHA256 over magic, version and all that the checksum covers but the signature."""
    made = hmac.new(key, MAGIC + bytes([VERSION]), hashlib.sha256)
    made.update(covered)
    return made.digest()
