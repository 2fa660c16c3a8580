"""`Wire`: a trained wire for those who use it. Encode texts once, answer with any reader that it has an adapter for.

texts ─ encode ─▶ latents ─ prefix ─▶ Prefix ─ reader.answer(prefix, question) ─▶ answer
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HfHubHTTPError

from latentwire.codebooks import CODEC, Codebooks
from latentwire.codecs import CODECS, transmit
from latentwire.encoder import Window
from latentwire.errors import LatentError, WireError
from latentwire.latent import Latent, expect_space
from latentwire.methods.wire import Wire as WireMethod
from latentwire.reader import Layout, Prefix, Reader
from latentwire.reader.checkpoint import first_line
from latentwire.reader.load import load_model
from latentwire.wire_folder import (
    CODEBOOKS,
    CONFIG,
    EXTRAS,
    WireFiles,
    read_codebooks,
    read_wire,
    write_codebooks,
    write_wire,
)

DEFAULT_CODEC = (
    "int4"  # the smallest that loses less than 2 % of the answers' NLL on real questions: docs/wire-format.md
)


class Form(NamedTuple):
    """What tells the latents of one text apart: two compressions that give it as many vectors give it the same."""

    space: str
    codec: str
    vectors: int


@dataclass(frozen=True)
class Wire:
    """One encoder, its latents, and an adapter per reader.

    Attributes:
        method: The method behind it.
        files: What its folder holds.
        folder: Where it was loaded from.
        codebooks: For codec `pq`, where it has any.
    """

    method: WireMethod
    files: WireFiles
    folder: Path
    codebooks: Codebooks | None = None

    @classmethod
    def load(cls, folder: Path | str) -> "Wire":
        """The wire in a folder that `save`, or a run, wrote.

        Raises:
            WireError: There is none, it is damaged, or the encoder here is another revision than it was trained with.
            ReaderError: The encoder cannot be found.
        """
        folder = Path(folder)
        files = read_wire(folder)
        method = WireMethod(**files.fields())
        method.load(files.tensors, None)
        if method.source.identity != files.identity:
            raise WireError(
                f"expected encoder {files.identity} for the wire in {folder}, got {method.source.identity}; install the"
                " revision that it was trained with, or train the wire anew"
            )
        if method.space != files.space:
            raise WireError(
                f"expected latents of space {files.space} in {folder}, as its {CONFIG} says, got {method.space}; its files are"
                " of two trainings: fetch or train the wire anew"
            )
        return cls(method, files, folder, read_codebooks(folder))

    @classmethod
    def from_pretrained(cls, name: str) -> "Wire":
        """The wire in a folder or, where there is none, in a repository of the Hugging Face hub.

        Raises:
            WireError: It is in neither place.
        """
        if Path(name).is_dir():
            return cls.load(name)
        try:
            return cls.load(snapshot_download(name))
        except (OSError, ValueError, HfHubHTTPError) as error:
            raise WireError(
                f"wire '{name}' not found here, and not fetched from the hub ({first_line(error)}); give a folder"
            ) from error

    def save(self, folder: Path | str) -> None:
        """Write the wire into a folder, with its recipe, rows and model card."""
        folder = Path(folder)
        write_wire(folder, self.files)
        if self.codebooks is not None:
            write_codebooks(folder, self.codebooks)
        for name in EXTRAS:
            if (self.folder / name).exists() and self.folder.resolve() != folder.resolve():
                shutil.copyfile(self.folder / name, folder / name)

    def push_to_hub(self, name: str, private: bool = False) -> str:
        """Upload the wire's folder to a repository of the Hugging Face hub, made when missing; returns its address."""
        hub = HfApi()
        address = str(hub.create_repo(name, private=private, exist_ok=True))
        hub.upload_folder(repo_id=name, folder_path=self.folder, allow_patterns=self.uploads())
        return address

    def uploads(self) -> list[str]:
        """The files of the folder that an upload sends, as paths below it."""
        known = [*self.files.names(), CODEBOOKS, *EXTRAS]
        return [name for name in known if (self.folder / name).exists()]

    def open_reader(self, name: str, dtype: str = "auto") -> Reader:
        """A reader that the wire has an adapter for, asked as it was in training.

        Raises:
            WireError: There is no adapter for it.
            ReaderError: It cannot be found.
        """
        loaded = load_model(name, dtype=dtype)
        asked = self.files.reader(loaded.fingerprint, name)
        layout = Layout(asked.style, asked.shots)
        reader = Reader(loaded.model, loaded.tokenizer, asked.name, layout, loaded.fingerprint)
        self.method.dictionary(reader)  # takes seconds: now, not while a first question waits
        return reader

    def encode(self, texts: Sequence[str], compression: int | None = None, codec: str | None = None) -> list[Latent]:
        """One latent per text, `compression` times shorter than its tokens, rounded as its codec (int4 if not given) rounds: what
        another process would receive. No reader and no question is needed.

        Raises:
            MethodError: An empty text, or a compression that the wire does not serve.
            LatentError: A codec that is none for vectors, or `pq` where the wire has no codebooks.
        """
        asked = codec or DEFAULT_CODEC
        self.expect_codec(asked)
        windows = [self.method.source.windows(text) for text in texts]
        found = self.method.encode_windows(windows, compression or self.method.compression)
        if asked == CODEC and self.codebooks is not None:
            return [self.codebooks.coded(latent) for latent in found]
        return [transmit(replace(latent, codec=asked))[0] for latent in found]

    def expect_codec(self, codec: str) -> None:
        """Raise `LatentError` unless latents can be sent in this codec."""
        known = [name for name in CODECS if CODECS[name].dtype is np.float32]
        known += [CODEC] if self.codebooks is not None else []
        if codec not in known:
            hint = "; learn codebooks with latentwire codebooks" if codec == CODEC else ""
            raise LatentError(f"expected a codec of {', '.join(known)}, got '{codec}'; choose one of those{hint}")

    def reads(self, space: str) -> bool:
        """Whether a latent of this space can be read."""
        own = self.method.space
        return space == own or (self.codebooks is not None and space == self.codebooks.space(own))

    def form(self, text: str, compression: int | None = None, codec: str | None = None) -> Form:
        """Of what form a text's latent is; nothing is encoded. Raises as `encode`."""
        size, asked = compression or self.method.compression, codec or DEFAULT_CODEC
        self.method.expect_served(size)
        self.expect_codec(asked)
        own = self.method.space
        space = self.codebooks.space(own) if self.codebooks is not None and asked == CODEC else own
        return Form(space, asked, _count(self.method.source.windows(text), size))

    def append(self, latent: Latent, text: str, added: str, compression: int | None = None) -> Latent:
        """The latent of `text + added` from that of `text`: only windows that the addition changes are encoded.

        Raises:
            LatentError: The latent is of another wire, or of another text or compression.
        """
        size = compression or self.method.compression
        expect_space([latent], self.method.space)
        before, after = self.method.source.windows(text), self.method.source.windows(text + added)
        if len(latent.payload) != _count(before, size):
            raise LatentError(
                f"expected the latent of that text at {size}x, got one of {len(latent.payload)} vectors; give the text that it"
                " was made of, and its compression"
            )
        kept = 0
        while kept < len(before) and before[kept] == after[kept]:
            kept += 1
        old = latent.payload[: _count(before[:kept], size)]
        new = [one.payload for one in self.method.encode_windows([after[kept:]], size)] if after[kept:] else []
        longer = replace(latent, payload=np.concatenate([old, *new]), source_tokens=sum(map(len, after)))
        return transmit(longer)[0]

    @torch.no_grad()
    def prefix(self, pieces: Sequence[Latent | str], reader: Reader) -> Prefix:
        """What takes a context's place in one prompt: latents, and text between them, in order.

        Raises:
            WireError: The wire has no adapter for the reader, or one for another prompt layout.
            LatentError: A latent of another wire.
        """
        asked = self.files.reader(reader.fingerprint, reader.name)
        if reader.prompter.layout != Layout(asked.style, asked.shots):
            raise WireError(
                f"expected reader '{reader.name}' with style={asked.style} and shots={asked.shots}, as the wire was"
                f" trained, got {reader.prompter.layout.style} and {reader.prompter.layout.shots}; open it with"
                " wire.open_reader"
            )
        return self.method.join([self._vectors(piece) for piece in pieces], reader)

    def _vectors(self, piece: Latent | str) -> Latent | str:
        """A piece of a prompt, codes as the vectors that they stand for."""
        if isinstance(piece, Latent) and piece.codec == CODEC and self.codebooks is not None:
            return self.codebooks.restored(piece)
        return piece


def _count(windows: Sequence[Window], compression: int) -> int:
    return sum(-(-len(window) // compression) for window in windows)
