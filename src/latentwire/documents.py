"""Documents to latents in a file: what `latentwire encode` does. `latent_files.py` reads them.

text files ─ encode_documents ─▶ out.lw, messages one after another

A file grows as `out.lw.partial` and takes its name when all is in it. One that was cut off goes on where it stopped.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from latentwire.atomic import unwritable
from latentwire.errors import DataError, LatentError, LatentWireError, WireError
from latentwire.latent import FloatArray, Latent
from latentwire.latent_files import read_messages
from latentwire.reader.gguf import cache_dir
from latentwire.remembered import remembering
from latentwire.wire import DEFAULT_CODEC, Form, Wire
from latentwire.wire_format import digest, pack
from latentwire.wire_header import Header
from latentwire.wired import read_contexts

BATCH = 16  # documents that are encoded, and brought to the disk, at a time


@dataclass(frozen=True, slots=True)
class Failed:
    """A document that could not be encoded, and why."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Encoded:
    """What became of documents.

    Attributes:
        documents: In the file.
        earlier: Of them, those that an earlier call had encoded.
        vectors: Of all of them.
        source_tokens: Of all of them.
        file_bytes: Of the file.
        failed: Those that are not in it.
    """

    documents: int
    earlier: int
    vectors: int
    source_tokens: int
    file_bytes: int
    failed: tuple[Failed, ...]


def encode_documents(
    wire: Wire,
    paths: Sequence[Path],
    out: Path,
    compression: int | None,
    progress: Callable[[float, str], None],
    resume: bool = False,
    key: bytes | None = None,
    codec: str | None = None,
) -> Encoded:
    """Encode text files into one file. A bad document is left out and named; the others are encoded.

    Raises:
        DataError: The file is there already, or was begun and neither is to go on, or was begun otherwise; no document could be
            encoded.
        MethodError: A compression that the wire does not serve.
        LatentError: A codec that it does not send in.
        RunError: The file cannot be written.
    """
    way = _Way(wire, compression or wire.method.compression, codec or DEFAULT_CODEC, key)
    partial = out.with_name(out.name + ".partial")
    if out.exists() or (partial.exists() and not resume):
        raise DataError(f"{out} was begun or is there already; add --resume to go on with it or --force to replace it")
    remember_wire(wire)
    failed: list[Failed] = []
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("ab") as file:
            file.truncate(_whole_bytes(partial))
            known = {(one.name, one.header.source): _form(one.header) for one in read_messages(partial)}
            _write(file, way, paths, known, failed, progress)
        found = list(read_messages(partial, key))
        if not found:
            partial.unlink()
            raise DataError(
                "expected a document that can be encoded, got none: " + "; ".join(one.reason for one in failed)
            )
        total = partial.stat().st_size
        partial.replace(out)
    except OSError as error:
        raise unwritable(out, error) from None
    progress(1.0, "")
    headers = [one.header for one in found]
    vectors, tokens = sum(one.vectors for one in headers), sum(one.source_tokens for one in headers)
    return Encoded(len(found), len(known), vectors, tokens, total, tuple(failed))


def _write(
    file: BinaryIO,
    way: "_Way",
    paths: Sequence[Path],
    known: Mapping[tuple[str, bytes], Form],
    failed: list[Failed],
    progress: Callable[[float, str], None],
) -> None:
    """Encode what is not `known` yet, a batch at a time; a batch that is done is on the disk."""
    for first in range(0, len(paths), BATCH):
        texts = _texts(paths[first : first + BATCH], failed)
        due = {}
        for name, text in texts.items():
            form = known.get((name, digest(text)))
            if form is None:
                due[name] = text
            elif form != way.form(text):
                raise DataError(
                    f"expected the wire, compression and codec with which {file.name} was begun, got others; give those, or add"
                    " --force to start anew"
                )
        for name, message in _messages(way, due, failed):
            file.write(message)
            progress(first / len(paths), name)
        file.flush()
        os.fsync(file.fileno())


def latent_vectors(wire: Wire, texts: Sequence[str], progress: Callable[[float, str], None]) -> FloatArray:
    """The vectors `[N, d]` of texts' latents at every compression that a wire serves: what codebooks are learnt from."""
    found = []
    for first in range(0, len(texts), BATCH):
        progress(first / len(texts), "")
        with remembering():  # a text is read once for all compressions
            for size in wire.method.compressions:
                found += [latent.payload for latent in wire.encode(texts[first : first + BATCH], size, "fp32")]
    progress(1.0, "")
    return np.concatenate(found).astype(np.float32)


def remember_wire(wire: Wire) -> None:
    """Note where the wire of a latent space lies, so that its latents find it."""
    place = _place(wire.method.space)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(str(wire.folder.resolve()), encoding="utf-8")
    except OSError as error:
        raise unwritable(place, error) from None


def wire_of(space: str) -> Wire:
    """The wire of a latent space that encoded something on this machine.

    Raises:
        WireError: None did, or it is another now.
    """
    try:
        folder = Path(_place(space).read_text(encoding="utf-8"))
    except OSError:
        raise WireError(
            f"expected the wire of space '{space}', but it encoded nothing here; give it with --wire"
        ) from None
    wire = Wire.load(folder)
    if not wire.reads(space):
        raise WireError(
            f"expected the wire of space '{space}' in {folder}, got that of '{wire.method.space}'; give --wire"
        )
    return wire


def _place(space: str) -> Path:
    base = space.partition("/")[0]  # what follows names codebooks
    return cache_dir() / "wires" / "".join(letter if letter.isalnum() else "-" for letter in base)


def _whole_bytes(path: Path) -> int:
    """The length of a file up to the first message that is not whole."""
    size = 0
    try:
        for message in read_messages(path):
            size += message.header.length
    except LatentError:
        pass
    return size


def _texts(paths: Sequence[Path], failed: list[Failed]) -> dict[str, str]:
    texts = {}
    for path in paths:
        try:
            texts[str(path)] = read_contexts([path])[0]
        except DataError as error:
            failed.append(Failed(str(path), str(error)))
    return texts


@dataclass(frozen=True, slots=True)
class _Way:
    """How texts become messages."""

    wire: Wire
    compression: int
    codec: str
    key: bytes | None

    def __post_init__(self) -> None:
        self.wire.method.expect_served(self.compression)
        self.wire.expect_codec(self.codec)

    def form(self, text: str) -> Form:
        """What the message of a text would look like."""
        return self.wire.form(text, self.compression, self.codec)

    def encode(self, texts: Sequence[str]) -> list[Latent]:
        return self.wire.encode(texts, self.compression, self.codec)


def _form(header: Header) -> Form:
    return Form(header.space, header.codec, header.vectors)


def _messages(way: _Way, texts: dict[str, str], failed: list[Failed]) -> Iterator[tuple[str, bytes]]:
    """Names and messages of texts: all at once or, where one of them is refused, one by one."""
    try:
        made = dict(zip(texts, way.encode(list(texts.values())), strict=True)) if texts else {}
    except LatentWireError:
        made = {}
    for name, text in texts.items():
        try:
            latent = made[name] if made else way.encode([text])[0]
            yield name, pack(latent, name, digest(text), way.key)
        except LatentWireError as error:
            failed.append(Failed(name, str(error)))
