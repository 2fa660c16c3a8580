"""`Engine`: one thread that computes for all requests, which join and leave the running batch between two tokens.

submit ─▶ waiting (bounded) ─ prefill together ─▶ running rows ─ one token for all of them, again and again ─▶ each row's listener
                                                       ▲ joins as soon as a token is done, leaves when it stops or nobody listens

Continuous batching, not micro-batches: answers differ in length, and rows that run together share one reading of the weights for each
token, so a request that had to wait for a whole batch would wait for the longest answer in it. A model computes in one thread at a time
anyhow; what encodes a context is a job in the same queue.
"""

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from latentwire.errors import LatentWireError
from latentwire.reader import Reader
from latentwire.reader.inputs import pad_left
from latentwire.reader.state import State, merged, narrowed
from latentwire.serve.work import Finish, Job, Piece, Request, closing, full

log = logging.getLogger("latentwire")

IDLE_SECONDS = 0.05


class Engine:
    """Answers requests for several readers.

    Args:
        readers: By name.
        most_running: Rows of the running batch of a reader.
        most_waiting: Requests and jobs that wait; one more is refused.
        most_prefilled: Positions that are read at a time, so that rows that run are not held up for long.
    """

    def __init__(
        self, readers: dict[str, Reader], most_running: int = 16, most_waiting: int = 64, most_prefilled: int = 2048
    ) -> None:
        self.readers = readers
        self.most_running, self.most_prefilled = most_running, most_prefilled
        self._waiting: queue.Queue[Request | Job] = queue.Queue(most_waiting)
        self._next: dict[str, deque[Request]] = {name: deque() for name in readers}
        self._running: dict[str, tuple[State, list[Request]] | None] = dict.fromkeys(readers)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="latentwire-engine", daemon=True)
        self._thread.start()

    def submit(self, work: Request | Job) -> None:
        """Put a request or job in line. Raises as `Working.submit`."""
        if self._closing.is_set():
            raise closing()
        try:
            self._waiting.put_nowait(work)
        except queue.Full:
            raise full(self._waiting.maxsize) from None

    @property
    def waiting(self) -> int:
        """Requests and jobs in line."""
        return self._waiting.qsize() + sum(map(len, self._next.values()))

    @property
    def running(self) -> int:
        """Rows that are being answered."""
        return sum(len(found[1]) for found in self._running.values() if found)

    @property
    def alive(self) -> bool:
        """Whether the thread computes."""
        return self._thread.is_alive()

    @property
    def closing(self) -> bool:
        """Whether it takes nothing more."""
        return self._closing.is_set()

    def close(self, seconds: float = 60.0) -> bool:
        """Take nothing more, finish what is in line, stop; whether all was finished in time."""
        self._closing.set()
        self._thread.join(seconds)
        return not self._thread.is_alive()

    @torch.no_grad()
    def _run(self) -> None:
        while True:
            idle = not self.running and not any(self._next.values())
            if idle and self._closing.is_set() and self._waiting.empty():
                return
            self._take(IDLE_SECONDS if idle else 0.0)
            for name in self.readers:
                self._guarded(name, self._join)
                self._guarded(name, self._step)

    def _take(self, seconds: float) -> None:
        """Sort what waits: requests by reader, up to a batch for each; a job is done at once, one between two tokens."""
        until = time.monotonic() + seconds
        while all(len(line) < self.most_running for line in self._next.values()):
            try:
                work = (
                    self._waiting.get(timeout=max(0.0, until - time.monotonic()))
                    if seconds
                    else self._waiting.get_nowait()
                )
            except queue.Empty:
                return
            seconds = 0.0
            if isinstance(work, Request):
                self._next[work.reader].append(work)
                continue
            if work.run():
                return

    def _guarded(self, name: str, act: Callable[[str], None]) -> None:
        """What goes wrong in one batch ends its requests, not the server."""
        try:
            act(name)
        except (LatentWireError, RuntimeError, MemoryError) as error:
            log.exception("a batch failed")
            found, self._running[name] = self._running[name], None
            for request in [*(found[1] if found else ()), *self._next[name]]:
                request.listener(Piece("", len(request.ids), "error", str(error)))
            self._next[name].clear()

    def _join(self, name: str) -> None:
        """Read the prompts of those next in line and let them join."""
        line, running = self._next[name], self._running[name]
        for request in [request for request in line if request.cancelled]:
            line.remove(request)
            request.listener(Piece("", 0, "cancelled"))
        joining: list[Request] = []
        positions = 0
        for request in list(line)[: self.most_running - (len(running[1]) if running else 0)]:
            positions += len(request.embeds)
            if joining and (positions > self.most_prefilled or request.opening != joining[0].opening):
                break
            joining.append(request)
        if not joining:
            return
        state = self._read(self.readers[name], joining)
        for request in joining:
            line.remove(request)
        if running is None:
            self._running[name] = state, joining
        else:
            self._running[name] = merged([running[0], state]), running[1] + joining

    @staticmethod
    def _read(reader: Reader, requests: Sequence[Request]) -> State:
        inputs = pad_left([request.embeds.to(reader.device, reader.dtype) for request in requests])
        inputs = type(inputs)(inputs.embeds, inputs.mask, requests[0].opening)
        return reader.prefill(inputs, max(request.max_tokens for request in requests))

    def _step(self, name: str) -> None:
        """One token for each row; rows that end leave."""
        found = self._running[name]
        if found is None:
            return
        reader, (state, requests) = self.readers[name], found
        tokens = self._choose(reader.head(state.hidden).float(), requests)
        going = [place for place, request in enumerate(requests) if self._deliver(reader, request, tokens[place])]
        if not going:
            self._running[name] = None
            return
        if len(going) < len(requests):
            state = narrowed(state, torch.tensor(going, device=state.mask.device))
            state = _trimmed(state)
        ids = torch.tensor([[tokens[place]] for place in going])
        _, state = reader.extend(
            state, ids.to(state.mask.device), torch.ones_like(ids, dtype=torch.bool).to(state.mask.device)
        )
        self._running[name] = state, [requests[place] for place in going]

    @staticmethod
    def _choose(logits: Tensor, requests: Sequence[Request]) -> list[int]:
        """The next token of each row: the likeliest, or one drawn."""
        chosen = logits.argmax(dim=-1).tolist()
        for place, request in enumerate(requests):
            if request.temperature > 0:
                odds, order = (logits[place] / request.temperature).softmax(dim=-1).sort(descending=True)
                odds[odds.cumsum(dim=0) - odds >= request.top_p] = 0.0
                if request.draws is None:
                    request.draws = torch.Generator(odds.device).manual_seed(request.seed)
                chosen[place] = int(order[torch.multinomial(odds, 1, generator=request.draws)])
        return [int(token) for token in chosen]

    @staticmethod
    def _deliver(reader: Reader, request: Request, token: int) -> bool:
        """Hand on what a token adds to the text; whether the row goes on."""
        if request.cancelled:
            request.listener(Piece("", len(request.ids), "cancelled"))
            return False
        request.ids.append(token)
        ends = reader.stops(token) if request.one_line else token in reader.end_ids
        finish: Finish | None = "stop" if ends else "length" if len(request.ids) >= request.max_tokens else None
        text = reader.text(request.ids, request.one_line)
        for stop in request.stops:
            if stop in text:
                text, finish = text[: text.index(stop)], "stop"
        held = 0 if finish else _held(text, request.stops)
        ready = text[: len(text) - held]
        if finish is None and ready.endswith("\ufffd"):
            ready = ready.rstrip("\ufffd")  # half of a character: the rest comes with the next token
        added = ready[len(request.sent) :] if ready.startswith(request.sent) else ""
        request.sent += added
        request.listener(Piece(added, len(request.ids), finish))
        return finish is None


def _held(text: str, stops: Sequence[str]) -> int:
    """How much of a text's end may be the beginning of a stop, and must wait for the next token."""
    return max(
        (size for stop in stops for size in range(1, len(stop)) if text.endswith(stop[:size])),
        default=0,
    )


def _trimmed(state: State) -> State:
    """A state without columns that no row of it uses, where no layer has dropped any already."""
    unused = int(state.mask.any(dim=0).long().argmax())
    sliding = any(layer.keys.shape[2] < state.mask.shape[1] for layer in state.cache.layers)
    if not unused or sliding:
        return state
    for layer in state.cache.layers:
        layer.keys, layer.values = layer.keys[:, :, unused:], layer.values[:, :, unused:]
        if hasattr(layer, "cumulative_length"):
            layer.cumulative_length -= unused
    return State(state.cache, state.mask[:, unused:], state.hidden)
