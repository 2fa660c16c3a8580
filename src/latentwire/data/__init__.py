"""Where questions come from: `Example`, the `DATASETS` registry, and the checks every data set passes.

A data set is a dataclass whose fields are its configuration and whose `examples(split, seed, limit)` returns examples.
To add one, write `data/<name>.py` with `@DATASETS.register("<name>")` and import it at the end of this file.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from latentwire.errors import DataError
from latentwire.registry import Registry

Split = Literal["train", "heldout", "all"]
HELDOUT_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class Example:
    """One question about one context.

    `group` names what the context belongs to (an article); splits never cut through a group.
    `answers` holds at least one accepted answer, the first is the one that training sees.
    `source` is the text that the context was cut from, where it was.
    """

    id: str
    context: str
    question: str
    answers: tuple[str, ...]
    group: str = ""
    source: str = ""


class Dataset(Protocol):
    """What a registered data set offers."""

    def examples(self, split: Split, seed: int, limit: int | None) -> list[Example]:
        """`limit` examples of `split` (all when None), in an order that `seed` fixes.

        Raises:
            DataError: Malformed input, or fewer examples than `limit`.
        """
        ...


DATASETS: Registry[type[Dataset]] = Registry("dataset", group="latentwire.datasets")


def context_hash(context: str) -> str:
    """Identity of a context: SHA-256 of its text with white space runs made single."""
    return hashlib.sha256(" ".join(context.split()).encode()).hexdigest()


def in_split(group: str, split: Split) -> bool:
    """Whether a group belongs to `split`: a fixed tenth of the groups, chosen by hash, is held out."""
    if split == "all":
        return True
    held_out = int(hashlib.sha256(group.encode()).hexdigest()[:8], 16) / 16**8 < HELDOUT_SHARE
    return held_out == (split == "heldout")


def check(example: Example, where: str) -> Example:
    """The example itself, or `DataError` naming `where` when context, question or answers are empty."""
    for field in ("id", "context", "question"):
        if not getattr(example, field).strip():
            raise DataError(f"{where}: expected a non-empty {field}, got an empty one; fix or remove the entry")
    if not example.answers or not all(answer.strip() for answer in example.answers):
        raise DataError(f"{where}: expected at least one non-empty answer, got none; fix or remove the entry")
    return example


def select(examples: Sequence[Example], split: Split, seed: int, limit: int | None, where: str) -> list[Example]:
    """The split's examples in the order that `seed` fixes, cut to `limit`.

    Raises:
        DataError: No example in the split, duplicate ids, or fewer examples than `limit`.
    """
    chosen = [example for example in examples if in_split(example.group, split)]
    if not chosen:
        got = f"none of {len(examples)}, in {len({example.group for example in examples})} groups"
        raise DataError(f"{where} (split '{split}'): expected examples, got {got}; use split 'all' or more groups")
    return shuffled(chosen, seed, limit, f"{where} (split '{split}')")


def shuffled(examples: Sequence[Example], seed: int, limit: int | None, where: str) -> list[Example]:
    """Examples in the order that `seed` fixes, cut to `limit`; the order of one does not depend on the others.

    Raises:
        DataError: Duplicate ids, or fewer examples than `limit`.
    """
    seen: set[str] = set()
    for example in examples:
        if example.id in seen:
            raise DataError(f"{where}: expected unique ids, got {example.id!r} twice; rename or remove one")
        seen.add(example.id)
    if limit is not None and len(examples) < limit:
        raise DataError(f"{where}: expected {limit} examples, got {len(examples)}; ask for at most {len(examples)}")
    ordered = sorted(examples, key=lambda example: hashlib.sha256(f"{seed}\0{example.id}".encode()).digest())
    return ordered[:limit]


def refuse_overlap(train: Iterable[Example], evaluation: Iterable[Example]) -> None:
    """Raise `DataError` when a context of `evaluation` also stands in `train` (compared by hash)."""
    known = {context_hash(example.source or example.context): example.id for example in train}
    for example in evaluation:
        twin = known.get(context_hash(example.source or example.context))
        if twin is not None:
            raise DataError(
                f"evaluation example '{example.id}' has the same context as training example '{twin}': expected disjoint"
                " contexts; use other splits or files"
            )


from latentwire.data import facts, hotpotqa, hub, jsonl, passages, squad  # noqa: E402, F401
