"""Answer scores, the paired bootstrap and decoder quality against values worked out by hand."""

import numpy as np
import pytest
import torch

from latentwire.metrics import PairedBootstrap, decoder_quality, exact_match, f1, normalise


def test_normalise_drops_case_punctuation_articles_and_spaces():
    assert normalise("  The Cat's  a-hat, an Ox! ") == "cats ahat ox"


@pytest.mark.parametrize(
    ("answer", "gold", "expected"),
    [
        ("the red fox", ["red fox"], 1.0),
        ("red", ["red fox"], 2 / 3),
        ("blue red", ["red fox", "blue"], 2 / 3),
        ("", ["fox"], 0.0),
        ("the", ["a"], 1.0),
        ("fox fox", ["fox"], 2 / 3),
    ],
)
def test_f1_is_the_best_token_overlap(answer, gold, expected):
    assert f1(answer, gold) == pytest.approx(expected)


def test_exact_match_needs_the_whole_answer():
    assert exact_match("The fox.", ["fox"]) == 1.0
    assert exact_match("red fox", ["fox"]) == 0.0


def test_questions_of_one_context_widen_the_interval():
    scores = np.repeat(np.array([0.0, 1.0] * 20), 10)
    clustered = PairedBootstrap([str(i // 10) for i in range(400)], 4000).mean(scores)
    apart = PairedBootstrap([str(i) for i in range(400)], 4000).mean(scores)
    assert clustered.value == apart.value == 0.5
    assert clustered.high - clustered.low > 2.5 * (apart.high - apart.low)


def test_interval_of_independent_scores_matches_the_normal_approximation():
    scores = (np.arange(1000) % 4 == 0).astype(float)
    found = PairedBootstrap([str(i) for i in range(1000)], 10_000).mean(scores)
    expected = 1.96 * np.sqrt(0.25 * 0.75 / 1000)
    assert found.high - found.value == pytest.approx(expected, rel=0.1)


def test_ratio_of_equal_scores_is_exactly_one():
    scores = np.random.default_rng(0).random(50)
    found = PairedBootstrap([str(i) for i in range(50)], 500).ratio(scores, scores)
    assert (found.value, found.low, found.high) == (1.0, 1.0, 1.0)


def test_paired_difference_is_narrower_than_its_sides():
    draw = np.random.default_rng(0)
    base = draw.random(100)
    bootstrap = PairedBootstrap([str(i) for i in range(100)], 2000)
    paired = bootstrap.difference(base + 0.1, base)
    assert paired.low == pytest.approx(0.1)
    assert paired.high == pytest.approx(0.1)
    assert bootstrap.mean(base).high - bootstrap.mean(base).low > 0.05


def test_same_seed_gives_the_same_interval():
    scores = np.random.default_rng(1).random(30)
    names = [str(i) for i in range(30)]
    assert PairedBootstrap(names, 100, 3).mean(scores) == PairedBootstrap(names, 100, 3).mean(scores)
    assert PairedBootstrap(names, 100, 3).mean(scores) != PairedBootstrap(names, 100, 4).mean(scores)


def test_decoder_quality_of_a_halved_embedding():
    true = torch.tensor([[2.0, 0.0], [0.0, 4.0]])
    quality = decoder_quality(true / 2, true, torch.tensor([3.0, 1.0]), torch.tensor([1.0, 0.0]))
    assert quality.rms_ratio == pytest.approx(0.5)
    assert quality.cosine == pytest.approx(1.0)
    assert quality.token_recovery == pytest.approx(0.75)
    mean = torch.tensor([1.5, 1.0])
    spread = 0.75 * float((true[0] - mean).square().sum()) + 0.25 * float((true[1] - mean).square().sum())
    assert quality.variance_unexplained == pytest.approx((0.75 * 1.0 + 0.25 * 4.0) / spread)
