"""The wire method on tiny readers: where it starts, what it promises at window borders, and what training sees."""

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from latentwire.codecs import transmit
from latentwire.config import ObjectiveSpec, TrainSpec
from latentwire.corpus import Corpus
from latentwire.data import DATASETS
from latentwire.errors import LatentError, MethodError
from latentwire.methods.dictionary import Dictionary
from latentwire.methods.wire import Wire
from latentwire.reader import Slot
from latentwire.reader.load import load_reader
from latentwire.surprise import by_surprise
from latentwire.train import Hooks, fit, start
from tiny import FAMILIES, save_tiny, tiny_reader

EXAMPLES = DATASETS["facts"](questions_per_passage=4).examples("train", 0, 16)
SPEC = TrainSpec(steps=12, batch_examples=8, lr=3e-3, precision="fp32", vocabulary_share=0.0)
MIB = 2**20


def prepared(*readers, moved=False, **fields):
    method = Wire(**{"hidden": 16, "task_tokens": 2, **fields})
    for reader in readers:
        method.prepare(reader, Corpus(reader, EXAMPLES, "context", 0).counts)
    if moved:
        torch.manual_seed(0)
        with torch.no_grad():
            for parameter in method.module().parameters():
                parameter += 0.02 * torch.randn_like(parameter)
    return method


def slots_of(reader):
    return [reader.prompt(example, "context").slot for example in EXAMPLES[::4]]


def asked_of(slots):
    return {slot.text: [] for slot in slots}


def received(method, slots, reader):
    return [transmit(latent)[0] for latent in method.encode(slots, reader)]


