"""Generated passages: parsed back with the sentence templates, so that every claim is checked on the text itself."""

import re
from functools import cache

import pytest

from latentwire.data import Example, Split
from latentwire.data.facts import MAX_QUESTIONS, Facts
from latentwire.data.relations import SUBJECTS, Relation
from latentwire.errors import DataError

NAME = r"[A-Z][a-z]+(?: [A-Z][a-z]+)?"
RELATIONS = [relation for relations in SUBJECTS.values() for relation in relations]
ORDINARY = (
    "Sunday Monday Tuesday Wednesday Thursday Friday Saturday January February March April May June July August"
    " September October November December A At Captain Each Every For From How In It Most On The Visitors What Which Who"
    " Workers"
)


def as_pattern(template: str, values: str) -> re.Pattern[str]:
    text = re.escape(template).replace(r"\{s\}", f"(?P<s>{NAME})").replace(r"\{a\}", f"(?P<a>{values})")
    return re.compile(text)


SENTENCES = [
    (relation, as_pattern(sentence, NAME if isinstance(relation.values, str) else "|".join(relation.values)))
    for relation in RELATIONS
    for sentence in relation.sentences
]
QUESTIONS = [(relation, as_pattern(relation.question, "")) for relation in RELATIONS]


def parse(sentence: str) -> tuple[str, Relation, str]:
    """Subject, relation and value; the sentence must be readable in exactly one way."""
    found = [(match["s"], relation, match["a"]) for relation, p in SENTENCES if (match := p.fullmatch(sentence))]
    assert len(found) == 1, sentence
    return found[0]


def facts_of(example: Example) -> list[tuple[str, Relation, str]]:
    return [parse(sentence) for sentence in re.split(r"(?<=\.) ", example.context)]


def asked(example: Example) -> tuple[str, Relation]:
    found = [(match["s"], relation) for relation, p in QUESTIONS if (match := p.fullmatch(example.question))]
    assert len(found) == 1, example.question
    return found[0]


@cache
def passages(split: Split, seed: int = 0, limit: int = 300) -> list[Example]:
    return Facts().examples(split, seed, limit)


def capitalised(examples: list[Example]) -> set[str]:
    texts = (text for example in examples for text in (example.context, example.question, *example.answers))
    return {word for text in texts for word in re.findall(r"\b[A-Z]\w*", text)}


@pytest.fixture(params=["train", "heldout"])
def sample(request: pytest.FixtureRequest) -> list[Example]:
    return passages(request.param)


def test_passages_have_at_least_eight_facts_about_at_least_three_subjects(sample: list[Example]) -> None:
    for example in sample:
        facts = facts_of(example)
        assert len(facts) >= 8
        assert len({subject for subject, _, _ in facts}) >= 3


def test_data_set_has_at_least_twelve_relations_with_several_sentences_each(sample: list[Example]) -> None:
    assert len({asked(example)[1] for example in sample}) >= 12
    assert min(len(set(relation.sentences)) for relation in RELATIONS) >= 3


def test_passages_have_75_to_150_words(sample: list[Example]) -> None:
    lengths = [len(example.context.split()) for example in sample]
    assert min(lengths) >= 75
    assert max(lengths) <= 150


def test_passage_states_the_answer_exactly_once(sample: list[Example]) -> None:
    for example in sample:
        (answer,) = example.answers
        assert len(re.findall(rf"\b{re.escape(answer)}\b", example.context)) == 1
        assert 1 <= len(answer.split()) <= 4


def test_question_has_one_answer_and_distractors_have_others(sample: list[Example]) -> None:
    for example in sample:
        subject, relation = asked(example)
        values = [(who, value) for who, what, value in facts_of(example) if what is relation]
        assert [value for who, value in values if who == subject] == list(example.answers)
        assert len({value for _, value in values}) == len(values)
        assert len({who for who, _, _ in facts_of(example)} - {subject}) >= 2
    shared = [sum(what is asked(example)[1] for _, what, _ in facts_of(example)) > 1 for example in sample]
    assert 0.15 < sum(shared) / len(shared) < 0.6, (
        "expected distractors with the asked relation in a part of the passages"
    )


