"""`hub`: any data set of the Hugging Face hub, or a folder that its `datasets` library can read."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from latentwire.data import DATASETS, Example, Split, select
from latentwire.data.columns import Columns
from latentwire.errors import DataError


@DATASETS.register("hub")
@dataclass(frozen=True)
class Hub(Columns):
    """Questions from a hub data set; a row without an id is named `<path>[<hub_split>]:<row>`.

    The hub's own splits only choose the rows; train and held-out groups are cut from those as everywhere else.

    Attributes:
        path: Hub id ("rajpurkar/squad") or local folder of JSON, CSV or Parquet files.
        subset: The hub's "configuration" of the set, where it has several.
        hub_split: The hub's split to read.
    """

    path: str
    subset: str | None = None
    hub_split: str = "train"

    def examples(self, split: Split, seed: int, limit: int | None) -> list[Example]:
        """`limit` questions of the split's groups (all when None), in the order that `seed` fixes.

        Raises:
            DataError: `datasets` not installed, a set that cannot be loaded, malformed rows, or too few questions.
        """
        where = f"{self.path}[{self.hub_split}]"
        rows = enumerate(_load(self.path, self.subset, self.hub_split))
        found = [self.example(row, f"{where}:{number}", f"{where}, row {number}") for number, row in rows]
        return select(found, split, seed, limit, where)


def _load(path: str, subset: str | None, hub_split: str) -> Iterator[object]:
    """The rows. Some files show only while they are read that they are no good."""
    try:
        import datasets
    except ImportError:
        install = "pip install 'latentwire[hub]'"
        raise DataError(f"{path}: expected the `datasets` library for hub data, found none; {install}") from None
    try:
        rows: Iterable[object] = datasets.load_dataset(path, name=subset, split=hub_split)
        yield from rows
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        got = " ".join(f"{type(error).__name__}: {error}".split())
        todo = "check id, subset, hub_split and the network"
        raise DataError(f"{path}: expected a hub data set or a folder of one, got '{got}'; {todo}") from None
