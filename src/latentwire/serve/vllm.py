"""`VllmEngine`: the same work, handed to vLLM servers: a prompt's embeddings go out as `prompt_embeds`, its text comes back.

Request (embeddings [T, D]) ─ torch.save, base64 ─▶ POST /v1/completions of the reader's vLLM server ─ events ─▶ pieces

vLLM must run with `--enable-prompt-embeds` and, because its prefix cache does not tell embeddings apart (vLLM issue 56655), with
`--no-enable-prefix-caching`; prompts are all embeddings. `torch.save` is what vLLM asks for: it stands on the sending side alone.
"""

import base64
import io
import json
import logging
import threading
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import httpx
import torch

from latentwire.errors import ServerError
from latentwire.reader import Reader
from latentwire.serve.work import Finish, Job, Piece, Request, closing, full

log = logging.getLogger("latentwire")


class VllmEngine:
    """Answers requests through vLLM.

    Args:
        readers: By name; what embeds.
        urls: Of each reader's vLLM server.
        most_running: Requests that are out at a time.
        most_waiting: Requests and jobs that wait; one more is refused.
        timeout: Seconds without a token after which an answer has failed.

    Raises:
        ServerError: A vLLM server cannot be reached.
    """

    def __init__(
        self,
        readers: Mapping[str, Reader],
        urls: Mapping[str, str],
        most_running: int = 64,
        most_waiting: int = 256,
        timeout: float = 120.0,
    ) -> None:
        self._readers = dict(readers)
        self._http = {name: httpx.Client(base_url=urls[name], timeout=timeout) for name in readers}
        self._models = {name: _model(http) for name, http in self._http.items()}
        self._out = ThreadPoolExecutor(most_running, "latentwire-vllm")
        self._jobs = ThreadPoolExecutor(1, "latentwire-engine")
        self._most, self._in_line, self._going = most_running + most_waiting, 0, 0
        self._lock, self._closing = threading.Lock(), threading.Event()

    @property
    def waiting(self) -> int:
        """Requests and jobs in line."""
        return self._in_line - self._going

    @property
    def running(self) -> int:
        """Requests that are out."""
        return self._going

    @property
    def alive(self) -> bool:
        """Whether it can take requests."""
        return not self._closing.is_set()

    @property
    def closing(self) -> bool:
        """Whether it takes nothing more."""
        return self._closing.is_set()

    def submit(self, work: Request | Job) -> None:
        """Put a request or job in line. Raises as `Working.submit`."""
        if self._closing.is_set():
            raise closing()
        with self._lock:
            if self._in_line >= self._most:
                raise full(self._most)
            self._in_line += 1
        pool = self._out if isinstance(work, Request) else self._jobs
        pool.submit(self._done, work).add_done_callback(self._left)

    def close(self, seconds: float = 60.0) -> bool:
        """Take nothing more, finish what is in line, stop; whether all was finished in time."""
        self._closing.set()

        def finish() -> None:
            self._out.shutdown()
            self._jobs.shutdown()

        waiter = threading.Thread(target=finish, daemon=True)
        waiter.start()
        waiter.join(seconds)
        for http in self._http.values():
            http.close()
        return not waiter.is_alive()

    def _left(self, _: Future[None]) -> None:
        with self._lock:
            self._in_line -= 1
            self._going -= 1

    def _done(self, work: Request | Job) -> None:
        with self._lock:
            self._going += 1
        if isinstance(work, Job):
            work.run()
            return
        if work.cancelled:
            work.listener(Piece("", 0, "cancelled"))
            return
        try:
            self._relay(work)
        except (httpx.HTTPError, ValueError, KeyError, ServerError) as error:
            log.exception("vLLM failed")
            work.listener(Piece("", len(work.ids), "error", f"vLLM: {error}"))

    def _relay(self, request: Request) -> None:
        """Send a prompt and hand on what comes back. Closing the stream early is what stops vLLM's work."""
        tokens, finish = 0, None
        with self._http[request.reader].stream("POST", "/v1/completions", json=self._body(request)) as answer:
            if answer.is_error:
                raise ServerError(f"status {answer.status_code}: {answer.read().decode(errors='replace')[:500]}")
            for line in answer.iter_lines():
                if request.cancelled:
                    request.listener(Piece("", tokens, "cancelled"))
                    return
                if not line.startswith("data: ") or line == "data: [DONE]":
                    continue
                event = json.loads(line[6:])
                tokens = (event.get("usage") or {}).get("completion_tokens", tokens)
                for choice in event["choices"]:
                    finish = choice["finish_reason"] or finish
                    if choice["text"]:
                        request.listener(Piece(choice["text"] if request.sent else choice["text"].lstrip(), tokens))
                        request.sent += choice["text"].lstrip() if not request.sent else choice["text"]
        ended: Finish = "length" if finish == "length" else "stop"
        request.listener(Piece("", tokens, ended))

    def _body(self, request: Request) -> dict[str, Any]:
        reader, packed = self._readers[request.reader], io.BytesIO()
        torch.save(request.embeds.to(torch.bfloat16 if reader.dtype == torch.float32 else reader.dtype).cpu(), packed)
        return {
            "model": self._models[request.reader],
            "prompt_embeds": base64.b64encode(packed.getvalue()).decode(),
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "seed": request.seed,
            "stop": [*request.stops, *(["\n"] if request.one_line else [])],
            "stop_token_ids": sorted(reader.stop_ids if request.one_line else reader.end_ids),
            "stream": True,
            "stream_options": {"include_usage": True, "continuous_usage_stats": True},
        }


def _model(http: httpx.Client) -> str:
    """What a vLLM server calls its model."""
    try:
        answer = http.get("/v1/models")
        answer.raise_for_status()
        return str(answer.json()["data"][0]["id"])
    except (httpx.HTTPError, ValueError, KeyError, IndexError) as error:
        raise ServerError(
            f"expected a vLLM server at {http.base_url}, got: {error}; start it with --enable-prompt-embeds"
        ) from None