@pytest.mark.parametrize(("train_seed", "heldout_seed"), [(0, 0), (1, 2), (-5, 123)])
def test_names_of_heldout_never_occur_in_train(train_seed: int, heldout_seed: int) -> None:
    train = capitalised(passages("train", train_seed, 2000))
    heldout = capitalised(passages("heldout", heldout_seed, 2000))
    assert train & heldout <= set(ORDINARY.split())
    assert min(len(train), len(heldout)) > 2000


def test_no_name_stands_for_two_things_in_a_passage(sample: list[Example]) -> None:
    for example in sample:
        facts = facts_of(example)
        names = {subject for subject, _, _ in facts}
        names |= {value for _, relation, value in facts if isinstance(relation.values, str)}
        words = [word for name in names for word in name.split()]
        assert len(set(words)) == len(words)


@pytest.mark.parametrize("relation", RELATIONS, ids=lambda relation: relation.question)
def test_relation_names_its_subject_and_value_once_in_every_sentence(relation: Relation) -> None:
    assert relation.question.count("{s}") == 1
    assert "{a}" not in relation.question
    assert all(sentence.count("{s}") == sentence.count("{a}") == 1 for sentence in relation.sentences)
    assert isinstance(relation.values, str) or len(set(relation.values)) == len(relation.values) >= 4


def test_same_seed_gives_the_same_passages() -> None:
    assert Facts().examples("train", 3, 20) == Facts().examples("train", 3, 20)


def test_other_seed_gives_other_passages() -> None:
    contexts = [{example.context for example in Facts().examples("train", seed, 50)} for seed in (0, 1)]
    assert len(contexts[0]) == len(contexts[1]) == 50
    assert not contexts[0] & contexts[1]


def test_larger_limit_begins_with_the_smaller_one() -> None:
    assert Facts().examples("train", 0, 20)[:7] == Facts().examples("train", 0, 7)


def test_ids_never_collide_over_splits_and_seeds() -> None:
    facts = Facts(questions_per_passage=3)
    ids = [e.id for split in ("train", "heldout") for seed in (0, 1, 11, -1) for e in facts.examples(split, seed, 120)]
    assert len(set(ids)) == len(ids) == 2 * 4 * 120


def test_questions_about_one_passage_differ_and_share_its_group() -> None:
    examples = Facts(questions_per_passage=MAX_QUESTIONS).examples("train", 0, 3 * MAX_QUESTIONS)
    by_group: dict[str, list[Example]] = {}
    for example in examples:
        by_group.setdefault(example.group, []).append(example)
    assert len(by_group) == 3
    for group in by_group.values():
        assert len({example.context for example in group}) == 1
        assert len({example.question for example in group}) == MAX_QUESTIONS


def test_number_of_questions_does_not_change_the_passages() -> None:
    one, three = (Facts(questions_per_passage=n).examples("train", 0, 10 * n) for n in (1, 3))
    assert [example.context for example in three[::3]] == [example.context for example in one]


def test_limit_that_cuts_a_passage_is_kept_exactly() -> None:
    assert len(Facts(questions_per_passage=3).examples("train", 0, 7)) == 7


def test_endless_set_without_limit_raises_data_error() -> None:
    with pytest.raises(
        DataError, match="expected a limit, got none, and the set is endless; give a limit or `passages`"
    ):
        Facts().examples("train", 0, None)


def test_set_of_given_size_needs_no_limit() -> None:
    facts = Facts(questions_per_passage=2, passages=5)
    assert len(facts.examples("train", 0, None)) == 10
    with pytest.raises(DataError, match="expected 11 examples, got 10; ask for at most 10"):
        facts.examples("train", 0, 11)


def test_split_all_raises_data_error() -> None:
    with pytest.raises(DataError, match="expected split 'train' or 'heldout', got 'all'"):
        Facts().examples("all", 0, 5)


@pytest.mark.parametrize("number", [0, -1, MAX_QUESTIONS + 1])
def test_impossible_number_of_questions_raises_data_error(number: int) -> None:
    with pytest.raises(DataError, match=f"expected 1 to 9 questions_per_passage, got {number}"):
        Facts(questions_per_passage=number)


@pytest.mark.parametrize("passages", [0, -1])
def test_impossible_number_of_passages_raises_data_error(passages: int) -> None:
    with pytest.raises(DataError, match=f"expected at least 1 in passages, got {passages}"):
        Facts(passages=passages)
