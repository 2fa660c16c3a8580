"""Objectives against naive computations, and against what the ladder measures."""

import pytest
import torch

from latentwire.balance import Balance
from latentwire.codecs import transmit
from latentwire.config import TrainSpec
from latentwire.corpus import Corpus
from latentwire.data import DATASETS
from latentwire.evaluate import Evaluator
from latentwire.feed import Feed
from latentwire.methods import METHODS
from latentwire.methods.per_token import PerToken
from latentwire.objectives import OBJECTIVES, ExampleBatch, TokenBatch
from latentwire.reader import IGNORE, Prefix
from latentwire.train import Hooks
from tiny import FAMILIES, tiny_reader

EXAMPLES = DATASETS["facts"]().examples("train", 0, 4)
ON_EXAMPLES = [name for name in OBJECTIVES if OBJECTIVES[name].needs != "tokens"]


def batch_of(reader, true_prefix=False):
    corpus = Corpus(reader, EXAMPLES, "prompt", 0)
    method = PerToken(compression=4, decoder="mlp")
    method.prepare(reader, corpus.counts)
    rows = Prefix.stack([reader.embed(torch.tensor(prompt.slot.ids)) for prompt in corpus.prompts])
    latents = method.encode([prompt.slot for prompt in corpus.prompts], reader)
    prefix = rows if true_prefix else method.prefix([transmit(latent)[0] for latent in latents], reader)
    inputs = [reader.lay_in(corpus.prompts, one) for one in (prefix, rows)]
    return method, ExampleBatch(reader, corpus.prompts, *inputs, reader.pad_labels(corpus.labels))


def naive_logits(reader, inputs, row, labels):
    embeds = inputs.embeds[row][inputs.mask[row]]
    fed = reader.embed(torch.tensor(labels[:-1], dtype=torch.long))
    return reader.model(inputs_embeds=torch.cat([embeds, fed])[None]).logits[0]


@torch.no_grad()
def naive(name, batch):
    total, count = 0.0, 0
    for row, prompt in enumerate(batch.prompts):
        labels = [label for label in batch.labels[row].tolist() if label != IGNORE]
        logits = naive_logits(batch.reader, batch.inputs, row, labels).log_softmax(-1)
        true = naive_logits(batch.reader, batch.true_inputs, row, labels).log_softmax(-1)
        first = len(prompt.ids) - 1
        answer = [(first + place, label) for place, label in enumerate(labels)]
        asked = [(place, label) for place, label in enumerate(prompt.ids[1:])]
        if name.endswith("kl"):
            total += sum(float((true[p].exp() * (true[p] - logits[p])).sum()) for p, _ in answer)
            count += len(answer)
            continue
        due = {"answer_ce": answer, "prompt_lm": asked, "prompt_answer_ce": asked + answer}[name]
        total -= sum(float(logits[place, label]) for place, label in due)
        count += len(due)
    return total / count


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", ON_EXAMPLES)
def test_loss_equals_a_naive_computation_in_any_chunk_size(name, family, monkeypatch):
    _, batch = batch_of(tiny_reader(family))
    loss = float(OBJECTIVES[name].loss(batch).detach())
    assert loss == pytest.approx(naive(name, batch), rel=1e-3, abs=1e-4)
    monkeypatch.setattr("latentwire.reader.LOGIT_BYTES", 4 * 3 * batch.reader.vocab_size)
    assert float(OBJECTIVES[name].loss(batch).detach()) == pytest.approx(loss, rel=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", ["answer_ce", "answer_kl", "on_policy_kl"])
def test_a_shorter_prompt_is_compared_with_the_true_one_where_the_answer_stands(name, family):
    reader = tiny_reader(family)
    corpus = Corpus(reader, EXAMPLES, "context", 0)
    slots = [prompt.slot for prompt in corpus.prompts]
    pooled = METHODS["pooled"](compression=4)
    rows = Prefix.stack([reader.embed(torch.tensor(slot.ids)) for slot in slots])
    inputs = [reader.lay_in(corpus.prompts, one) for one in (pooled.prefix(pooled.encode(slots, reader), reader), rows)]
    batch = ExampleBatch(reader, corpus.prompts, *inputs, reader.pad_labels(corpus.labels))
    total, count = 0.0, 0
    for row, ids in enumerate(corpus.labels):
        logits, true = (naive_logits(reader, one, row, ids).log_softmax(-1)[-len(ids) :] for one in inputs)
        for place, label in enumerate(ids):
            kl = (true[place].exp() * (true[place] - logits[place])).sum()
            total += float(-logits[place, label] if name == "answer_ce" else kl)
            count += 1
    assert float(OBJECTIVES[name].loss(batch)) == pytest.approx(total / count, rel=1e-3)


@pytest.mark.parametrize("name", ON_EXAMPLES)
def test_gradient_reaches_the_decoder_and_not_the_reader(name):
    method, batch = batch_of(tiny_reader("llama"))
    OBJECTIVES[name].loss(batch).backward()
    last = method.module().full
    assert float(last.grad.abs().sum()) > 0
    assert all(parameter.grad is None for parameter in batch.reader.model.parameters())


@pytest.mark.parametrize("name", ["answer_kl", "on_policy_kl"])
def test_divergence_is_zero_when_the_prompt_is_the_true_one(name):
    _, batch = batch_of(tiny_reader("llama"), true_prefix=True)
    assert float(OBJECTIVES[name].loss(batch)) == pytest.approx(0.0, abs=1e-6)


def test_reconstruct_is_one_for_the_mean_and_zero_for_a_perfect_decoder():
    target = torch.randn(30, 5, generator=torch.Generator().manual_seed(0))
    weights = torch.rand(30, generator=torch.Generator().manual_seed(1))
    weights = weights / weights.sum()
    mean = weights @ target
    variance = float(weights @ (target - mean).square().sum(dim=1))
    loss = OBJECTIVES["reconstruct"].loss
    assert float(loss(TokenBatch(mean.expand(30, 5), target, weights, variance))) == pytest.approx(1.0)
    assert float(loss(TokenBatch(target, target, weights, variance))) == 0.0


def test_plain_mse_is_the_mean_over_entries():
    target = torch.zeros(2, 4)
    restored = torch.tensor([[1.0] * 4, [3.0] * 4])
    loss = OBJECTIVES["mse"].loss(TokenBatch(restored, target, torch.tensor([0.5, 0.5]), 1.0))
    assert float(loss) == pytest.approx(5.0)


@pytest.mark.parametrize("family", FAMILIES)
def test_training_loss_equals_the_ladders_on_the_same_example(family):
    reader = tiny_reader(family)
    corpus = Corpus(reader, EXAMPLES[:1], "prompt", 0)
    method = PerToken(compression=4, decoder="mlp")
    method.prepare(reader, corpus.counts)
    feed = Feed(method, corpus, TrainSpec(precision="fp32"), Balance({"answer_ce": 1.0}), Hooks().task)
    goal = OBJECTIVES["answer_ce"]
    ((batch, _),) = feed.batches([goal], 0)
    trained = float(goal.loss(batch).detach())
    measured = Evaluator(reader, EXAMPLES[:1], 1, 4).run("mlp", method, "prompt").outcomes[0].answer_nll
    assert trained == pytest.approx(measured, abs=1e-4)
