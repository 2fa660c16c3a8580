"""`facts`: generated passages about invented names, for training and evaluation without a download.

A passage tells three or four things about each of three invented subjects, in a quarter of the passages of one kind: then
most things are told of several of them, and only the right subject's value answers the question.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random

from latentwire.data import DATASETS, Example, Split, check, in_split
from latentwire.data.relations import SUBJECTS, Relation
from latentwire.errors import DataError

_GRIDS = ((3, 3), (3, 4))  # subjects, relations: 9 or 12 facts
MAX_QUESTIONS = 9
MIN_WORDS = 75  # about 100 tokens; shorter passages are drawn again
SHARE_ALIKE = 0.25  # of the passages, whose subjects are all of one kind: the hard ones

_STARTS = (
    "b", "br", "c", "d", "dr", "f", "fl", "g", "gr", "h", "j", "k", "l", "m", "n", "p", "pl", "r", "s", "st", "t", "tr",
    "v", "z",
)  # fmt: skip
_VOWELS = tuple("aeiou")
_MIDDLES = tuple("dklmnrst")
_ENDS = {
    "first": ("a", "e", "o", "in", "is", "en", "ara", "ela", "ami", "ita", "ilo", "ony"),
    "last": ("ane", "er", "ick", "ow", "ard", "ett", "ove", "une", "ask", "ell", "im", "ost"),
    "town": ("ford", "ville", "mouth", "burg", "ham", "ton", "stead", "wick"),
    "river": ("a", "una", "esh", "ine", "ow", "ola"),
    "company": ("ex", "ico", "otron", "ota", "ix", "ulo"),
    "ship": ("ora", "ania", "essa", "ina", "anda", "elle"),
}


@DATASETS.register("facts")
@dataclass(frozen=True)
class Facts:
    """An endless set of passages, fixed by split, seed and number; a group is one passage.

    Every invented word belongs to one split by its hash, so no name of "heldout" (subject or answer) ever occurs in
    "train", whatever the seeds. Years, colours, jobs and the like are ordinary words and occur in both.

    Attributes:
        questions_per_passage: Questions about each passage, 1 to 9, each about another fact.
        passages: Passages that the set holds; endless when None, and then `examples` needs a limit.
    """

    questions_per_passage: int = 1
    passages: int | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.questions_per_passage <= MAX_QUESTIONS:
            got = self.questions_per_passage
            raise DataError(f"facts: expected 1 to {MAX_QUESTIONS} questions_per_passage, got {got}; change the field")
        if self.passages is not None and self.passages < 1:
            raise DataError(f"facts: expected at least 1 in passages, got {self.passages}; change the field")

    def examples(self, split: Split, seed: int, limit: int | None) -> list[Example]:
        """The first `limit` questions; a larger limit begins with the same ones.

        Raises:
            DataError: No limit for an endless set, more than `passages` give, or split "all", which would mix the
                names that the other two keep apart.
        """
        if split == "all":
            raise DataError(
                "facts: expected split 'train' or 'heldout', got 'all', which would mix their names; name one"
            )
        size = None if self.passages is None else self.passages * self.questions_per_passage
        limit = size if limit is None else limit
        if limit is None:
            raise DataError("facts: expected a limit, got none, and the set is endless; give a limit or `passages`")
        if size is not None and limit > size:
            raise DataError(f"facts: expected {limit} examples, got {size}; ask for at most {size} or raise `passages`")
        count = -(-limit // self.questions_per_passage)
        found = [example for number in range(count) for example in self._passage(split, seed, number)]
        return found[:limit]

    def _passage(self, split: Split, seed: int, number: int) -> Iterator[Example]:
        """The questions about one passage. The passage does not depend on how many there are."""
        group = f"facts-{split}-{seed}-{number}"
        random = Random(group)
        context = ""
        while len(context.split()) < MIN_WORDS:
            facts = _facts(random, _namer(random, split))
            context = " ".join(fact.sentence for fact in _arranged(facts, random))
        for index, fact in enumerate(random.sample(facts, self.questions_per_passage)):
            question = fact.relation.question.format(s=fact.subject)
            yield check(Example(f"{group}-{index}", context, question, (fact.value,), group), group)


@dataclass(frozen=True, slots=True)
class _Fact:
    subject: str
    relation: Relation
    value: str
    sentence: str


def _facts(random: Random, name: Callable[[str], str]) -> list[_Fact]:
    """Some relations of each subject; no value occurs twice within a relation, no name within a passage."""
    num_subjects, num_relations = random.choice(_GRIDS)
    alike = random.random() < SHARE_ALIKE
    kinds = [random.choice(sorted(SUBJECTS))] * num_subjects if alike else random.sample(sorted(SUBJECTS), num_subjects)
    told = {name(kind): random.sample(SUBJECTS[kind], num_relations) for kind in kinds}
    facts = []
    for relation in (relation for kind in dict.fromkeys(kinds) for relation in SUBJECTS[kind]):
        about = [subject for subject, relations in told.items() if relation in relations]
        pool = relation.values
        values = [name(pool) for _ in about] if isinstance(pool, str) else random.sample(pool, len(about))
        for subject, value in zip(about, values, strict=True):
            sentence = random.choice(relation.sentences).format(s=subject, a=value)
            facts.append(_Fact(subject, relation, value, sentence))
    return facts


def _arranged(facts: list[_Fact], random: Random) -> list[_Fact]:
    """The facts in random order: in half of the passages subject by subject, otherwise mixed."""
    mixed = random.sample(facts, len(facts))
    if random.random() < 0.5:
        return mixed
    return sorted(mixed, key=lambda fact: [other.subject for other in facts].index(fact.subject))


def _namer(random: Random, split: Split) -> Callable[[str], str]:
    """A source of names by kind, all their words of `split` and none of them given twice."""
    given: set[str] = set()

    def word(kind: str) -> str:
        syllables = 1 if kind in ("first", "last") else random.choice((1, 1, 2))
        while True:
            start = "".join(random.choice(_STARTS) + random.choice(_VOWELS) for _ in range(syllables))
            made = (start + random.choice(_MIDDLES) + random.choice(_ENDS[kind])).capitalize()
            if made not in given and in_split(made, split):
                given.add(made)
                return made

    return lambda kind: f"{word('first')} {word('last')}" if kind == "person" else word(kind)
