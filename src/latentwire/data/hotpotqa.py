"""`hotpotqa`: HotpotQA in its distractor setting: ten paragraphs, two of which the question needs.

Source: Yang et al. 2018, arXiv 1809.09600. Reads the published JSON and its Hugging Face form; supporting facts are
not used.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentwire.data import DATASETS, Example, Split, check, context_hash, select
from latentwire.data.files import data_files, describe, member, parse_json, read_text
from latentwire.errors import DataError


@DATASETS.register("hotpotqa")
@dataclass(frozen=True)
class HotpotQA:
    """HotpotQA questions; a context holds one line "Title: sentences" per paragraph, a group is one question.

    An entry without `_id` or `id` is named by the hash of its question and context.

    Attributes:
        path: A JSON file, or a folder of which every `*.json` is read.
    """

    path: str | Path

    def examples(self, split: Split, seed: int, limit: int | None) -> list[Example]:
        """`limit` questions of the split (all when None), in the order that `seed` fixes.

        Raises:
            DataError: Malformed files, duplicate ids, or too few questions.
        """
        found = [example for file in data_files(self.path, ".json") for example in _read(file)]
        return select(found, split, seed, limit, str(self.path))


def _read(file: Path) -> Iterator[Example]:
    entries = parse_json(read_text(file), str(file))
    if not isinstance(entries, list):
        raise DataError(f"{file}: expected a list of HotpotQA questions, got {describe(entries)}; give another file")
    for number, entry in enumerate(entries, start=1):
        where = f"{file}, entry {number}"
        question, answer = member(entry, "question", str, where), member(entry, "answer", str, where)
        context = "\n".join(_line(*pair, where) for pair in _paragraphs(entry, where))
        names = [member(entry, key, str, where) for key in ("_id", "id") if key in entry]
        identity = names[0] if names else context_hash(f"{question} {context}")
        yield check(Example(identity, context, question, (answer,), identity), where)


def _paragraphs(entry: dict[str, Any], where: str) -> list[tuple[object, object]]:
    """Pairs of title and sentences, from `[[title, sentences], ...]` or `{"title": [...], "sentences": [...]}`."""
    context = entry.get("context")
    if isinstance(context, dict):
        titles, sentences = (member(context, key, list, where) for key in ("title", "sentences"))
        if len(titles) != len(sentences):
            got = f"{len(titles)} and {len(sentences)}"
            raise DataError(f"{where}: expected as many titles as paragraphs, got {got}; fix the entry")
        return list(zip(titles, sentences, strict=True))
    pairs = member(entry, "context", list, where)
    if not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        raise DataError(f"{where}: expected context as [title, sentences] pairs, got other entries; fix the entry")
    return [(title, sentences) for title, sentences in pairs]


def _line(title: object, sentences: object, where: str) -> str:
    if not isinstance(title, str) or not isinstance(sentences, list) or not all(isinstance(s, str) for s in sentences):
        raise DataError(f"{where}: expected a title and a list of sentences, got other values; fix the entry")
    return f"{title}: {' '.join(sentence.strip() for sentence in sentences)}"
