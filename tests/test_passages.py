"""Tasks about a text itself: what is asked stands in the text, and nothing else gives it away."""

import pytest

from latentwire.data import DATASETS, Example, refuse_overlap
from latentwire.data.passages import CONTINUE, CUE_WORDS, Passages
from latentwire.errors import DataError

FACTS = {"name": "facts", "questions_per_passage": 4}


@pytest.fixture(scope="module")
def tasks() -> list[Example]:
    return Passages(of=FACTS, read=40, quotes=3, continuations=2, words=9).examples("train", 0, None)


@pytest.fixture(scope="module")
def contexts() -> set[str]:
    return {example.context for example in DATASETS["facts"](questions_per_passage=4).examples("train", 0, 40)}


def test_every_context_has_its_tasks(tasks, contexts):
    assert len(tasks) == 5 * len(contexts)
    assert len({task.id for task in tasks}) == len(tasks)
    assert sum(task.question == CONTINUE for task in tasks) == 2 * len(contexts)


def test_a_quotes_answer_follows_its_cue_in_the_context(tasks, contexts):
    for task in (task for task in tasks if task.question != CONTINUE):
        assert task.context in contexts
        cue = task.question.split('"')[1]
        assert len(cue.split()) == CUE_WORDS
        assert f"{cue} {task.answers[0]}" in task.context
        assert 1 <= len(task.answers[0].split()) <= 9


def test_a_continuation_is_what_was_cut_from_the_context(tasks, contexts):
    for task in (task for task in tasks if task.question == CONTINUE):
        assert any(whole.startswith(f"{task.context} {task.answers[0]}") for whole in contexts)
        assert task.answers[0] not in task.context


def test_splits_and_seed_are_those_of_the_other_data_set():
    for split in ("train", "heldout"):
        found = Passages(of=FACTS, read=8).examples(split, 3, None)
        assert found == Passages(of=FACTS, read=8).examples(split, 3, None)
        wanted = {example.context for example in DATASETS["facts"](questions_per_passage=4).examples(split, 3, 8)}
        assert {task.context for task in found if task.question != CONTINUE} == wanted


def test_limits_and_empty_requests_are_clear_errors():
    assert len(Passages(of=FACTS, read=8).examples("train", 0, 5)) == 5
    with pytest.raises(DataError, match="expected 99 examples, got 8"):
        Passages(of=FACTS, read=8).examples("train", 0, 99)
    with pytest.raises(DataError, match="raise quotes, words or both"):
        Passages(of=FACTS, read=8, quotes=0, continuations=0).examples("train", 0, None)


def test_a_cut_text_is_known_by_the_whole_that_it_was_cut_from():
    whole = DATASETS["facts"](questions_per_passage=4).examples("train", 0, 8)
    cut = Passages(of=FACTS, read=8, quotes=0, continuations=1).examples("train", 0, None)
    with pytest.raises(DataError, match="same context"):
        refuse_overlap(cut, whole)
