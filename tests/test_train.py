"""The one training loop, in process, on tiny readers."""

import math

import pytest
import torch
from torch import nn

from latentwire import feed
from latentwire.config import ObjectiveSpec, TrainSpec
from latentwire.corpus import Corpus
from latentwire.data import DATASETS
from latentwire.errors import RecipeError, TrainingError
from latentwire.methods.embeddings import RawEmbeddings
from latentwire.methods.per_token import PerToken
from latentwire.reader import Prefix
from latentwire.resolve import largest_micro_batch
from latentwire.schedule import learning_rate, planned_steps
from latentwire.train import Hooks, _Loop, fit, laid_like
from tiny import tiny_reader

EXAMPLES = DATASETS["facts"]().examples("train", 0, 12)
FAST = {"batch_tokens": 256, "batch_examples": 4, "micro_examples": 4, "precision": "fp32", "lr": 3e-3}


@pytest.fixture(scope="module")
def corpus():
    return Corpus(tiny_reader("llama"), EXAMPLES, "prompt", 0)


def fresh(corpus):
    method = PerToken(compression=4)
    method.prepare(tiny_reader("llama"), corpus.counts)
    return method


def trained(corpus, weights, hooks=None, **spec):
    method = fresh(corpus)
    fit(method, [corpus], ObjectiveSpec(weights=weights), TrainSpec(**{**FAST, **spec}), hooks)
    return method


class Offsets(RawEmbeddings):
    """Raw embeddings and a learned vector for each reader."""

    def __init__(self, readers):
        self.vectors = nn.ParameterDict({reader.name: torch.zeros(reader.width) for reader in readers})

    def prefix(self, latents, reader):
        raw = super().prefix(latents, reader)
        return Prefix(raw.embeds + self.vectors[reader.name], raw.mask)

    def module(self):
        return self.vectors


def advance(loop):
    loop._update(*loop._measure())


def test_training_lowers_the_loss_that_it_logs(corpus):
    records = []
    trained(corpus, {"reconstruct": 1.0}, Hooks(log=records.append), steps=60)
    assert records[-1]["losses"]["reconstruct"] < 0.5 * records[0]["losses"]["reconstruct"]
    assert records[0]["shares"] == {"reconstruct": 1.0}


def test_two_objectives_get_the_shares_that_the_recipe_asks_for(corpus):
    records = []
    trained(corpus, {"reconstruct": 0.3, "answer_ce": 0.7}, Hooks(log=records.append), steps=50)
    shares = [record["shares"]["reconstruct"] for record in records[20:]]
    assert sum(shares) / len(shares) == pytest.approx(0.3, rel=0.1)
    assert {"reconstruct", "answer_ce"} == set(records[0]["losses"])


@pytest.mark.parametrize("name", ["answer_ce", "answer_kl", "prompt_lm", "prompt_answer_ce", "on_policy_kl"])
def test_small_micro_batches_give_the_same_loss_and_update(corpus, name):
    assert len({len(corpus.labels[index]) for index in corpus.batch(0, 4)}) > 1, "expected answers of several lengths"
    found = []
    for size in (1, 3, 4):
        spec = TrainSpec(**{**FAST, "steps": 1, "micro_examples": size})
        loop = _Loop(fresh(corpus), [corpus], ObjectiveSpec(weights={name: 1.0}), spec, Hooks())
        losses, gradients = loop._measure()
        loop._update(losses, gradients)
        applied = torch.cat([parameter.grad.flatten() for parameter in loop.parameters])
        found.append((losses[name], torch.cat([part.flatten() for part in gradients[name]]), applied))
    for loss, gradient, applied in found[:2]:
        assert loss == pytest.approx(found[2][0], rel=1e-5)
        assert float((gradient - found[2][1]).norm() / found[2][1].norm()) < 1e-5
        assert float((applied - found[2][2]).norm() / found[2][2].norm()) < 1e-5


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    "weights",
    [{"reconstruct": 1.0}, {"reconstruct": 1.0, "answer_ce": 1.0}, {"on_policy_kl": 1.0}, {"fisher": 1.0}],
)
def test_training_resumed_in_process_is_bitwise_the_same(corpus, weights, precision, monkeypatch):
    monkeypatch.setattr(feed, "ROLLOUT_EVERY", 3)
    whole = trained(corpus, weights, steps=7, precision=precision)
    kept = {}

    def stop_at_four():
        return kept.get("step") == 4

    def remember(done, words):
        kept["step"] = round(done * 7)

    hooks = Hooks(
        checkpoint=lambda state: kept.update(state=torch_copy(state)),
        task=lambda words: remember if words == "training" else lambda done, remark: None,
        interrupted=stop_at_four,
    )
    with pytest.raises(KeyboardInterrupt):
        trained(corpus, weights, hooks, steps=7, precision=precision)
    assert kept["state"]["step"] == 4
    resumed = trained(corpus, weights, Hooks(resume=kept["state"]), steps=7, precision=precision)
    for name, tensor in whole.tensors().items():
        assert torch.equal(tensor, resumed.tensors()[name]), name