@pytest.mark.parametrize("compression", [4, 8, 16])
def test_untrained_latents_are_the_embeddings_of_the_most_surprising_words(compression):
    reader = tiny_reader("llama")
    method = prepared(reader, compression=compression)
    slots = slots_of(reader)
    for slot, row in zip(slots, method.prefix(received(method, slots, reader), reader).rows(), strict=True):
        logits = reader.model(torch.tensor([[reader.tokenizer.bos_token_id, *slot.ids]])).logits[0, :-1].float()
        surprise = F.cross_entropy(logits, torch.tensor(slot.ids), reduction="none")
        kept = by_surprise(reader, torch.tensor(slot.ids), surprise)[: -(-len(slot.ids) // compression)].sort().values
        assert torch.equal(row[:2], method.module()["adapters"][reader.fingerprint].leading())
        expected = reader.embed(torch.tensor(slot.ids)[kept]).float()
        torch.testing.assert_close(row[2:], expected, atol=1e-3, rtol=2e-3)


@pytest.mark.parametrize("compression", [4, 8, 16])
@pytest.mark.parametrize("family", FAMILIES)
def test_training_sees_exactly_what_the_ladder_measures_and_moves_all_that_serves_the_reader(family, compression):
    reader, other = tiny_reader(family), tiny_reader("qwen2" if family != "qwen2" else "llama")
    method = prepared(other, reader, moved=True, compression=compression)
    slots = slots_of(reader)
    method._drawn = compression
    prefix = method.training_prefix(slots, reader)
    assert torch.equal(prefix.embeds, method.prefix(received(method, slots, reader), reader).embeds)
    prefix.embeds.square().sum().backward()
    for name, parameter in method.module().named_parameters():
        idle = other.fingerprint in name
        assert (parameter.grad is None) == idle, name


def test_a_step_draws_its_compression_by_seed_and_step_alone():
    method = prepared(tiny_reader("llama"))
    drawn = []
    for step in range(60):
        method.draw(0, step, [])
        drawn.append(method._drawn)
    assert set(drawn) == {4, 8, 16}
    method.draw(0, 7, [])
    assert method._drawn == drawn[7]


def test_text_appended_at_a_windows_border_adds_latents_and_changes_none():
    reader = tiny_reader("llama")
    method = prepared(reader, moved=True)
    words = " ".join(example.context for example in EXAMPLES).split(" ")

    def slot(some):
        text = " ".join(some)
        return Slot((text,), reader.prompter.slot(text).ids)

    borders = [(begin, size) for begin in range(8) for size in range(begin + 100, begin + 400)]
    begin, size = next(place for place in borders if len(slot(words[place[0] : place[1]]).ids) == method.source.window)
    first, rest, whole = words[begin:size], ["", *words[size:]], words[begin:]
    made = [latent.payload for latent in method.encode([slot(part) for part in (first, rest, whole)], reader)]
    assert len(slot(rest).ids) > 100
    np.testing.assert_allclose(np.concatenate(made[:2]), made[2], atol=2e-2)


@pytest.mark.parametrize("tokens", [1, 2, 5, 17])
@pytest.mark.parametrize("compression", [4, 16])
def test_any_length_makes_as_many_latents_as_it_needs(tokens, compression):
    reader = tiny_reader("gemma3")
    method = prepared(reader, compression=compression)
    ids = reader.prompter.slot(EXAMPLES[0].context).ids[:tokens]
    slot = Slot((reader.tokenizer.decode(ids),), ids)
    (latent,) = method.encode([slot], reader)
    found = len(reader.prompter.slot(slot.text).ids)
    assert len(latent.payload) == math.ceil(math.ceil(found / 4) / (compression // 4))


def test_empty_text_is_refused():
    reader = tiny_reader("llama")
    with pytest.raises(MethodError, match="empty"):
        prepared(reader).encode([Slot(("",), ())], reader)


@pytest.mark.parametrize("scaled", ["llama", "gemma3"])
def test_another_family_starts_at_its_own_embeddings_of_the_texts_that_latents_started_from(scaled):
    encoder, reader = tiny_reader(scaled), tiny_reader("gemma3" if scaled == "llama" else "llama")
    slot = slots_of(encoder)[0]
    method = prepared(encoder, reader)
    latents = encoder.embed(torch.tensor(slot.ids)).float() / encoder.rms
    further = 0.5 * torch.randn(latents.shape, generator=torch.Generator().manual_seed(0))  # what an encoder adds
    for told in (latents, latents + further):
        (found,) = method._moved([told], reader)
        for token, embeds in zip(slot.ids, found, strict=True):
            spelt = reader.tokenizer(encoder.tokenizer.decode([token]), add_special_tokens=False)["input_ids"]
            torch.testing.assert_close(embeds, reader.embed(torch.tensor(spelt)).float().mean(dim=0))


def test_a_dictionary_takes_no_memory_for_the_tables_and_names_no_special_token():
    encoder, reader = tiny_reader("llama"), tiny_reader("gemma3")
    dictionary = Dictionary(encoder, reader)
    assert dictionary.weight.data_ptr() == encoder.model.get_input_embeddings().weight.data_ptr()
    special = torch.tensor(encoder.tokenizer.all_special_ids)
    near = dictionary._nearest(encoder.embed(special).float() / encoder.rms)
    assert not torch.isin(near, special).any()


def test_a_reader_with_another_vocabulary_is_refused(monkeypatch):
    encoder, reader = tiny_reader("llama"), tiny_reader("gemma3")
    slot = reader.prompter.slot
    monkeypatch.setattr(reader.tokenizer, "batch_decode", lambda rows: [f"\u4e00{row}" for row in rows])
    monkeypatch.setattr(reader.prompter, "slot", lambda text: slot(f"{text}{text} and"))
    with pytest.raises(
        MethodError, match=f"expected a token of '{reader.name}' for more than one in 10 .* of the same script"
    ):
        Dictionary(encoder, reader)


def test_training_lowers_the_loss_of_two_readers_and_an_attached_third_changes_nothing_else():
    readers = [tiny_reader("llama"), tiny_reader("gemma3")]
    corpora = [Corpus(reader, EXAMPLES, "context", 0) for reader in readers]
    method, records = Wire(hidden=16, task_tokens=2), []
    spec = SPEC.model_copy(update={"steps": 60, "lr": 1e-2})
    start(method, corpora, spec, Hooks())
    fit(method, corpora, ObjectiveSpec(weights={"answer_ce": 1.0}), spec, Hooks(log=records.append))
    for reader in readers:
        losses = [record["losses"]["answer_ce"] for record in records if record["reader"] == reader.name]
        assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.3
    before = {name: tensor.clone() for name, tensor in method.tensors().items()}
    third = tiny_reader("qwen2")
    method.prepare(third, corpora[0].counts)
    after = method.tensors()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert {name for name in after if name not in before} == {
        name for name in after if name.startswith(f"adapters.{third.fingerprint}.")
    }


def test_saved_and_loaded_wire_serves_both_readers_alike():
    readers = [tiny_reader("llama"), tiny_reader("gemma3")]
    method = prepared(*readers, moved=True)
    loaded = Wire(hidden=16, task_tokens=2)
    loaded.load({name: tensor.clone() for name, tensor in method.tensors().items()}, readers[0])
    for reader in readers:
        latents = received(method, slots_of(reader), reader)
        again = received(loaded, slots_of(reader), reader)
        assert torch.equal(method.prefix(latents, reader).embeds, loaded.prefix(again, reader).embeds)


def test_gathered_features_give_the_latents_of_features_made_on_the_way(tmp_path):
    reader = tiny_reader("llama")
    method = prepared(reader, moved=True)
    slots = slots_of(reader)
    method.gather(asked_of(slots), tmp_path, 8 * MIB, lambda done, remark: None)
    assert list(tmp_path.iterdir())
    found = method.encode(slots, reader)
    method._store.close()
    method._store = None
    for one, other in zip(method.encode(slots, reader), found, strict=True):
        np.testing.assert_allclose(one.payload, other.payload, atol=1e-2)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"compression": 5}, "4, 8, 16, got 5"),
        ({"compressions": (4, 12), "compression": 4}, "double"),
        ({"compressions": (), "compression": 4}, "double"),
    ],
)
def test_wrong_compressions_are_refused(fields, words):
    with pytest.raises(MethodError, match=words):
        Wire(**fields)


