"""`jsonl`: your own questions, one JSON object per line, with field names of your choice."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from latentwire.data import DATASETS, Example, Split, select
from latentwire.data.columns import Columns
from latentwire.data.files import data_files, parse_json, read_text


@DATASETS.register("jsonl")
@dataclass(frozen=True)
class Jsonl(Columns):
    """Questions from JSON lines; a row without an id is named `<file name>:<line>`. Empty lines are skipped.

    Attributes:
        path: A file, or a folder of which every `*.jsonl` is read.
    """

    path: str | Path

    def examples(self, split: Split, seed: int, limit: int | None) -> list[Example]:
        """`limit` questions of the split's groups (all when None), in the order that `seed` fixes.

        Raises:
            DataError: Malformed lines, missing fields, duplicate ids, or too few questions.
        """
        found = [example for file in data_files(self.path, ".jsonl") for example in self._read(file)]
        return select(found, split, seed, limit, str(self.path))

    def _read(self, file: Path) -> Iterator[Example]:
        # Not `splitlines`: it also cuts at U+2028, which may stand inside a JSON string.
        for number, line in enumerate(read_text(file).split("\n"), start=1):
            if line.strip():
                where = f"{file}:{number}"
                yield self.example(parse_json(line, where), f"{file.name}:{number}", where)
