"""The server's routes: latents, chats and completions as OpenAI's clients send them, models, health and metrics.

request ─ guards ─▶ route ─ messages ─▶ prompt ─ engine ─▶ pieces ─ answers ─▶ body or events
"""

import asyncio
import base64
import contextlib
import time
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, StreamingResponse

from latentwire import __version__
from latentwire.errors import LatentError, NotStoredError, RequestError, UnknownReaderError
from latentwire.latent import Latent
from latentwire.reader import Reader
from latentwire.serve.answers import Answering, ClientGoneError, finished, streamed, submit
from latentwire.serve.encoding import Encodings
from latentwire.serve.engine import Engine
from latentwire.serve.guards import BodyLimit, Keys, add_errors, envelope, refusal
from latentwire.serve.messages import Laid, Receiver, continued, laid_out
from latentwire.serve.meters import Meters
from latentwire.serve.schemas import IDLE, ChatRequest, CompletionRequest, EncodeRequest, Sampling
from latentwire.serve.work import Working, closing
from latentwire.store import Store
from latentwire.wire import Wire
from latentwire.wire_format import digest, pack, unpack
from latentwire.wire_header import Limits, read_header

PAGE = Path(__file__).with_name("playground.html")


@dataclass(frozen=True)
class Settings:
    """What the operator decides.

    Attributes:
        body_bytes: The most that a request's body may be.
        limits: What a message may be.
        keys: API keys, one of which every request must bring; none if empty.
        secret: Signs latents and checks signatures, if given.
        most_running: Rows that a reader answers at a time.
        most_waiting: Requests that wait before one more is refused.
        drain_seconds: How long a shutdown waits for what runs.
    """

    body_bytes: int = 16 * 2**20
    limits: Limits = Limits()  # noqa: RUF009  (frozen)
    keys: Collection[str] = ()
    secret: bytes | None = None
    most_running: int = 16
    most_waiting: int = 64
    drain_seconds: float = 60.0


class Server:
    """What the routes share.

    Args:
        wire: Encodes, and has an adapter for each reader.
        readers: By the name that requests call them.
        store: Keeps latents.
        settings: What the operator decides.
        engine: What computes; an `Engine` in this process if not given.
    """

    def __init__(
        self,
        wire: Wire,
        readers: Mapping[str, Reader],
        store: Store,
        settings: Settings,
        engine: Working | None = None,
    ) -> None:
        self.wire, self.readers, self.store, self.settings = wire, dict(readers), store, settings
        self.engine = engine or Engine(self.readers, settings.most_running, settings.most_waiting)
        self.encodings = Encodings(wire, self.engine)
        self.meters = Meters(self.engine)
        self.receiver = Receiver(store.get, settings.secret, settings.limits)

    def reader(self, name: str) -> Reader:
        """The reader that a request calls."""
        if name not in self.readers:
            raise UnknownReaderError(
                f"expected a model of {', '.join(self.readers)}, got '{name}'; GET /v1/models lists them"
            )
        return self.readers[name]

    async def laid(self, work: Any) -> Laid:
        """A prompt, laid out beside the loop: it embeds, decodes and reads the store."""
        found: Laid = await asyncio.to_thread(work)
        return found

    def message(self, body: EncodeRequest, latent: Latent) -> bytes:
        """A text's latent as bytes."""
        return pack(latent, body.name, digest(body.text), self.settings.secret)

    def known(self, body: EncodeRequest) -> bytes | None:
        """The message that `message` would make, where the store has it: nothing is encoded twice."""
        form = self.wire.form(body.text, body.compression, body.codec)
        for entry in self.store.find(digest(body.text).hex(), form.space):
            if (entry.codec, entry.vectors, entry.name) == (form.codec, form.vectors, body.name):
                with contextlib.suppress(NotStoredError, LatentError):  # gone by now, damaged, or not signed by us
                    message = self.store.get(entry.id)
                    unpack(message, key=self.settings.secret, limits=self.settings.limits)
                    return message
        return None


def build_app(server: Server) -> FastAPI:
    """The application around a server."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(server.engine.close, server.settings.drain_seconds)

    app = FastAPI(title="LatentWire", version=__version__, lifespan=lifespan, responses=envelope())
    add_errors(app, lambda name: server.meters.refused.labels(name).inc())
    app.add_middleware(BodyLimit, limit=server.settings.body_bytes)
    app.add_middleware(Keys, keys=server.settings.keys)

    @app.exception_handler(UnknownReaderError)
    async def unknown(_: Request, error: UnknownReaderError) -> JSONResponse:
        return refusal(404, str(error), "model_not_found", "model")

    @app.middleware("http")
    async def count(request: Request, go_on: Any) -> Response:
        answer: Response = await go_on(request)
        route = getattr(request.scope.get("route"), "path", "other")
        server.meters.requests.labels(route, answer.status_code).inc()
        return answer

    _state_routes(app, server)
    _latent_routes(app, server)
    _answer_routes(app, server)
    return app


def _state_routes(app: FastAPI, server: Server) -> None:
    @app.get("/health")
    async def health() -> dict[str, str]:
        """Whether the process lives."""
        return {"status": "ok"}

    @app.get("/ready")
    async def ready() -> Response:
        """Whether it takes requests."""
        if server.engine.alive and not server.engine.closing:
            return JSONResponse({"status": "ready"})
        return refusal(503, str(closing()))

    @app.get("/metrics")
    async def metrics() -> Response:
        """Counters in Prometheus' text format."""
        return Response(server.meters.page(), media_type="text/plain; version=0.0.4")

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        """The readers, and the latent space that they read."""
        space, served = server.wire.method.space, list(server.wire.method.compressions)
        about = {
            "object": "model",
            "created": 0,
            "owned_by": "latentwire",
            "latent_space": space,
            "compressions": served,
        }
        return {"object": "list", "data": [{"id": name, **about} for name in server.readers]}

    @app.get("/playground", include_in_schema=False)
    async def playground() -> Response:
        return HTMLResponse(PAGE.read_text(encoding="utf-8"))


