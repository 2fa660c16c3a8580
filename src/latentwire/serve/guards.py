"""What stands before every route: API keys, the size of bodies, and errors in OpenAI's envelope."""

import base64
import binascii
import contextlib
import hmac
import logging
from collections.abc import Callable, Collection
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from latentwire.errors import BusyError, ClosingError, ExpiryError, LatentWireError, NotStoredError, StoreError

log = logging.getLogger("latentwire")

OPEN = ("/health", "/ready")
KINDS = {400: "invalid_request_error", 401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}


def refusal(status: int, message: str, code: str | None = None, param: str | None = None) -> JSONResponse:
    """An error as OpenAI's clients read it."""
    kind = KINDS.get(status, "invalid_request_error" if status < 500 else "server_error")
    error = {"message": message, "type": kind, "param": param, "code": code}
    headers = {"Retry-After": "1"} if status in (429, 503) else {}
    answer = JSONResponse({"error": error}, status, headers)
    for way in ("Bearer", 'Basic realm="an API key as the password"') if status == 401 else ():
        answer.headers.append("WWW-Authenticate", way)  # a line each: browsers read no list
    return answer


def status_of(error: LatentWireError) -> int:
    """The HTTP status of an error."""
    if isinstance(error, NotStoredError):
        return 404
    if isinstance(error, StoreError):
        return 400 if isinstance(error, ExpiryError) else 503
    if isinstance(error, BusyError):
        return 503 if isinstance(error, ClosingError) else 429
    return 400


def add_errors(app: FastAPI, count: Callable[[str], None]) -> None:
    """Answer every error in the envelope, and count those that are the client's."""

    @app.exception_handler(LatentWireError)
    async def refused(_: Request, error: LatentWireError) -> JSONResponse:
        count(type(error).__name__)
        return refusal(status_of(error), str(error), type(error).__name__, getattr(error, "param", None))

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        count("RequestValidationError")
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"] if part != "body") or None
        message = f"expected a request as the OpenAPI page describes it, got at {where or 'its body'}: {first['msg']}"
        return refusal(400, message, "invalid_request", where)

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> JSONResponse:
        answer = refusal(error.status_code, str(error.detail))
        answer.headers.update(error.headers or {})
        return answer


class Keys:
    """Lets only requests with one of the keys through, to all routes but health; browsers may give it as a password."""

    def __init__(self, app: ASGIApp, keys: Collection[str]) -> None:
        self.app, self.keys = app, [key.encode() for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or pass on."""
        if scope["type"] == "http" and self.keys and scope["path"] not in OPEN:
            token = _token(dict(scope["headers"]).get(b"authorization", b""))
            matches = [hmac.compare_digest(token, key) for key in self.keys]
            if not any(matches):
                message = "expected an API key as 'Authorization: Bearer ...', got none or another; ask the operator"
                await refusal(401, message, "invalid_api_key")(scope, receive, send)
                return
        await self.app(scope, receive, send)


def _token(given: bytes) -> bytes:
    """The key of an `Authorization` header: a bearer's token, or the password that a browser asks for."""
    scheme, _, value = given.partition(b" ")
    if scheme.lower() == b"basic":
        with contextlib.suppress(binascii.Error):
            return base64.b64decode(value, validate=True).partition(b":")[2]
    return value.strip() if scheme.lower() == b"bearer" else b""


class BodyLimit:
    """Refuses a body that is, or becomes, larger than the limit."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self.app, self.limit = app, limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, unless it is refused."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        message = f"expected a body of at most {self.limit:,} bytes, got more; send less"
        said = dict(scope["headers"]).get(b"content-length", b"0")
        if said.isdigit() and int(said) > self.limit:
            await refusal(413, message, "body_too_large")(scope, receive, send)
            return
        seen, begun = 0, False

        async def counted() -> Message:
            nonlocal seen
            part = await receive()
            seen += len(part.get("body", b""))
            if seen > self.limit:
                raise HTTPException(413, message)
            return part

        async def noted(part: Message) -> None:
            nonlocal begun
            begun = begun or part["type"] == "http.response.start"
            await send(part)

        try:
            await self.app(scope, counted, noted)
        except HTTPException as error:
            if begun:
                raise
            await refusal(error.status_code, str(error.detail), "body_too_large")(scope, receive, send)


def envelope() -> dict[int | str, dict[str, Any]]:
    """What the OpenAPI page says of errors."""
    return {status: {"description": words} for status, words in DESCRIBED.items()}


DESCRIBED = {
    400: "The request is wrong: the error says what was expected.",
    401: "No API key, or another.",
    404: "No such reader or latent.",
    413: "The body is too large.",
    429: "As many requests wait as the server holds; Retry-After says when to come again.",
    503: "The server is shutting down, or its store cannot be used.",
}
