"""`squad`: a file in SQuAD v1.1 format, or a folder of them. Its articles are the groups that splits keep whole.

Source: Rajpurkar et al. 2016, arXiv 1606.05250. The many sets in this format (SQuADShifts, XQuAD, ...) load as well.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentwire.data import DATASETS, Example, Split, check, select
from latentwire.data.files import data_files, member, parse_json, quote, read_text
from latentwire.errors import DataError


@DATASETS.register("squad")
@dataclass(frozen=True)
class Squad:
    """SQuAD v1.1 questions; answers without repetition, in the file's order.

    A set that has only one title is one group: it lies in one split as a whole; use split "all" there.

    Attributes:
        path: A JSON file, or a folder of which every `*.json` is read.
    """

    path: str | Path

    def examples(self, split: Split, seed: int, limit: int | None) -> list[Example]:
        """`limit` questions of the split's articles (all when None), in the order that `seed` fixes.

        Raises:
            DataError: Malformed files, an answer that is not at its place, no answers, or too few questions.
        """
        found = [example for file in data_files(self.path, ".json") for example in _read(file)]
        return select(found, split, seed, limit, str(self.path))


def _read(file: Path) -> Iterator[Example]:
    for number, article in enumerate(member(parse_json(read_text(file), str(file)), "data", list, str(file)), start=1):
        where = f"{file}, article {number}"
        title = member(article, "title", str, where)
        for paragraph in member(article, "paragraphs", list, where):
            context = member(paragraph, "context", str, where)
            for question in member(paragraph, "qas", list, where):
                identity = member(question, "id", str, where)
                here = f"{file}, question {quote(identity)}"
                text, answers = member(question, "question", str, here), _answers(question, context, here)
                yield check(Example(identity, context, text, answers, title), here)


def _answers(question: dict[str, Any], context: str, where: str) -> tuple[str, ...]:
    entries = member(question, "answers", list, where)
    if question.get("is_impossible") or not entries:
        raise DataError(f"{where}: expected answers, got a question with no answers; remove it or use SQuAD v1.1")
    return tuple(dict.fromkeys(_answer(entry, context, where) for entry in entries))


def _answer(entry: object, context: str, where: str) -> str:
    text, start = member(entry, "text", str, where), member(entry, "answer_start", int, where)
    found = context[start : start + len(text)] if start >= 0 else ""
    if found != text:
        got = f"{quote(found)} at answer_start {start}"
        raise DataError(f"{where}: expected {quote(text)} in the context, got {got}; correct answer_start or the text")
    return text
