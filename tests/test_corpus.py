"""Which tokens and examples each step sees: a function of seed and step alone."""

from itertools import pairwise

import numpy as np
import pytest

from latentwire.corpus import ROWS_PER_TOKEN, Corpus
from latentwire.data import DATASETS
from latentwire.errors import DataError
from tiny import tiny_reader

EXAMPLES = DATASETS["facts"]().examples("train", 0, 23)


@pytest.fixture(scope="module")
def corpus():
    return Corpus(tiny_reader("llama"), EXAMPLES, "prompt", 0)


@pytest.mark.parametrize("batch_tokens", [100, 777, 10**6])
def test_an_epoch_weighs_every_token_of_the_corpus_once(corpus, batch_tokens):
    steps = corpus.token_steps(batch_tokens)
    seen = np.zeros(corpus.vocab_size)
    for step in range(steps, 2 * steps):
        ids, weights = corpus.tokens(step, batch_tokens, 0.0)
        size = batch_tokens if step < 2 * steps - 1 else corpus.num_tokens - (steps - 1) * batch_tokens
        seen[ids] += weights * size
    np.testing.assert_allclose(seen, corpus.counts, atol=1e-2)


def test_vocabulary_share_gets_its_weight_and_never_a_held_out_row(corpus):
    for step in range(50):
        ids, weights = corpus.tokens(step, 200, 0.25)
        distinct, plain = corpus.tokens(step, 200, 0.0)
        drawn = dict(zip(ids.tolist(), weights.tolist(), strict=True))
        for token, weight in zip(distinct.tolist(), plain.tolist(), strict=True):
            drawn[token] -= 0.75 * weight
        times = np.array(list(drawn.values())) * ROWS_PER_TOKEN * len(distinct) / 0.25
        np.testing.assert_allclose(times, times.round(), atol=1e-2)
        assert times.round().sum() == ROWS_PER_TOKEN * len(distinct)
        assert not np.isin(ids, corpus.heldout_rows).any()


def test_each_token_of_a_step_is_there_once(corpus):
    ids, _ = corpus.tokens(0, 200, 0.9)
    assert len(ids) == len(np.unique(ids)) < (1 + ROWS_PER_TOKEN) * len(corpus.tokens(0, 200, 0.0)[0])


def test_vocabulary_rows_are_drawn_by_the_odds_and_evenly_without():
    corpus = Corpus(tiny_reader("llama"), EXAMPLES, "prompt", 0)
    rows = np.setdiff1d(np.arange(corpus.vocab_size), corpus.heldout_rows)

    def shares():
        total = np.zeros(corpus.vocab_size)
        for step in range(1000):
            ids, weights = corpus.tokens(step, 200, 1.0)
            total[ids] += weights
        assert total[corpus.heldout_rows].sum() == 0
        return total[rows] / total.sum()

    np.testing.assert_allclose(shares(), np.full(len(rows), 1 / len(rows)), rtol=0.3)
    corpus.odds = np.random.default_rng(0).choice([0.0, 1.0, 5.0], size=corpus.vocab_size)
    np.testing.assert_allclose(shares(), corpus.odds[rows] / corpus.odds[rows].sum(), rtol=0.3)


def test_weights_of_the_tokens_are_what_the_draws_come_to():
    corpus = Corpus(tiny_reader("llama"), EXAMPLES, "prompt", 0)
    corpus.odds = np.linspace(1, 5, corpus.vocab_size)
    steps = corpus.token_steps(200)
    mean = np.zeros(corpus.vocab_size)
    for step in range(30 * steps):
        ids, weights = corpus.tokens(step, 200, 0.25)
        np.add.at(mean, ids, weights / (30 * steps))
    found = corpus.weights(0.25)
    assert found.sum() == pytest.approx(1.0)
    assert (found[corpus.heldout_rows] == 0).all()
    np.testing.assert_allclose(mean, found, atol=2e-3)
    assert np.corrcoef(mean, found)[0, 1] > 0.99
    np.testing.assert_allclose(corpus.weights(0.0), corpus.counts / corpus.num_tokens)


def test_held_out_rows_never_occur_in_the_corpus(corpus):
    assert len(corpus.heldout_rows) > 0
    assert corpus.counts[corpus.heldout_rows].sum() == 0


@pytest.mark.parametrize("size", [1, 4, 50])
def test_an_epoch_visits_every_example_once(corpus, size):
    steps = corpus.example_steps(size)
    for epoch in (0, 3):
        visited = [index for step in range(steps) for index in corpus.batch(epoch * steps + step, size)]
        assert sorted(visited) == list(range(len(EXAMPLES)))


def test_draws_depend_on_seed_and_step_alone():
    one, other = (Corpus(tiny_reader("llama"), EXAMPLES, "prompt", 5) for _ in range(2))
    for step in (9, 0, 4):
        other.tokens(1, 100, 0.1)
        other.batch(17, 4)
        for left, right in zip(one.tokens(step, 100, 0.1), other.tokens(step, 100, 0.1), strict=True):
            np.testing.assert_array_equal(left, right)
        assert one.batch(step, 4) == other.batch(step, 4)
    assert one.batch(0, 4) != Corpus(tiny_reader("llama"), EXAMPLES, "prompt", 6).batch(0, 4)


def test_batches_hold_prompts_of_similar_length(corpus):
    lengths = np.array([len(prompt.ids) for prompt in corpus.prompts])
    spread = [np.ptp(lengths[corpus.batch(step, 4)]) for step in range(corpus.example_steps(4))]
    assert np.mean(spread) < np.ptp(lengths) / 3


def test_a_sample_is_an_even_draw_in_the_order_of_length_and_repeats(corpus):
    lengths = [len(prompt.slot.ids) for prompt in corpus.prompts]
    everything = corpus.sample(1000)
    assert sorted(everything) == list(range(len(EXAMPLES)))
    assert [lengths[index] for index in everything] == sorted(lengths)
    reader = tiny_reader("llama")
    drawn = [index for seed in range(200) for index in Corpus(reader, EXAMPLES[:8], "prompt", seed).sample(4)]
    assert [drawn.count(index) for index in range(8)] == pytest.approx([100] * 8, abs=35)
    assert corpus.sample(4) == corpus.sample(4)


def test_empty_corpus_is_refused():
    with pytest.raises(DataError, match="at least one"):
        Corpus(tiny_reader("llama"), [], "prompt", 0)


def test_questions_about_one_context_share_a_step_and_an_epoch_still_sees_each_once():
    examples = DATASETS["facts"](questions_per_passage=6).examples("train", 0, 60)
    corpus = Corpus(tiny_reader("llama"), examples, "context", 0)
    steps = corpus.example_steps(8)
    orders = []
    for epoch in range(2):
        batches = [corpus.batch(step, 8) for step in range(epoch * steps, (epoch + 1) * steps)]
        assert sorted(index for batch in batches for index in batch) == list(range(60))
        orders.append(batches)
        contexts = [[examples[index].group for index in batch] for batch in batches]
        neighbours = [one == other for batch in contexts for one, other in pairwise(batch)]
        assert sum(neighbours) >= 40 - steps, "expected units of 4 and 2, each step's ends cutting one at most"
    assert orders[0] != orders[1]
