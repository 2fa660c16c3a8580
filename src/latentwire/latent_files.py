"""Files of latents, read: what `latentwire inspect` and `answer` start from. Needs numpy and xxhash only.

out.lw, messages one after another ─ read_messages ─▶ Message ... ─ latents_of ─▶ what a reader's prompt takes
"""

import mmap
from collections.abc import Iterator, Sequence
from pathlib import Path

from latentwire.errors import DataError
from latentwire.latent import MOST_TOGETHER, Latent
from latentwire.wire_format import Message, unpack_all
from latentwire.wire_header import Limits

IN_FILES = Limits(message_bytes=2**31, messages=2**31)  # a file is mapped, not read: nothing is allocated


def read_messages(path: Path, key: bytes | None = None) -> Iterator[Message]:
    """The messages of a file, which stays mapped as long as any of them is held. Raises as `unpack` does, at the one that is wrong.

    Raises:
        DataError: There is no such file.
    """
    try:
        with path.open("rb") as file:
            if not path.stat().st_size:
                return
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise DataError(f"expected a file of latents at {path}, got: {error}; give another") from None
    yield from unpack_all(memoryview(data), key=key, limits=IN_FILES)


def latents_of(path: Path, names: Sequence[str], key: bytes | None = None) -> list[Latent]:
    """The latents of the documents with these names, in this order; of all if none are named.

    Raises:
        DataError: A name that is not in the file, or more latents than a prompt takes.
    """
    found = {message.name: message for message in read_messages(path, key)}
    if missing := [name for name in names if name not in found]:
        raise DataError(
            f"expected documents of {path}, got {', '.join(missing)}; latentwire inspect lists what is there"
        )
    chosen = list(names) or list(found)
    if not 1 <= len(chosen) <= MOST_TOGETHER:
        raise DataError(
            f"expected 1 to {MOST_TOGETHER} documents for one answer, got {len(chosen)}; name them with --document"
        )
    return [found[name].latent() for name in chosen]
