"""From a prompt that is laid out to an answer in OpenAI's shape, whole or as it comes, and to nothing where the client has left."""

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from fastapi import Request as HttpRequest

from latentwire.serve.messages import Laid
from latentwire.serve.meters import Meters
from latentwire.serve.schemas import Sampling
from latentwire.serve.work import Piece, Request, Working

GLANCE_SECONDS = 0.1  # between two looks at whether a client is still there
MOST_TOKENS = 64  # of an answer whose length was not asked for


class ClientGoneError(Exception):
    """The client left before its answer was there."""


@dataclass
class Answering:
    """One answer that is being made.

    Attributes:
        kind: "chat.completion" or "text_completion".
        model: The reader's name as the client gave it.
        laid: The prompt.
        pieces: What the engine says of it.
        request: What the engine works on.
        begun: When the request came.
    """

    kind: str
    model: str
    laid: Laid
    pieces: asyncio.Queue[Piece]
    request: Request
    begun: float = field(default_factory=time.perf_counter)
    id: str = ""
    created: int = field(default_factory=lambda: int(time.time()))

    def __post_init__(self) -> None:
        self.id = f"{'chatcmpl' if self.kind == 'chat.completion' else 'cmpl'}-{uuid.uuid4().hex}"

    def usage(self, tokens: int) -> dict[str, int]:
        """What it cost: positions of the prompt, latents and text alike, and tokens of the answer."""
        positions = len(self.laid.embeds)
        return {
            "prompt_tokens": positions,
            "completion_tokens": tokens,
            "total_tokens": positions + tokens,
            "latent_bytes": self.laid.latent_bytes,
            "kv_bytes": self.laid.kv_bytes,
        }

    def whole(self, text: str, finish: str, tokens: int) -> dict[str, Any]:
        """The answer as one body."""
        said = {"message": {"role": "assistant", "content": text}} if self.kind == "chat.completion" else {"text": text}
        choice = {"index": 0, **said, "logprobs": None, "finish_reason": finish}
        return {**self._head(self.kind), "choices": [choice], "usage": self.usage(tokens)}

    def chunk(self, text: str, finish: str | None, first: bool) -> dict[str, Any]:
        """A part of the answer."""
        if self.kind == "chat.completion":
            delta: dict[str, Any] = {"role": "assistant"} if first else {}
            if text or first:
                delta["content"] = text
            choice: dict[str, Any] = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
            return {**self._head("chat.completion.chunk"), "choices": [choice]}
        choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": finish}
        return {**self._head(self.kind), "choices": [choice]}

    def last(self, tokens: int) -> dict[str, Any]:
        """What ends a stream whose client asked for its cost."""
        kind = "chat.completion.chunk" if self.kind == "chat.completion" else self.kind
        return {**self._head(kind), "choices": [], "usage": self.usage(tokens)}

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}


def submit(
    engine: Working, kind: str, body: Sampling, reader: str, laid: Laid, max_tokens: int | None, one_line: bool
) -> Answering:
    """Put a prompt in line.

    Raises:
        BusyError: The line is full.
    """
    pieces: asyncio.Queue[Piece] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    request = Request(
        reader,
        laid.embeds,
        max_tokens or MOST_TOKENS,
        lambda piece: _hand_over(loop, pieces, piece),
        laid.opening,
        body.stops,
        one_line,
        body.temperature or 0.0,
        body.top_p or 1.0,
        (body.seed or 0) & (2**63 - 1),
    )
    engine.submit(request)
    return Answering(kind, body.model, laid, pieces, request)


async def finished(answering: Answering, http: HttpRequest, meters: Meters) -> dict[str, Any]:
    """The whole answer.

    Raises:
        ClientGoneError: Nobody waits for it any more; its work is stopped.
        RuntimeError: The engine failed.
    """
    text = []
    async for piece in _pieces(answering, http, meters):
        text.append(piece.text)
    if piece.finish == "error":
        raise RuntimeError(piece.error)
    return answering.whole("".join(text), str(piece.finish), piece.tokens)


async def streamed(answering: Answering, http: HttpRequest, meters: Meters, usage: bool) -> AsyncIterator[str]:
    """The answer as server-sent events."""
    first = True
    try:
        async for piece in _pieces(answering, http, meters):
            if piece.finish == "error":
                yield _event({"error": {"message": piece.error, "type": "server_error", "param": None, "code": None}})
                return
            if piece.text or piece.finish or first:
                yield _event(answering.chunk(piece.text, piece.finish, first))
                first = False
        if usage:
            yield _event(answering.last(piece.tokens))
        yield "data: [DONE]\n\n"
    except ClientGoneError:
        return


async def _pieces(answering: Answering, http: HttpRequest, meters: Meters) -> AsyncIterator[Piece]:
    """Pieces until the last; when the client leaves or the server is told to stop waiting, the engine stops within a token."""
    reader, told = answering.request.reader, False
    meters.positions.labels(reader).inc(len(answering.laid.embeds))
    meters.latent_bytes.inc(answering.laid.latent_bytes)
    try:
        while True:
            try:
                piece = await asyncio.wait_for(answering.pieces.get(), GLANCE_SECONDS)
            except TimeoutError:
                if await http.is_disconnected():
                    meters.cancelled.inc()
                    raise ClientGoneError from None
                continue
            if not told:
                meters.first.observe(time.perf_counter() - answering.begun)
                told = True
            if piece.finish:
                meters.whole.observe(time.perf_counter() - answering.begun)
                meters.tokens.labels(reader).inc(piece.tokens)
            yield piece
            if piece.finish:
                return
    finally:
        answering.request.cancelled = True


def _hand_over(loop: asyncio.AbstractEventLoop, pieces: asyncio.Queue[Piece], piece: Piece) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(pieces.put_nowait, piece)


def _event(body: dict[str, Any]) -> str:
    return f"data: {json.dumps(body)}\n\n"
