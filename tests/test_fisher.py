"""The reader's metric: its scale, what repeats, and that it predicts how far an error moves the answer."""

import pytest
import torch

from latentwire.corpus import Corpus
from latentwire.data import DATASETS
from latentwire.fisher import fisher_metric
from latentwire.methods.compressors import moments
from latentwire.objectives import OBJECTIVES, ExampleBatch, TokenBatch, divergence
from latentwire.reader import Prefix
from tiny import FAMILIES, tiny_reader

EXAMPLES = DATASETS["facts"]().examples("train", 0, 24)


@pytest.fixture(scope="module", params=FAMILIES)
def measured(request):
    reader = tiny_reader(request.param)
    corpus = Corpus(reader, EXAMPLES, "prompt", 0)
    return reader, corpus, fisher_metric(reader, corpus, 8)


def test_metric_is_a_metric_in_which_the_corpus_has_variance_one(measured):
    reader, corpus, metric = measured
    assert metric.shape == (reader.width, reader.width)
    torch.testing.assert_close(metric, metric.T)
    values = torch.linalg.eigvalsh(metric.double())
    assert values[0] > 0
    assert values[-1] > 3 * values.median(), "expected directions that the reader is sensitive to"
    _, covariance = moments(reader, corpus.counts)
    assert float((metric.double() * covariance).sum()) == pytest.approx(1.0, rel=1e-5)


def test_metric_repeats_bit_for_bit_and_leaves_no_gradient(measured):
    reader, corpus, metric = measured
    assert torch.equal(fisher_metric(reader, corpus, 8), metric)
    assert all(parameter.grad is None for parameter in reader.model.parameters())


@torch.no_grad()
def moved_answers(reader, corpus, direction, size):
    """Mean KL when each slot embedding moves by `size` along plus or minus `direction`."""
    draw = torch.Generator().manual_seed(1)
    rows = [reader.embed(torch.tensor(prompt.slot.ids)) for prompt in corpus.prompts]
    signs = [torch.randint(0, 2, (len(row), 1), generator=draw) * 2.0 - 1.0 for row in rows]
    errors = [row + size * sign * direction for row, sign in zip(rows, signs, strict=True)]
    inputs = [reader.lay_in(corpus.prompts, Prefix.stack(found)) for found in (errors, rows)]
    batch = ExampleBatch(reader, corpus.prompts, *inputs, reader.pad_labels(corpus.labels))
    return float(divergence(reader, batch.true_hidden, batch.hidden, batch.answer_labels))


def test_metric_predicts_how_far_small_errors_move_the_answers(measured):
    reader, corpus, metric = measured
    values, directions = torch.linalg.eigh(metric.double())
    size = 1e-3 * float(moments(reader, corpus.counts)[1].trace()) ** 0.5
    weakest, strongest = (
        moved_answers(reader, corpus, directions[:, place].float(), size) for place in (0, len(values) - 1)
    )
    assert strongest > 3 * weakest
    doubled = moved_answers(reader, corpus, directions[:, -1].float(), 2 * size)
    assert doubled == pytest.approx(4 * strongest, rel=0.3), "expected KL of second order"


def test_fisher_is_one_for_the_mean_and_zero_for_a_perfect_decoder(measured):
    reader, corpus, metric = measured
    ids = torch.tensor(corpus.counts).nonzero()[:, 0]
    target = reader.embed(ids).float()
    weights = torch.from_numpy(corpus.counts)[ids] / corpus.num_tokens
    mean = moments(reader, corpus.counts)[0].float()
    loss = OBJECTIVES["fisher"].loss
    assert float(loss(TokenBatch(mean.expand_as(target), target, weights, 1.0, metric))) == pytest.approx(1.0, rel=1e-4)
    assert float(loss(TokenBatch(target, target, weights, 1.0, metric))) == 0.0