def torch_copy(state):
    if isinstance(state, torch.Tensor):
        return state.clone()
    if isinstance(state, dict):
        return {key: torch_copy(value) for key, value in state.items()}
    return [torch_copy(value) for value in state] if isinstance(state, list) else state


def test_loss_that_is_not_finite_stops_with_step_examples_and_checkpoint(corpus):
    method, saved = fresh(corpus), []

    def spoil(done, words):
        if done >= 0.5:
            with torch.no_grad():
                method.module().offset[0] = math.nan

    hooks = Hooks(task=lambda words: spoil, checkpoint=saved.append)
    spec = TrainSpec(**{**FAST, "steps": 4, "checkpoint_seconds": 3600})
    with pytest.raises(TrainingError, match=r"step 2 \(facts-train-0-.*lower train.lr"):
        fit(method, [corpus], ObjectiveSpec(weights={"answer_ce": 1.0}), spec, hooks)
    assert saved == []


def test_checkpoint_left_by_a_diverged_training_still_gives_finite_losses(corpus):
    saved = []
    spec = {"steps": 6, "lr": 1e30, "warmup": 0.0, "checkpoint_seconds": 1e-9}
    with pytest.raises(TrainingError, match="checkpoint is kept"):
        trained(corpus, {"reconstruct": 1.0}, Hooks(checkpoint=lambda state: saved.append(torch_copy(state))), **spec)
    calm = TrainSpec(**FAST, steps=6)
    loop = _Loop(fresh(corpus), [corpus], ObjectiveSpec(), calm, Hooks(resume=saved[-1]))
    losses, _ = loop._measure()
    assert math.isfinite(losses["reconstruct"])


def test_gradient_that_is_not_finite_stops_before_the_weights_move(corpus):
    method = fresh(corpus)
    before = [parameter.detach().clone() for parameter in method.module().parameters()]
    last = method.module().offset
    last.register_hook(lambda gradient: gradient * math.inf)
    spec = TrainSpec(**FAST, steps=2)
    with pytest.raises(TrainingError, match=r"gradient norm (nan|inf) at step 0"):
        fit(method, [corpus], ObjectiveSpec(), spec)
    for left, right in zip(before, method.module().parameters(), strict=True):
        assert torch.equal(left, right)


def test_learning_rate_warms_up_and_falls_along_a_cosine():
    spec = TrainSpec(lr=1.0, warmup=0.1)
    assert learning_rate(0.0, spec) == pytest.approx(0.01)
    assert learning_rate(0.05, spec) == pytest.approx(0.5)
    assert learning_rate(0.1, spec) == pytest.approx(1.0)
    assert learning_rate(0.55, spec) == pytest.approx(0.5)
    assert learning_rate(1.0, spec) == pytest.approx(0.0)


def test_epochs_count_tokens_unless_an_objective_needs_examples(corpus):
    spec = TrainSpec(epochs=2, batch_tokens=100, batch_examples=5)
    assert planned_steps(corpus, ObjectiveSpec(), spec) == 2 * corpus.token_steps(100)
    pair = ObjectiveSpec(weights={"reconstruct": 1.0, "answer_kl": 1.0})
    assert planned_steps(corpus, pair, spec) == 2 * 3


