"""`Client`: a server's latents and answers from Python. Needs httpx and tenacity; no model and no torch.

client = latentwire.Client("http://localhost:8000")
latent = client.encode(text)
print(client.answer("Who ...?", [latent], model="smollm2-135m").text)
"""

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import httpx
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt, wait_exponential, wait_random

from latentwire import errors
from latentwire.errors import BusyError, LatentWireError, ServerError
from latentwire.wire_format import Message, unpack

AGAIN = (429, 502, 503, 504)  # statuses after which another try may succeed: nothing was done
LONGEST_WAIT = 30.0
LONGER = wait_exponential(multiplier=0.2, max=LONGEST_WAIT) + wait_random(0, 0.2)


@dataclass(frozen=True, slots=True)
class RemoteLatent:
    """A latent on a server, or one that came from it.

    Attributes:
        id: Under which the server keeps it; None if it does not.
        data: The message, if it was asked for.
        vectors: Number of vectors.
        space: Fingerprint of the latent space.
        source_tokens: Tokens that it stands for.
    """

    id: str | None
    data: bytes | None
    vectors: int
    space: str
    source_tokens: int

    def message(self, key: bytes | None = None) -> Message:
        """The message, read and checked.

        Raises:
            LatentError: It is wrong, or was not asked for.
        """
        if self.data is None:
            raise errors.LatentError("expected a latent's bytes, got its id alone; fetch it with client.get")
        return unpack(self.data, key=key)

    def part(self) -> dict[str, str]:
        """How a message names it: by its id where it has one."""
        if self.id is not None:
            return {"type": "latent", "id": self.id}
        return {"type": "latent", "data": base64.b64encode(self.data or b"").decode()}


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer and what it cost."""

    text: str
    finish: str
    positions: int
    tokens: int
    latent_bytes: int


class Client:
    """A server, from afar.

    Args:
        url: Where it listens.
        api_key: One of its keys, if it has any.
        timeout: Seconds that an answer may take.
        attempts: How often a request is sent at most where the server is busy or cannot be reached; waits grow, and the server's
            Retry-After is heeded.
        transport: Another way to it than over the network.
    """

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        timeout: float = 120.0,
        attempts: int = 5,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout, transport=transport)
        self._attempts = attempts

    def __enter__(self) -> "Client":
        """The client itself; it closes at the end."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def models(self) -> list[dict[str, Any]]:
        """The readers, each with the latent space that it reads."""
        found: list[dict[str, Any]] = self._call("GET", "/v1/models")["data"]
        return found

    def encode(
        self,
        text: str,
        name: str = "",
        compression: int | None = None,
        codec: str | None = None,
        metadata: Mapping[str, str] | None = None,
        expires_in: float | None = None,
        store: bool = True,
        data: bool = True,
    ) -> RemoteLatent:
        """A text's latent, kept by the server if `store`, with its bytes if `data`.

        Raises:
            LatentWireError: As the server refuses it; `ServerError` where it cannot be reached or fails.
        """
        body = {
            "text": text,
            "name": name,
            "compression": compression,
            "codec": codec,
            "metadata": dict(metadata or {}),
            "expires_in": expires_in,
            "store": store,
            "include_data": data,
        }
        made = self._call("POST", "/v1/latents", body)
        return _latent(made, made["usage"]["prompt_tokens"])

    def get(self, name: str) -> RemoteLatent:
        """The stored latent with an id. Raises `NotStoredError` where there is none."""
        found = self._call("GET", f"/v1/latents/{name}")
        return _latent(found, found["source_tokens"])

    def list(self, limit: int = 100, after: str = "") -> list[dict[str, Any]]:
        """What the store holds, in the order of ids, from the one after `after` on."""
        found: list[dict[str, Any]] = self._call("GET", "/v1/latents", params={"limit": limit, "after": after})["data"]
        return found

    def delete(self, name: str) -> None:
        """Have the server forget a latent. Raises `NotStoredError` where there is none."""
        self._call("DELETE", f"/v1/latents/{name}")

    def answer(
        self, question: str, contexts: Sequence[RemoteLatent | str], model: str, max_tokens: int = 32, **fields: Any
    ) -> Answer:
        """The answer to a question about latents and texts, in order. `fields` are those of OpenAI's chats.

        Raises:
            LatentWireError: As `encode`.
        """
        done = self._call("POST", "/v1/chat/completions", _asked(question, contexts, model, max_tokens, fields))
        choice, usage = done["choices"][0], done["usage"]
        return Answer(
            choice["message"]["content"],
            choice["finish_reason"],
            usage["prompt_tokens"],
            usage["completion_tokens"],
            usage["latent_bytes"],
        )

    def stream(
        self, question: str, contexts: Sequence[RemoteLatent | str], model: str, max_tokens: int = 32, **fields: Any
    ) -> Iterator[str]:
        """The same answer as it comes. Leaving the loop early stops the server's work."""
        body = {**_asked(question, contexts, model, max_tokens, fields), "stream": True}
        for attempt in self._tries():
            with attempt:
                answer = self._send("POST", "/v1/chat/completions", body, stream=True)
        try:
            for line in answer.iter_lines():
                if not line.startswith("data: ") or line == "data: [DONE]":
                    continue
                event = json.loads(line[6:])
                if "error" in event:
                    raise ServerError(event["error"]["message"])
                for choice in event["choices"]:
                    if text := choice["delta"].get("content"):
                        yield text
        except httpx.HTTPError as error:
            raise ServerError(f"expected the rest of the answer, got: {error}; ask again") from None
        finally:
            answer.close()

    def _call(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, params: Mapping[str, Any] | None = None
    ) -> Any:
        for attempt in self._tries():
            with attempt:
                answer = self._send(method, path, body, params)
        return answer.json()

    def _send(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
        params: Mapping[str, Any] | None = None,
        stream: bool = False,
    ) -> httpx.Response:
        request = self._http.build_request(method, path, json=body, params=params)
        try:
            answer = self._http.send(request, stream=stream)
            if answer.is_error:
                answer.read()
        except httpx.TransportError as error:
            raise UnreachableError(
                f"expected a server at {self._http.base_url}, got: {error}; start it, or mend the url"
            ) from None
        if answer.is_error:
            raise _error(answer)
        return answer

    def _tries(self) -> Retrying:
        return Retrying(
            stop=stop_after_attempt(self._attempts),
            wait=_wait,
            retry=retry_if_exception(lambda error: isinstance(error, (BusyError, UnreachableError))),
            reraise=True,
        )


