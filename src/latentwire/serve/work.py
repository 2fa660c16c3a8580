"""What an engine takes and gives: requests and jobs in, pieces of answers out; and what every engine can do."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol

import torch
from torch import Tensor

from latentwire.errors import BusyError, ClosingError, LatentWireError

log = logging.getLogger("latentwire")

Finish = Literal["stop", "length", "cancelled", "error"]


@dataclass(frozen=True, slots=True)
class Piece:
    """What a listener gets: text that came, and how it ended, if it did."""

    text: str
    tokens: int
    finish: Finish | None = None
    error: str = ""


@dataclass(eq=False)
class Request:
    """One prompt to be answered.

    Attributes:
        reader: Name of the reader.
        embeds: `[T, D]`, the whole prompt as the reader's embeddings.
        max_tokens: The most that is answered.
        listener: Called in the engine's thread with each piece; it must not block.
        opening: Token ids that `embeds` begins with and other prompts may begin with too.
        stops: Texts that end the answer, which they are no part of.
        one_line: Whether a line break ends it too.
        temperature: 0 takes the likeliest token.
        top_p: Tokens are drawn from the likeliest that make up this share.
        seed: Of the draws.
    """

    reader: str
    embeds: Tensor
    max_tokens: int
    listener: Callable[[Piece], None]
    opening: tuple[int, ...] = ()
    stops: tuple[str, ...] = ()
    one_line: bool = True
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    cancelled: bool = False
    ids: list[int] = field(default_factory=list)
    sent: str = ""
    draws: torch.Generator | None = None


@dataclass(eq=False)
class Job:
    """Any other work in the models' thread, such as encoding.

    Attributes:
        work: Does it, and tells whether there was anything to do.
    """

    work: Callable[[], bool]

    def run(self) -> bool:
        """Do it; whether there was anything to do. What it raises is logged, and ends nobody else's work."""
        try:
            return self.work()
        except (LatentWireError, RuntimeError, MemoryError):
            log.exception("a job failed")
            return True


def closing() -> ClosingError:
    """What an engine that is being closed says to more work."""
    return ClosingError("expected a server that takes requests, got one that is shutting down; ask another")


def full(most: int) -> BusyError:
    """What an engine whose line is full says to more work."""
    return BusyError(f"expected fewer than {most} waiting requests, got that many; try again")


class Working(Protocol):
    """An engine: it takes work until it is closed, and tells each listener what came of it."""

    @property
    def waiting(self) -> int:
        """Requests and jobs in line."""
        ...

    @property
    def running(self) -> int:
        """Requests that are being answered."""
        ...

    @property
    def alive(self) -> bool:
        """Whether it computes."""
        ...

    @property
    def closing(self) -> bool:
        """Whether it takes nothing more."""
        ...

    def submit(self, work: Request | Job) -> None:
        """Put a request or job in line.

        Raises:
            BusyError: The line is full.
            ClosingError: The engine is closing.
        """
        ...

    def close(self, seconds: float = 60.0) -> bool:
        """Take nothing more, finish what is in line, stop; whether all was finished in time."""
        ...
