"""What a request says, as a prompt: OpenAI's messages, whose parts may be latents, and plain prompts.

messages ─ conversation ─▶ turns: (context parts, question, answer) ─ Prompter ─▶ ids around the contexts ─ wire ─▶ embeddings [T, D]

A user's message is what it is about, latents and text, and in its last part the question.
"""

import base64
import binascii
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from latentwire.errors import LatentError, RequestError, SpaceError
from latentwire.latent import MOST_TOGETHER, Latent
from latentwire.reader import Reader
from latentwire.reader.cache import cache_bytes
from latentwire.reader.prompts import INSTRUCTION, Turn
from latentwire.serve.schemas import ChatMessage, LatentPart, TextPart
from latentwire.wire import Wire
from latentwire.wire_format import Message, unpack
from latentwire.wire_header import Limits


@dataclass(frozen=True, slots=True)
class Laid:
    """A prompt that is ready to be read.

    Attributes:
        embeds: `[T, D]`.
        opening: Token ids that it begins with.
        latent_bytes: Of the latents' payloads.
        kv_bytes: Of the keys and values that the reader keeps of it.
    """

    embeds: Tensor
    opening: tuple[int, ...]
    latent_bytes: int
    kv_bytes: int


@dataclass(frozen=True, slots=True)
class Receiver:
    """Turns the latents of requests into the real ones.

    Attributes:
        stored: The message with an id.
        key: Checks signatures, if there is one.
        limits: What a message may be.
    """

    stored: Callable[[str], bytes]
    key: bytes | None
    limits: Limits

    def receive(self, part: LatentPart) -> Message:
        """The message of a part.

        Raises:
            RequestError: Neither data nor an id, or both, or data that is not base64.
            StoreError: An id that is unknown, deleted or expired.
            LatentError: A message that is wrong.
        """
        if (part.data is None) == (part.id is None):
            raise RequestError('expected a latent with "data" or with "id", got both or neither')
        if part.id is not None:
            return unpack(self.stored(part.id), key=self.key, limits=self.limits)
        return unpack(from_base64(str(part.data), self.limits.message_bytes), key=self.key, limits=self.limits)


def from_base64(text: str, most: int) -> bytes:
    """Bytes of base64, in which white space may stand anywhere.

    Raises:
        RequestError: It is not base64, or of more than `most` bytes.
    """
    packed = "".join(text.split())
    if len(packed) > -(-most // 3) * 4:
        raise RequestError(f"expected a latent of at most {most:,} bytes in base64, got more; send less")
    try:
        return base64.b64decode(packed, validate=True)
    except (binascii.Error, ValueError):
        raise RequestError(
            "expected a latent in base64, got other letters or padding; encode the message's bytes"
        ) from None


def laid_out(messages: Sequence[ChatMessage], wire: Wire, reader: Reader, receiver: Receiver) -> Laid:
    """A conversation as one prompt for a reader.

    Raises:
        RequestError: Turns that are in no order, a user's message without a question.
        LatentError: A latent that is wrong, or of another wire.
        PromptError: It does not fit the reader.
    """
    instruction = INSTRUCTION
    turns: list[Turn] = []
    contexts: list[list[TextPart | LatentPart]] = []
    for place, message in enumerate(messages):
        if message.role in ("system", "developer"):
            if place:
                raise RequestError("expected the system's message first, got it later; move it")
            instruction = message.text()
        elif message.role == "user":
            if turns and turns[-1].answer is None:
                raise RequestError("expected an assistant's message between two of the user, got none")
            *context, question = message.parts()
            if isinstance(question, LatentPart):
                raise RequestError(
                    "expected a question as the last part of the user's message, got a latent; add a text part"
                )
            turns.append(Turn(bool(context), question.text))
            contexts += [context] if context else []
        else:
            if not turns or turns[-1].answer is not None:
                raise RequestError("expected a user's message before the assistant's, got none")
            turns[-1] = Turn(turns[-1].has_context, turns[-1].question, message.text())
    if not turns or turns[-1].answer is not None:
        raise RequestError("expected a user's message at the end, got none")
    _expect_few([part for context in contexts for part in context], receiver.limits.messages)
    segments = reader.prompter.conversation(turns, instruction)
    rows, size = [_embedded(reader, segments[0])], 0
    for context, segment in zip(contexts, segments[1:], strict=True):
        row, payload = _context(context, wire, reader, receiver)
        rows += [row, _embedded(reader, segment)]
        size += payload
    return _laid(reader, torch.cat(rows), segments[0] if contexts else (), size)


def continued(prompt: str, latents: Sequence[LatentPart], wire: Wire, reader: Reader, receiver: Receiver) -> Laid:
    """Latents, if any, and a text that is to be continued: no template.

    Raises:
        RequestError: Neither latents nor text.
        LatentError, PromptError: As `laid_out`.
    """
    _expect_few(latents, receiver.limits.messages)
    bos = reader.tokenizer.bos_token_id
    row, size = _context(latents, wire, reader, receiver) if latents else (torch.zeros(0, reader.width), 0)
    first = _embedded(reader, () if bos is None else (bos,))
    rows = torch.cat([first, row.to(first), _embedded(reader, reader.prompter.slot(prompt).ids)])
    if not len(rows):
        raise RequestError("expected a prompt, got an empty one")
    return _laid(reader, rows, (), size)


def _expect_few(parts: Sequence[TextPart | LatentPart], most: int) -> None:
    """Raise `RequestError` where a request brings more latents than the operator allows, before any of them is decoded."""
    count = sum(isinstance(part, LatentPart) for part in parts)
    if count > most:
        raise RequestError(f"expected at most {most} latents in a request, got {count}; ask in several")


def _laid(reader: Reader, rows: Tensor, opening: tuple[int, ...], latent_bytes: int) -> Laid:
    kept = cache_bytes(reader.model.config, len(rows), torch.finfo(reader.dtype).bits // 8)
    return Laid(rows, opening, latent_bytes, int(kept))


@torch.no_grad()
def _context(
    parts: Sequence[TextPart | LatentPart], wire: Wire, reader: Reader, receiver: Receiver
) -> tuple[Tensor, int]:
    """What a turn is about as embeddings `[P, D]`, and the bytes of its latents. Text alone stands as it is."""
    pieces: list[Latent | str] = []
    size = 0
    for part in parts:
        if isinstance(part, LatentPart):
            message = receiver.receive(part)
            if message.header.codec in ("ids16", "ids32", "utf8"):
                raise LatentError(f"expected vectors, got {message.header.codec}; send text as a text part")
            if not wire.reads(message.header.space):
                raise SpaceError(
                    f"expected a latent of space '{wire.method.space}', which reader '{reader.name}' has an adapter for, got one of"
                    f" '{message.header.space}'; encode it with POST /v1/latents"
                )
            pieces.append(message.latent())
            size += len(message.payload)
        else:
            pieces.append(part.text)
    latents = sum(isinstance(piece, Latent) for piece in pieces)
    if latents > MOST_TOGETHER:
        raise RequestError(
            f"expected at most {MOST_TOGETHER} latents in a message, got {latents}; no wire has learnt more"
        )
    if not latents:
        return _embedded(reader, reader.prompter.slot("\n\n".join(str(piece) for piece in pieces)).ids), 0
    return torch.cat(wire.prefix(pieces, reader).rows()), size


@torch.no_grad()
def _embedded(reader: Reader, ids: Sequence[int]) -> Tensor:
    return reader.embed(torch.tensor(list(ids), dtype=torch.long)).float()