def test_missing_adapter_and_latents_of_another_wire_are_refused():
    reader, other = tiny_reader("llama"), tiny_reader("gemma3")
    method, moved = prepared(reader), prepared(reader, moved=True)
    latents = method.encode(slots_of(reader), reader)
    with pytest.raises(MethodError, match="attach"):
        method.prefix(latents, other)
    with pytest.raises(LatentError, match="space"):
        moved.prefix(latents, reader)


@pytest.mark.parametrize("compression", [4, 8, 16])
def test_learned_queries_give_as_many_latents_and_all_of_their_parameters_learn(compression):
    reader = tiny_reader("llama")
    method = prepared(reader, moved=True, pooling="queries", compression=compression)
    slots = slots_of(reader)
    for slot, latent in zip(slots, method.encode(slots, reader), strict=True):
        assert len(latent.payload) == -(-len(slot.ids) // compression)
    method._drawn = compression
    method.training_prefix(slots, reader).embeds.square().sum().backward()
    assert all(parameter.grad is not None for parameter in method.module().parameters())


def test_training_lets_contexts_stand_among_others_of_the_step():
    reader = tiny_reader("llama")
    method = prepared(reader, moved=True, company=1.0)
    slots = slots_of(reader)
    method.draw(0, 3, slots)
    sizes = {slot.text: -(-len(slot.ids) // method._drawn) for slot in slots}
    rows = method.training_prefix([*slots, slots[0]], reader).rows()
    assert torch.equal(rows[0], rows[-1])  # the questions of one context still share what is read
    counts = [len(row) - 2 for row in rows]
    for slot, count in zip(slots, counts, strict=False):
        assert sizes[slot.text] < count <= sum(sorted(sizes.values())[-4:])
    again = prepared(reader, moved=True, company=1.0)
    again.draw(0, 3, slots)
    assert [len(row) - 2 for row in again.training_prefix([*slots, slots[0]], reader).rows()] == counts


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_training_of_two_readers_resumed_is_bitwise_the_same(precision, tmp_path):
    spec = SPEC.model_copy(update={"steps": 8, "precision": precision})

    def trained(hooks):
        corpora = [Corpus(tiny_reader(family, shots=0), EXAMPLES, "context", 0) for family in ("llama", "gemma3")]
        method = Wire(hidden=16, task_tokens=2, company=0.5)
        start(method, corpora, spec, hooks)
        method.gather(
            asked_of([prompt.slot for prompt in corpora[0].prompts]), tmp_path, 64 * MIB, lambda done, remark: None
        )
        fit(method, corpora, ObjectiveSpec(weights={"answer_ce": 0.5, "on_policy_kl": 0.5}), spec, hooks)
        method._store.close()
        return method.tensors()

    whole, kept = trained(Hooks()), {}

    def remember(done, remark):
        kept["step"] = round(done * 8)

    hooks = Hooks(
        checkpoint=lambda state: kept.update(state=copy.deepcopy(state)),
        task=lambda words: remember if words == "training" else lambda done, remark: None,
        interrupted=lambda: kept.get("step") == 5,
    )
    with pytest.raises(KeyboardInterrupt):
        trained(hooks)
    assert kept["state"]["step"] == 5
    resumed = trained(Hooks(resume=kept["state"]))
    for name, tensor in whole.items():
        assert torch.equal(tensor, resumed[name]), name


def test_features_are_standardised_by_the_training_contexts_and_a_loaded_wire_keeps_that(tmp_path):
    reader = tiny_reader("llama")
    method = prepared(reader)
    slots = slots_of(reader)
    method.gather(asked_of(slots), tmp_path, 64 * MIB, lambda done, remark: None)
    standard = method.module()["latents"].standard
    spans = method.source.spans([method.source.windows(slot.text)[0] for slot in slots])
    found = standard(torch.cat([one.states for one in spans]).float())
    torch.testing.assert_close(found.mean(dim=0), torch.zeros(found.shape[1]), atol=2e-2, rtol=0)
    torch.testing.assert_close(found.std(dim=0), torch.ones(found.shape[1]), atol=5e-2, rtol=0)
    loaded = Wire(hidden=16, task_tokens=2)
    loaded.load(method.tensors(), reader)
    loaded.gather(asked_of(slots[:1]), tmp_path / "other", 64 * MIB, lambda done, remark: None)
    assert torch.equal(loaded.module()["latents"].standard.scale, standard.scale)


@pytest.mark.parametrize(("earlier", "step"), [(None, 1e-2), ("a wire", 1e-4)])
def test_new_task_tokens_take_larger_steps_than_the_maps(earlier, step):
    reader = tiny_reader("llama")
    spec = SPEC.model_copy(update={"steps": 1, "lr": 1e-4, "tuned_lr": 1e-2, "warmup": 0.0, "start_from": earlier})
    corpus, method = Corpus(reader, EXAMPLES, "context", 0), Wire(hidden=16, task_tokens=2)
    start(method, [corpus], spec, Hooks())
    before = {name: tensor.clone() for name, tensor in method.tensors().items()}
    fit(method, [corpus], ObjectiveSpec(weights={"answer_ce": 1.0}), spec)
    for name, tensor in method.tensors().items():
        moved = float((tensor - before[name]).abs().max())
        assert moved == pytest.approx(step if name.endswith("task_tokens") else 1e-4, rel=0.05) or moved == 0, name
    assert all(not torch.equal(before[name], method.tensors()[name]) for name in before if "task_tokens" in name)


def test_companions_do_not_depend_on_how_a_step_is_cut_into_micro_batches():
    reader = tiny_reader("llama")
    method = prepared(reader, moved=True, company=1.0)
    slots = slots_of(reader)
    method.draw(0, 5, slots)
    whole = method.training_prefix(slots, reader).rows()
    parts = [row for slot in slots for row in method.training_prefix([slot], reader).rows()]
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)


def test_an_encoder_has_weights_of_its_own_dtype_even_where_it_is_the_reader_too(tmp_path):
    reader = load_reader(str(save_tiny(tmp_path / "tiny", "llama")), dtype="float32")
    for asked, dtype in (("bfloat16", "bfloat16"), ("float32", "float32"), ("auto", "float32")):
        method = Wire(encoder=reader.source, encoder_dtype=asked)
        method.prepare(reader, np.zeros(reader.vocab_size, dtype=np.int64))
        assert method.source.dtype == dtype
        assert (method.source.reader is reader) == (dtype == "float32")
