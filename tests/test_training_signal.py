"""What training descends is what evaluation measures: labels, masks and gradients in both scopes."""

import dataclasses

import pytest
import torch

from latentwire.config import ObjectiveSpec, TrainSpec
from latentwire.corpus import Corpus
from latentwire.evaluate import Evaluator
from latentwire.methods.per_token import PerToken
from latentwire.objectives import OBJECTIVES, ExampleBatch, TokenBatch
from latentwire.reader import IGNORE
from latentwire.train import Hooks, fit
from questions import QUESTIONS, carried, counts_of, true_inputs
from tiny import FAMILIES, tiny_reader

SCOPES = ("prompt", "context")
ON_EXAMPLES = [name for name in OBJECTIVES if OBJECTIVES[name].needs != "tokens"]


def moved(reader, scope):
    """A prepared method whose decoder has left its start."""
    method = PerToken()
    method.prepare(reader, counts_of(reader, scope))
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in method.module().parameters():
            parameter += 0.01 * torch.randn(parameter.shape, generator=draw)
    return method


def batch_of(reader, method, scope):
    prompts = [reader.prompt(example, scope) for example in QUESTIONS]
    labels = reader.pad_labels([reader.prompter.labels(example.answers[0]) for example in QUESTIONS])
    inputs = reader.lay_in(prompts, carried(method, prompts, reader))
    return ExampleBatch(reader, prompts, inputs, true_inputs(reader, prompts), labels)


def loss_of(name, batch):
    return OBJECTIVES[name].loss(batch)


@pytest.mark.parametrize("precision", ["fp32"])
@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("family", FAMILIES)
def test_first_training_loss_is_the_answer_nll_of_the_ladder(family, scope, precision):
    reader, example = tiny_reader(family), QUESTIONS[1]
    method = moved(reader, scope)
    measured = Evaluator(reader, [example], 1, 4).run("own", method, scope).outcomes[0]
    records = []
    fit(
        method,
        [Corpus(reader, [example], scope, 0)],
        ObjectiveSpec(weights={"answer_ce": 1.0}),
        TrainSpec(steps=1, precision=precision),
        Hooks(log=records.append),
    )
    assert records[0]["losses"]["answer_ce"] == pytest.approx(measured.answer_nll, abs=1e-4)
    assert measured.answer_nll > 1.0


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("name", ["answer_ce", "answer_kl", "on_policy_kl"])
def test_labels_of_the_prompt_are_masked(name, scope):
    reader = tiny_reader("llama")
    batch = batch_of(reader, moved(reader, scope), scope)
    answers = sum(len(reader.prompter.labels(example.answers[0])) for example in QUESTIONS)
    assert int((batch.answer_labels != IGNORE).sum()) == answers
    relabelled = dataclasses.replace(batch, prompts=[*batch.prompts[1:], batch.prompts[0]])
    assert torch.equal(loss_of(name, relabelled), loss_of(name, batch))


@pytest.mark.parametrize("scope", SCOPES)
def test_prompt_lm_ignores_the_answer(scope):
    reader = tiny_reader("llama")
    batch = batch_of(reader, moved(reader, scope), scope)
    other = torch.where(batch.labels == IGNORE, IGNORE, (batch.labels + 100) % reader.vocab_size)
    torch.testing.assert_close(
        loss_of("prompt_lm", dataclasses.replace(batch, labels=other)), loss_of("prompt_lm", batch)
    )
    due = int((batch.prompt_labels != IGNORE).sum())
    assert due == sum(len(prompt.ids) - 1 for prompt in batch.prompts)


def test_loss_over_prompt_and_answer_is_their_mean_over_positions():
    reader = tiny_reader("llama")
    batch = batch_of(reader, moved(reader, "prompt"), "prompt")
    asked, answered = (int((labels != IGNORE).sum()) for labels in (batch.prompt_labels, batch.answer_labels))
    parts = asked * loss_of("prompt_lm", batch) + answered * loss_of("answer_ce", batch)
    torch.testing.assert_close(loss_of("prompt_answer_ce", batch), parts / (asked + answered), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("name", ON_EXAMPLES)
def test_gradient_reaches_every_decoder_weight_in_any_chunk_size_and_no_reader_weight(name, scope, monkeypatch):
    reader = tiny_reader("qwen2")
    method = moved(reader, scope)
    parameters = list(method.module().parameters())
    whole = torch.autograd.grad(loss_of(name, batch_of(reader, method, scope)), parameters)
    assert all(float(part.abs().sum()) > 0 for part in whole)
    monkeypatch.setattr("latentwire.reader.LOGIT_BYTES", 4 * 3 * reader.vocab_size)
    chunked = torch.autograd.grad(loss_of(name, batch_of(reader, method, scope)), parameters)
    for one, other in zip(whole, chunked, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3 * float(one.abs().max()))
    loss_of(name, batch_of(reader, method, scope)).backward()
    assert all(parameter.grad is None for parameter in reader.model.parameters())


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("name", ["answer_kl", "on_policy_kl"])
def test_divergence_from_the_true_prompt_is_zero_only_for_the_true_prompt(name, scope):
    reader = tiny_reader("gemma3")
    batch = batch_of(reader, moved(reader, scope), scope)
    assert float(loss_of(name, batch).detach()) > 1e-3
    true = dataclasses.replace(batch, inputs=batch.true_inputs)
    assert float(loss_of(name, true)) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_reconstruct_of_the_linear_decoder_is_the_variance_that_pca_leaves_out(family):
    reader = tiny_reader(family)
    counts = torch.from_numpy(counts_of(reader))
    method = PerToken(decoder="linear", wire_dtype="fp16")
    method.prepare(reader, counts.numpy())
    ids = counts.nonzero()[:, 0]
    weights = counts[ids].float() / counts.sum()
    loss = loss_of(
        "reconstruct", TokenBatch(method.restore(ids, reader), reader.embed(ids), weights, method.total_variance)
    )
    left_out = 1 - float(method.tensors()["basis.variances"].sum()) / method.total_variance
    assert float(loss) == pytest.approx(left_out, rel=1e-3)
    assert 0.1 < left_out < 0.9


def test_training_lowers_the_loss_it_descends():
    reader = tiny_reader("llama")
    corpus = Corpus(reader, QUESTIONS, "prompt", 0)
    for name in ("reconstruct", "answer_ce", "answer_kl"):
        method = PerToken()
        method.prepare(reader, corpus.counts)
        records = []
        fit(
            method,
            [corpus],
            ObjectiveSpec(weights={name: 1.0}),
            TrainSpec(steps=25, lr=1e-2, batch_examples=4, precision="fp32", vocabulary_share=0.0),
            Hooks(log=records.append),
        )
        assert records[-1]["losses"][name] < 0.7 * records[0]["losses"][name], name
