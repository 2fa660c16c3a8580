"""`Encodings`: texts that wait to be encoded. The first whose turn comes takes those behind it along.

POST /v1/latents ─ latent ─▶ a job in the engine's line ─ its turn ─▶ one encoding of its text and of others in line ─▶ each one's latent

A job is done between two tokens of those that are being answered, so that each would cost everyone a wait; and a model reads several
texts together in less time than one after another.
"""

import asyncio
import logging
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from latentwire.errors import LatentWireError
from latentwire.latent import Latent
from latentwire.serve.work import Job, Working
from latentwire.wire import Wire

log = logging.getLogger("latentwire")

MOST_CHARACTERS = 8192  # of texts that are encoded together: some 2,048 tokens, as many as prompts are read at a time


@dataclass(eq=False)
class _Wanted:
    """A text that somebody waits for."""

    text: str
    compression: int | None
    codec: str | None
    found: "Future[Latent]" = field(default_factory=Future)


class Encodings:
    """Encodes for many clients.

    Args:
        wire: What encodes.
        engine: Whose thread computes.
    """

    def __init__(self, wire: Wire, engine: Working) -> None:
        self._wire, self._engine = wire, engine
        self._line: list[_Wanted] = []
        self._lock = threading.Lock()

    async def latent(self, text: str, compression: int | None, codec: str | None) -> Latent:
        """The latent of a text, once it is its turn.

        Raises:
            BusyError: The line is full.
            ClosingError: The engine is closing.
            LatentWireError, RuntimeError: As encoding does.
        """
        wanted = _Wanted(text, compression, codec)
        with self._lock:
            self._line.append(wanted)
        try:
            self._engine.submit(Job(lambda: self._serve(wanted)))
            return await asyncio.wrap_future(wanted.found)
        finally:
            self._leave([wanted])

    def _serve(self, first: _Wanted) -> bool:
        """Encode a text with others; whether there was anything to do."""
        group = self._together(first)
        for one, found in zip(group, self._encoded(group), strict=True):
            if isinstance(found, Latent):
                one.found.set_result(found)
            else:
                one.found.set_exception(found)
        return bool(group)

    def _together(self, first: _Wanted) -> list[_Wanted]:
        """A text and those in line of its form that fit beside it, in their order; none where nobody waits for it any more."""
        with self._lock:
            if first not in self._line:
                return []
            form, left, group = (first.compression, first.codec), MOST_CHARACTERS - len(first.text), [first]
            for one in self._line:
                if one is not first and (one.compression, one.codec) == form and len(one.text) <= left:
                    group.append(one)
                    left -= len(one.text)
        self._leave(group)
        return [one for one in group if one.found.set_running_or_notify_cancel()]

    def _leave(self, group: Sequence[_Wanted]) -> None:
        with self._lock:
            self._line = [one for one in self._line if one not in group]

    def _encoded(self, group: Sequence[_Wanted]) -> list[Latent | Exception]:
        """What became of each: encoded all at once or, where one of them is refused, one by one."""
        if not group:
            return []
        try:
            return list(self._wire.encode([one.text for one in group], group[0].compression, group[0].codec))
        except LatentWireError as error:
            problem: Exception = error
        except (RuntimeError, MemoryError) as error:
            log.exception("texts could not be encoded")
            problem = RuntimeError(str(error))
        if len(group) == 1:
            return [problem]
        return [found for one in group for found in self._encoded([one])]