def test_rollouts_are_what_the_compressed_prompt_answers_and_last_for_k_steps(corpus, monkeypatch):
    monkeypatch.setattr(feed, "ROLLOUT_EVERY", 3)
    reader = tiny_reader("llama")
    spec = TrainSpec(**{**FAST, "steps": 9})
    loop = _Loop(fresh(corpus), [corpus], ObjectiveSpec(weights={"on_policy_kl": 1.0}), spec, Hooks())
    advance(loop)
    first = dict(loop.feed.rollouts)
    index = corpus.batch(0, 4)[0]
    with torch.no_grad():
        untrained = _Loop(fresh(corpus), [corpus], loop.objective, spec, Hooks())
        state = reader.prefill(reader.lay_in([corpus.prompts[index]], untrained.feed._compressed([index])))
    assert first[index] == reader.generate(state, 16)[0].ids
    assert all(1 <= len(ids) <= 16 for ids in first.values())
    loop.step = 1
    advance(loop)
    assert loop.feed.rollouts == first
    loop.step = 3
    advance(loop)
    assert loop.feed.rollouts != first


def test_method_without_parameters_has_nothing_to_train(corpus):
    method = PerToken(compression=4, decoder="linear")
    method.prepare(tiny_reader("llama"), corpus.counts)
    with pytest.raises(RecipeError, match="decoder=mlp"):
        fit(method, [corpus], ObjectiveSpec(), TrainSpec(**FAST))


def test_seconds_bound_the_training(corpus):
    done = fit(fresh(corpus), [corpus], ObjectiveSpec(), TrainSpec(**FAST, seconds=0.5))
    assert 0.5 <= done.seconds < 3
    assert done.steps >= 2


def test_automatic_micro_batch_halves_until_it_fits(corpus, monkeypatch):
    reader = corpus.reader
    read = reader.hidden_states

    def short_of_memory(inputs):
        if len(inputs.mask) > 3:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return read(inputs)

    monkeypatch.setattr(reader, "hidden_states", short_of_memory)
    spec = TrainSpec(batch_examples=8, micro_examples="auto")
    assert largest_micro_batch(corpus, ObjectiveSpec(weights={"answer_ce": 1.0}), spec) in (2, 3)


def test_several_readers_take_turns_and_the_one_at_rest_keeps_its_part():
    readers = [tiny_reader("llama"), tiny_reader("qwen2")]
    method = Offsets(readers)
    corpora = [Corpus(reader, EXAMPLES, "context", 0) for reader in readers]
    loop = _Loop(method, corpora, ObjectiveSpec(weights={"answer_ce": 1.0}), TrainSpec(**FAST, steps=12), Hooks())
    turns = []
    for loop.step in range(12):
        turns.append(loop.feed.reader.name)
        before = {name: vector.detach().clone() for name, vector in method.vectors.items()}
        advance(loop)
        assert [name for name, vector in method.vectors.items() if not torch.equal(vector, before[name])] == turns[-1:]
    again = _Loop(method, corpora, loop.objective, loop.spec, Hooks())
    assert [again.feed.reader.name for again.step in range(12)] == turns
    assert set(turns) == {reader.name for reader in readers}


@pytest.mark.parametrize("turned", ["parameter", "gradient", "neither"])
def test_an_update_pairs_each_entry_with_its_own_gradient_whatever_the_memory_order(turned):
    sign = torch.tensor([[1.0, -1.0, 1.0], [1.0, 1.0, 1.0]])
    parameter = nn.Parameter(torch.zeros(3, 2).T if turned == "parameter" else torch.zeros(2, 3))
    gradient = sign.T.contiguous().T if turned == "gradient" else sign
    parameter.grad = laid_like(parameter, gradient)
    torch.optim.AdamW([parameter], 0.1, weight_decay=0.0, fused=True).step()
    torch.testing.assert_close(parameter.detach(), -0.1 * sign)
