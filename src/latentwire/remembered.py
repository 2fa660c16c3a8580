"""What frozen models make of a text, remembered while an evaluation lasts, whose rungs ask for the same again and again.

with remembering():  recall(key, make) ─▶ what was made for the key      with anew():  made again, since time is taken
"""

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")
MOST_BYTES = 2**30


@dataclass
class _Memory:
    values: dict[Hashable, Any] = field(default_factory=dict)
    size: int = 0


_memory: ContextVar[_Memory | None] = ContextVar("memory", default=None)


@contextmanager
def remembering() -> Iterator[None]:
    """Inside, what is made for a key is made once, as long as it fits into a gibibyte together."""
    token = _memory.set(_Memory())
    try:
        yield
    finally:
        _memory.reset(token)


@contextmanager
def anew() -> Iterator[None]:
    """Inside, nothing is remembered."""
    token = _memory.set(None)
    try:
        yield
    finally:
        _memory.reset(token)


def recall(key: Hashable, make: Callable[[], T], size: Callable[[T], int]) -> T:
    """What `make` makes, or made for this key before; `size` counts its bytes.

    The key says everything that the value depends on, what else is in the batch included: its last bits depend on that.
    """
    memory = _memory.get()
    if memory is None:
        return make()
    if key in memory.values:
        found: T = memory.values[key]
        return found
    value = make()
    if memory.size + size(value) <= MOST_BYTES:
        memory.values[key] = value
        memory.size += size(value)
    return value


def remembered_bytes() -> int:
    """Bytes of what is remembered."""
    memory = _memory.get()
    return 0 if memory is None else memory.size