class UnreachableError(ServerError):
    """A server that cannot be reached."""


def _wait(state: RetryCallState) -> float:
    """What the server asks for, or longer each time."""
    error = state.outcome.exception() if state.outcome else None
    asked = float(getattr(error, "retry_after", 0.0))
    return min(LONGEST_WAIT, max(asked, LONGER(state)))


def _error(answer: httpx.Response) -> LatentWireError:
    """The server's error as the one that it was there."""
    try:
        said = answer.json()["error"]
        message, code = str(said["message"]), said["code"]
    except (ValueError, KeyError, TypeError):
        message, code = f"expected an answer, got status {answer.status_code}", None
    if answer.status_code in AGAIN:
        busy = BusyError(message)
        busy.retry_after = float(answer.headers.get("Retry-After", "0"))
        return busy
    kind = getattr(errors, "UnknownReaderError" if code == "model_not_found" else str(code), ServerError)
    if not (isinstance(kind, type) and issubclass(kind, LatentWireError)):
        kind = ServerError
    return kind(message)


def _asked(
    question: str, contexts: Sequence[RemoteLatent | str], model: str, max_tokens: int, fields: Mapping[str, Any]
) -> dict[str, Any]:
    parts = [{"type": "text", "text": one} if isinstance(one, str) else one.part() for one in contexts]
    content = [*parts, {"type": "text", "text": question}]
    return {"model": model, "messages": [{"role": "user", "content": content}], "max_tokens": max_tokens, **fields}


def _latent(made: Mapping[str, Any], tokens: int) -> RemoteLatent:
    data = base64.b64decode(made["data"]) if made.get("data") else None
    return RemoteLatent(made["id"], data, made["vectors"], made["space"], tokens)
