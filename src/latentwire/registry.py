"""Named classes and functions: how methods, data sets, objectives, compressors and decoders are found by name."""

import difflib
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from typing import Generic, TypeVar

from latentwire.errors import RegistryError

T = TypeVar("T")
Entry = TypeVar("Entry")


def nearest(name: str, names: list[str]) -> str:
    """A hint such as ``did you mean 'pca'?``, or the list of names where none is near."""
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    return f"did you mean '{close[0]}'?" if close else f"choose one of: {', '.join(sorted(names))}"


class Registry(Generic[T]):
    """Maps names to entries (classes or functions, never instances).

    Args:
        kind: What an entry is, in a user's words ("method"); used in messages.
        group: Entry-point group in which other packages may offer entries, loaded on the first miss.
    """

    def __init__(self, kind: str, group: str | None = None) -> None:
        self.kind = kind
        self._group = group
        self._entries: dict[str, T] = {}

    def register(self, name: str) -> Callable[[Entry], Entry]:
        """Decorator that files its target under ``name``; a name taken twice is a ``RegistryError``."""

        def add(entry: Entry) -> Entry:
            if name in self._entries:
                raise RegistryError(f"{self.kind} '{name}' is registered already; choose another name")
            self._entries[name] = entry  # type: ignore[assignment]
            return entry

        return add

    def __getitem__(self, name: str) -> T:
        """The entry called ``name``. Raises ``RegistryError`` with the nearest name."""
        if name not in self._entries:
            self._load_entry_points()
        if name not in self._entries:
            raise RegistryError(f"unknown {self.kind} '{name}': {nearest(name, list(self._entries))}")
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._entries))

    def _load_entry_points(self) -> None:
        if self._group is not None:
            for point in entry_points(group=self._group):
                point.load()
            self._group = None
