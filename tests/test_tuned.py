"""Task tokens before another method's prefix."""

import pytest
import torch

from latentwire.config import ObjectiveSpec, TrainSpec
from latentwire.corpus import Corpus
from latentwire.data import DATASETS
from latentwire.errors import MethodError, RecipeError
from latentwire.evaluate import Evaluator
from latentwire.methods import METHODS
from latentwire.methods.tuned import Tuned
from latentwire.reader.prompts import INSTRUCTION
from latentwire.train import Hooks, fit, start
from tiny import tiny_reader

EXAMPLES = DATASETS["facts"](questions_per_passage=4).examples("train", 0, 16)
SPEC = TrainSpec(steps=30, batch_examples=8, lr=3e-2, precision="fp32", vocabulary_share=0.0)


def prepared(reader, **fields):
    corpus = Corpus(reader, EXAMPLES, "context", 0)
    method = Tuned(**fields)
    start(method, [corpus], SPEC, Hooks())
    return method, corpus


def nll(method, reader):
    outcomes = Evaluator(reader, EXAMPLES, 8, 2).run("tuned", method, "context").outcomes
    return sum(outcome.answer_nll for outcome in outcomes) / len(outcomes)


@pytest.mark.parametrize("name", ["full_text", "no_context", "pooled", "random_tokens", "truncated"])
def test_task_tokens_stand_before_the_other_prefix_and_cost_a_position_each(name):
    reader = tiny_reader("gemma3")
    method, corpus = prepared(reader, of={"name": name}, task_tokens=3)
    slots = [prompt.slot for prompt in corpus.prompts[::4]]
    latents = method.encode(slots, reader)
    inner = METHODS[name]()
    for row, other in zip(method.prefix(latents, reader).rows(), inner.prefix(latents, reader).rows(), strict=True):
        torch.testing.assert_close(row[:3], reader.embed(torch.tensor(reader.prompter.slot(INSTRUCTION).ids[:3])))
        torch.testing.assert_close(row[3:], other)


@pytest.mark.parametrize("name", ["surprising_tokens", "pooled", "no_context"])
def test_training_reads_what_the_ladder_reads_and_encodes_each_context_once(name, monkeypatch):
    readers = [tiny_reader("llama"), tiny_reader("gemma3")]
    method = Tuned(of={"name": name}, task_tokens=2)
    corpora = [Corpus(reader, EXAMPLES, "context", 0) for reader in readers]
    start(method, corpora, SPEC, Hooks())
    encoded = []
    encode = METHODS[name].encode
    monkeypatch.setattr(
        METHODS[name], "encode", lambda self, slots, reader: encoded.extend(slots) or encode(self, slots, reader)
    )
    for reader, corpus in zip(readers, corpora, strict=True):
        slots = [prompt.slot for prompt in corpus.prompts]
        expected = method.prefix(method.encode(slots, reader), reader).embeds
        encoded.clear()
        for _ in range(2):
            torch.testing.assert_close(method.training_prefix(slots, reader).embeds, expected, atol=2e-3, rtol=0)
        assert len(encoded) == len(set(slots)) == 4


def test_more_task_tokens_than_the_instruction_has_begin_again():
    reader = tiny_reader("llama")
    size = len(reader.prompter.slot(INSTRUCTION).ids)
    method, _ = prepared(reader, task_tokens=size + 2)
    (tokens,) = method.module().parameters()
    assert torch.equal(tokens[size:], tokens[:2])


def test_tuning_lowers_the_answers_nll_of_every_reader_and_moves_nothing_else():
    readers = [tiny_reader("llama"), tiny_reader("qwen2")]
    corpora = [Corpus(reader, EXAMPLES, "context", 0) for reader in readers]
    method = Tuned(of={"name": "no_context"}, task_tokens=2)
    spec = SPEC.model_copy(update={"lr": 0.2})
    start(method, corpora, spec, Hooks())
    before = [nll(method, reader) for reader in readers]
    fit(method, corpora, ObjectiveSpec(weights={"answer_ce": 1.0}), spec)
    after = [nll(method, reader) for reader in readers]
    assert all(late < early - 0.1 for late, early in zip(after, before, strict=True))


def test_saved_task_tokens_serve_every_reader_again():
    readers = [tiny_reader("llama"), tiny_reader("gemma3")]
    method = Tuned(task_tokens=2)
    for reader in readers:
        method.prepare(reader, Corpus(reader, EXAMPLES, "context", 0).counts)
    loaded = Tuned(task_tokens=2)
    loaded.load(method.tensors(), readers[0])
    for reader in readers:
        latents = method.encode([reader.prompt(EXAMPLES[0], "context").slot], reader)
        assert torch.equal(method.prefix(latents, reader).embeds, loaded.prefix(latents, reader).embeds)


def test_reader_without_task_tokens_and_unfit_methods_are_refused():
    reader, other = tiny_reader("llama"), tiny_reader("qwen2")
    method, _ = prepared(reader)
    latents = method.encode([other.prompt(EXAMPLES[0], "context").slot], other)
    with pytest.raises(MethodError, match="tiny-qwen2"):
        method.prefix(latents, other)
    with pytest.raises(MethodError, match="without tensors"):
        prepared(reader, of={"name": "per_token", "compression": 4.0, "decoder": "linear"})
    with pytest.raises(MethodError, match="task_tokens"):
        Tuned(task_tokens=0)
    with pytest.raises(RecipeError, match="no field"):
        Tuned(of={"name": "pooled", "compresion": 4})
