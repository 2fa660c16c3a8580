"""Which tokens the reader expects: its own next-token distribution over the prompts, and what is drawn by it."""

import numpy as np
import pytest
import torch

from latentwire import expected
from latentwire.corpus import Corpus
from latentwire.data import DATASETS
from latentwire.expected import expected_odds
from tiny import FAMILIES, tiny_reader

EXAMPLES = DATASETS["facts"]().examples("train", 0, 12)


@pytest.fixture(scope="module", params=FAMILIES)
def reader(request):
    return tiny_reader(request.param)


@torch.no_grad()
def true_odds(reader, corpus):
    logits = torch.cat([reader.model(input_ids=torch.tensor([prompt.ids])).logits[0] for prompt in corpus.prompts])
    root = logits.double().softmax(-1).mean(0).sqrt()
    return (root / root.sum()).numpy()


@pytest.mark.parametrize("scope", ["prompt", "context"])
@pytest.mark.parametrize("batch", [1, 5])
def test_odds_are_the_root_of_the_mean_next_token_distribution(reader, scope, batch, monkeypatch):
    monkeypatch.setattr(expected, "POSITIONS", 10**6)
    corpus = Corpus(reader, EXAMPLES, scope, 0)
    np.testing.assert_allclose(expected_odds(reader, corpus, batch), true_odds(reader, corpus), rtol=1e-3)


def test_a_few_positions_say_nearly_the_same_and_repeat(reader):
    corpus = Corpus(reader, DATASETS["facts"]().examples("train", 0, 100), "prompt", 0)
    odds = expected_odds(reader, corpus, 4)
    np.testing.assert_array_equal(odds, expected_odds(reader, corpus, 4))
    assert odds.sum() == pytest.approx(1.0)
    assert np.corrcoef(odds, true_odds(reader, corpus))[0, 1] > 0.9