def _latent_routes(app: FastAPI, server: Server) -> None:
    @app.post("/v1/latents")
    async def encode(body: EncodeRequest) -> dict[str, Any]:
        """Encode a text once, for any reader and any number of questions."""
        message = await asyncio.to_thread(server.known, body)
        cached = message is not None
        if message is None:
            with server.meters.encode.time():
                latent = await server.encodings.latent(body.text, body.compression, body.codec)
            message = await asyncio.to_thread(server.message, body, latent)
        answer: dict[str, Any] = {"object": "latent", "id": None}
        if body.store:
            expires = None if body.expires_in is None else time.time() + body.expires_in
            answer["id"] = await asyncio.to_thread(server.store.put, message, body.metadata, expires)
        if body.include_data:
            answer["data"] = base64.b64encode(message).decode()
        header = read_header(message, server.settings.limits)
        usage: dict[str, Any] = {"prompt_tokens": header.source_tokens, "total_tokens": header.source_tokens}
        usage["prompt_tokens_details"] = {"cached_tokens": header.source_tokens * cached}
        about = {"vectors": header.vectors, "width": header.width, "space": header.space, "bytes": len(message)}
        return {**answer, **about, "usage": usage}

    @app.get("/v1/latents")
    async def entries(limit: int = 100, after: str = "") -> dict[str, Any]:
        """What the store holds, in the order of ids."""
        if not 1 <= limit <= 1000:
            raise RequestError(f"expected a limit of 1 to 1,000, got {limit}", "limit")
        found = await asyncio.to_thread(server.store.list, limit, after)
        return {"object": "list", "data": [asdict(entry) for entry in found]}

    @app.get("/v1/latents/{name}")
    async def fetch(name: str) -> dict[str, Any]:
        """A stored latent and what is known of it."""
        entry = await asyncio.to_thread(server.store.entry, name)
        message = await asyncio.to_thread(server.store.get, name)
        return {"object": "latent", **asdict(entry), "data": base64.b64encode(message).decode()}

    @app.delete("/v1/latents/{name}")
    async def forget(name: str) -> dict[str, Any]:
        """Forget a stored latent."""
        await asyncio.to_thread(server.store.entry, name)
        return {"object": "latent", "id": name, "deleted": await asyncio.to_thread(server.store.delete, name)}


def _answer_routes(app: FastAPI, server: Server) -> None:
    @app.post("/v1/chat/completions")
    async def chat(body: ChatRequest, http: Request) -> Response:
        """Answer a conversation whose messages may hold latents."""
        body.refuse_what_cannot_work(IDLE)
        reader = server.reader(body.model)
        laid = await server.laid(lambda: laid_out(body.messages, server.wire, reader, server.receiver))
        most = body.max_completion_tokens or body.max_tokens
        plain = reader.prompter.layout.style == "plain"  # where a line break is what ends an answer
        answering = _submitted(server, "chat.completion", body, laid, most, plain)
        return await _answered(server, answering, body, http)

    @app.post("/v1/completions")
    async def complete(body: CompletionRequest, http: Request) -> Response:
        """Continue a text, with or without latents before it."""
        body.refuse_what_cannot_work(IDLE)
        reader = server.reader(body.model)
        laid = await server.laid(lambda: continued(body.prompt, body.latents, server.wire, reader, server.receiver))
        answering = _submitted(server, "text_completion", body, laid, body.max_tokens, False)
        return await _answered(server, answering, body, http)


def _submitted(server: Server, kind: str, body: Sampling, laid: Laid, most: int | None, one_line: bool) -> Answering:
    reader = server.reader(body.model)
    room = reader.most_positions - len(laid.embeds)
    if room < (most or 1):
        raise RequestError(
            f"expected at most {reader.most_positions} positions for prompt and answer, got {len(laid.embeds)} and"
            f" {most or 1}; leave some of it out or compress it further"
        )
    return submit(server.engine, kind, body, body.model, laid, most, one_line)


async def _answered(server: Server, answering: Answering, body: Sampling, http: Request) -> Response:
    if body.stream:
        usage = body.stream_options is not None and body.stream_options.include_usage
        events = streamed(answering, http, server.meters, usage)
        return StreamingResponse(events, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})
    try:
        return JSONResponse(await finished(answering, http, server.meters))
    except ClientGoneError:
        return Response(status_code=499)
    except RuntimeError as error:
        return refusal(500, f"the answer failed: {error}")
