"""Text as a method: nothing, everything, token ids, or what is left of the context after a cut. No parameters."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from latentwire.codecs import ids_codec
from latentwire.latent import Latent, expect_space
from latentwire.methods import METHODS, Method, id_tensor
from latentwire.reader import Prefix, Reader, Slot
from latentwire.reader.load import token_counter

SEPARATOR = b"\xff"  # a byte that UTF-8 text never holds
SPACE = "text"


def text_latent(slot: Slot, source: Slot | None = None) -> Latent:
    """A slot's text as UTF-8 bytes, its pieces kept apart by one byte; `source` is what it stands for."""
    data = SEPARATOR.join(piece.encode() for piece in slot.pieces)
    tokens = len((source or slot).ids)
    return Latent(np.frombuffer(data, dtype=np.uint8).reshape(-1, 1), "utf8", SPACE, tokens)


def text_prefix(latents: Sequence[Latent], reader: Reader) -> Prefix:
    """The embedded tokens of text latents."""
    expect_space(list(latents), SPACE)
    pieces = [[piece.decode() for piece in latent.payload.tobytes().split(SEPARATOR)] for latent in latents]
    slots = [reader.prompter.slot(*texts) for texts in pieces]
    return Prefix.stack([reader.embed(id_tensor(slot.ids)) for slot in slots])


@METHODS.register("full_text")
@dataclass
class FullText(Method):
    """The slot's text, unchanged: what the reader would get without us."""

    def encode(self, slots: Sequence[Slot], reader: Reader) -> list[Latent]:
        """UTF-8 text."""
        return [text_latent(slot) for slot in slots]

    def prefix(self, latents: Sequence[Latent], reader: Reader) -> Prefix:
        """Embedded tokens of the text."""
        return text_prefix(latents, reader)


@METHODS.register("no_context")
@dataclass
class NoContext(Method):
    """The question without its context: the floor that a method must rise above."""

    def encode(self, slots: Sequence[Slot], reader: Reader) -> list[Latent]:
        """Text of the slot with an empty context."""
        return [text_latent(with_context(slot, "", reader), slot) for slot in slots]

    def prefix(self, latents: Sequence[Latent], reader: Reader) -> Prefix:
        """Embedded tokens of what is left."""
        return text_prefix(latents, reader)


@METHODS.register("token_ids")
@dataclass
class TokenIds(Method):
    """Token ids, 2 or 4 bytes each: the honest competitor on bytes."""

    def encode(self, slots: Sequence[Slot], reader: Reader) -> list[Latent]:
        """Ids `[S, 1]` in the shortest codec that holds the vocabulary."""
        codec, space = ids_codec(reader.vocab_size), f"ids-{reader.fingerprint}"
        return [Latent(np.array(slot.ids, dtype=np.uint32)[:, None], codec, space, len(slot.ids)) for slot in slots]

    def prefix(self, latents: Sequence[Latent], reader: Reader) -> Prefix:
        """Embedded ids."""
        expect_space(list(latents), f"ids-{reader.fingerprint}")
        return Prefix.stack([reader.embed(id_tensor(latent.payload[:, 0].tolist())) for latent in latents])


@METHODS.register("truncated")
@dataclass
class Truncated(Method):
    """Text cut at the end of the context to a budget: what the same price buys without any training.

    Attributes:
        unit: What the budget counts: UTF-8 bytes or reader positions.
        per_token: Budget for each token of the whole slot, in that unit; a last part of a token counts as one.
        more: What is added to the budget of the slot.
        counted_by: Name of the reader whose tokens are counted; the reader itself if None.
    """

    unit: Literal["bytes", "positions"] = "positions"
    per_token: float = 1.0
    more: int = 0
    counted_by: str | None = None

    def encode(self, slots: Sequence[Slot], reader: Reader) -> list[Latent]:
        """Text with the longest leading part of the context that stays within the budget."""
        return [text_latent(self._cut(slot, reader), slot) for slot in slots]

    def prefix(self, latents: Sequence[Latent], reader: Reader) -> Prefix:
        """Embedded tokens of what is left."""
        return text_prefix(latents, reader)

    def cut(self, slots: Sequence[Slot], latents: Sequence[Latent]) -> list[bool]:
        """Whether each context lost text."""
        return [
            latent.payload.size < text_latent(slot).payload.size for slot, latent in zip(slots, latents, strict=True)
        ]

    def _cut(self, slot: Slot, reader: Reader) -> Slot:
        budget = math.ceil(self.per_token * tokens_of(slot, reader, self.counted_by)) + self.more
        words = slot.context.split(" ")
        low, high = 0, len(words)
        while low < high:
            middle = (low + high + 1) // 2
            fits = self._price(with_context(slot, " ".join(words[:middle]), reader)) <= budget
            low, high = (middle, high) if fits else (low, middle - 1)
        return with_context(slot, " ".join(words[:low]), reader)

    def _price(self, slot: Slot) -> int:
        return len(slot.ids) if self.unit == "positions" else int(text_latent(slot).payload.size)


@METHODS.register("random_tokens")
@dataclass
class RandomTokens(Method):
    """Some of the tokens, drawn at random and left in their order: what as many positions buy without any choice.

    Attributes:
        compression: One of so many tokens is kept, rounded up.
        more: Tokens that are kept beside those.
        counted_by: Name of the reader whose tokens are counted; the reader itself if None.
        seed: Seed of the draw, which also depends on the tokens.
    """

    compression: float = 4.0
    more: int = 0
    counted_by: str | None = None
    seed: int = 0

    def encode(self, slots: Sequence[Slot], reader: Reader) -> list[Latent]:
        """Ids `[ceil(S / compression) + more, 1]`, at most all."""
        codec, space = ids_codec(reader.vocab_size), f"ids-{reader.fingerprint}"
        return [Latent(self._drawn(slot, reader)[:, None], codec, space, len(slot.ids)) for slot in slots]

    def prefix(self, latents: Sequence[Latent], reader: Reader) -> Prefix:
        """Embedded ids."""
        return TokenIds().prefix(latents, reader)

    def _drawn(self, slot: Slot, reader: Reader) -> npt.NDArray[np.uint32]:
        ids = np.array(slot.ids, dtype=np.uint32)
        draw = np.random.default_rng([self.seed, *slot.ids])
        size = math.ceil(tokens_of(slot, reader, self.counted_by) / self.compression) + self.more
        kept = draw.choice(len(ids), size=min(len(ids), size), replace=False)
        return ids[np.sort(kept)]


def with_context(slot: Slot, context: str, reader: Reader) -> Slot:
    """The slot with another context in its place."""
    middle = len(slot.pieces) // 2
    return reader.prompter.slot(*slot.pieces[:middle], context, *slot.pieces[middle + 1 :])


def tokens_of(slot: Slot, reader: Reader, counted_by: str | None) -> int:
    """Tokens of a slot, in the reader's count or in another's: what shortens one reader's tokens is fed to others."""
    return len(slot.ids) if counted_by in (None, reader.source) else token_counter(str(counted_by))(slot.text)
