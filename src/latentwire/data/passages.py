"""`passages`: tasks that any text brings with it, from the contexts of another data set. No labels are needed.

    continue   the first part of a text stands as the context, what comes next is the answer
    quote      the whole text stands as the context, what follows some words of it is the answer

Both give a training step many more answer tokens than a question does.

Source: continuation and reconstruction as in ARC-Encoder (arXiv 2510.20535, section 3); asking for them in the words of a
question, so that one prompt layout serves all, is ours.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random

from latentwire.data import DATASETS, Example, Split, check, context_hash, shuffled
from latentwire.errors import DataError
from latentwire.specs import Spec, build

CONTINUE = "How does the passage go on after its end?"
QUOTE = 'Which words follow "{words}" in the passage?'
CUE_WORDS = 5


@dataclass(frozen=True, slots=True)
class _Text:
    name: str
    words: list[str]
    group: str
    source: str


@DATASETS.register("passages")
@dataclass(frozen=True)
class Passages:
    """Continuation and quoting, in the order of the other data set's contexts.

    Attributes:
        of: The other data set, as `{name: ..., fields}`; its questions are not used.
        read: How many of its examples are read for their contexts; all of them if None.
        quotes: Tasks of the second kind for each context.
        continuations: Tasks of the first kind for each context.
        words: Most words of an answer.
    """

    of: Spec = field(default_factory=lambda: {"name": "facts"})
    read: int | None = None
    quotes: int = 3
    continuations: int = 1
    words: int = 24

    def examples(self, split: Split, seed: int, limit: int | None) -> list[Example]:
        """`limit` tasks (all when None), in an order that `seed` fixes.

        Raises:
            DataError: What the other data set raises, or fewer tasks than `limit`.
        """
        per_text = self.quotes + self.continuations
        if per_text < 1 or self.words < 1:
            raise DataError("passages: expected at least one task and one word, got none; raise quotes, words or both")
        found = [task for text in self._texts(split, seed) for task in self._tasks(text, seed)]
        return shuffled(found, seed, limit, "passages")

    def _texts(self, split: Split, seed: int) -> list[_Text]:
        """The first lines of the distinct contexts, those that are long enough."""
        texts: dict[str, _Text] = {}
        for example in build(DATASETS, self.of).examples(split, seed, self.read):
            words = example.context.split("\n")[0].split(" ")
            if len(words) >= 4 * CUE_WORDS:
                texts.setdefault(
                    context_hash(example.context), _Text(example.id, words, example.group, example.context)
                )
        return list(texts.values())

    def _tasks(self, text: _Text, seed: int) -> Iterator[Example]:
        random = Random(f"{seed}-{text.name}")
        size, whole = len(text.words), " ".join(text.words)
        for number in range(self.quotes):
            start = random.randrange(size - CUE_WORDS - 1)
            cue, rest = text.words[start : start + CUE_WORDS], text.words[start + CUE_WORDS :]
            question = QUOTE.format(words=" ".join(cue))
            yield self._example(f"{text.name}-quote-{number}", whole, question, rest, text.group, text.source)
        for number in range(self.continuations):
            end = random.randrange(size // 2, size - 1)
            context, rest = " ".join(text.words[:end]), text.words[end:]
            yield self._example(f"{text.name}-continue-{number}", context, CONTINUE, rest, text.group, text.source)

    def _example(self, name: str, context: str, question: str, rest: list[str], group: str, source: str) -> Example:
        return check(Example(name, context, question, (" ".join(rest[: self.words]),), group, source), name)
