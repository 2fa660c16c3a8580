"""Generation and scoring: where answers stop, and that batch, padding, window and forks change nothing."""

import copy
from itertools import pairwise

import pytest
import torch
import transformers
from transformers import Gemma3ForCausalLM

from latentwire.config import ObjectiveSpec, TrainSpec
from latentwire.corpus import Corpus
from latentwire.methods.embeddings import RawEmbeddings
from latentwire.methods.per_token import PerToken
from latentwire.reader import IGNORE, Inputs, Layout, Reader, fork
from latentwire.train import fit
from questions import QUESTIONS, carried, checksum, counts_of, next_logits, scored, true_inputs
from tiny import FAMILIES, tiny_model, tiny_reader

SCOPES = ("prompt", "context")


def prompts_of(reader, scope="prompt"):
    return [reader.prompt(example, scope) for example in QUESTIONS]


def labels_of(reader):
    return reader.pad_labels([reader.prompter.labels(example.answers[0]) for example in QUESTIONS])


def logits_of_ids(reader, ids):
    return reader.model(input_ids=torch.tensor([ids])).logits[0]


def close(found, expected):
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.fixture(params=FAMILIES)
def reader(request):
    return tiny_reader(request.param)


@pytest.mark.parametrize("shots", [0, 1])
@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_a_batch_equals_its_rows_one_by_one(family, shots):
    reader = tiny_reader(family, shots=shots)
    prompts, labels = prompts_of(reader, "context"), labels_of(reader)
    state = reader.prefill(true_inputs(reader, prompts))
    scores = scored(reader, state, labels)
    answers = reader.generate(fork(state), 12)
    for row, prompt in enumerate(prompts):
        due = labels[row] != IGNORE
        alone = reader.prefill(true_inputs(reader, [prompt]))
        close(next_logits(reader, state)[row], next_logits(reader, alone)[0])
        close(scores[row][due], scored(reader, alone, labels[row : row + 1, due])[0])
        assert answers[row] == reader.generate(alone, 12)[0]


@torch.no_grad()
def test_a_batch_equals_its_rows_where_the_answer_leaves_the_sliding_window():
    model, tokenizer = tiny_model("gemma3")
    longest = max(len(prompt.ids) for prompt in prompts_of(tiny_reader("gemma3")))
    config = copy.deepcopy(model.config)
    config.sliding_window = longest + 2
    wide = Gemma3ForCausalLM(config)
    wide.load_state_dict(model.state_dict())
    reader = Reader(wide, tokenizer, "wide", Layout("plain", 1), "wide")
    prompts = prompts_of(reader)
    labels = torch.arange(40).repeat(len(prompts), 1) + 10
    scores = scored(reader, reader.prefill(true_inputs(reader, prompts), 40), labels)
    for row, prompt in enumerate(prompts):
        close(scores[row], scored(reader, reader.prefill(true_inputs(reader, [prompt])), labels[row : row + 1])[0])


@torch.no_grad()
def test_training_reads_the_same_near_the_end_of_a_sliding_window():
    """Padding between the parts of a row must not push its beginning out of the window."""
    model, tokenizer = tiny_model("gemma3")
    examples = [example for example in QUESTIONS for _ in range(2)]
    prompts = [tiny_reader("gemma3").prompt(example, "context") for example in examples]
    longest = max(len(prompt.ids) for prompt in prompts)
    for spare in (1, 12, 60):
        config = copy.deepcopy(model.config)
        config.sliding_window = longest + spare
        wide = Gemma3ForCausalLM(config)
        wide.load_state_dict(model.state_dict())
        reader = Reader(wide, tokenizer, "wide", Layout("plain", 1), "wide")
        labels = reader.pad_labels([reader.prompter.labels(example.answers[0]) for example in examples])
        inputs = true_inputs(reader, prompts)
        due = reader.append(inputs, labels).mask
        close(reader.forced_states(inputs, labels)[due], reader.hidden_states(reader.append(inputs, labels))[due])


@torch.no_grad()
def test_padding_on_the_left_changes_nothing(reader):
    inputs = true_inputs(reader, prompts_of(reader))
    rows, _, width = inputs.embeds.shape
    garbage = torch.randn(rows, 9, width, generator=torch.Generator().manual_seed(0)) * 100
    padded = Inputs(
        torch.cat([garbage, inputs.embeds], dim=1),
        torch.cat([torch.zeros(rows, 9, dtype=torch.bool), inputs.mask], dim=1),
    )
    close(next_logits(reader, reader.prefill(padded)), next_logits(reader, reader.prefill(inputs)))
    assert reader.generate(reader.prefill(padded), 8) == reader.generate(reader.prefill(inputs), 8)
    close(reader.hidden_states(padded)[:, 9:][inputs.mask], reader.hidden_states(inputs)[inputs.mask])


@torch.no_grad()
def test_score_equals_one_full_forward(reader):
    prompts, labels = prompts_of(reader), labels_of(reader)
    scores = scored(reader, reader.prefill(true_inputs(reader, prompts)), labels)
    for row, prompt in enumerate(prompts):
        answer = labels[row][labels[row] != IGNORE].tolist()
        full = logits_of_ids(reader, (*prompt.ids, *answer))
        close(scores[row][: len(answer)], full[len(prompt.ids) - 1 : -1])


@torch.no_grad()
def test_score_of_one_label_is_what_the_prefill_predicts(reader):
    state = reader.prefill(true_inputs(reader, prompts_of(reader)))
    assert torch.equal(reader.answer_states(state, labels_of(reader)[:, :1])[:, 0], state.hidden)


@torch.no_grad()
def test_score_leaves_the_state_usable(reader):
    prompts = prompts_of(reader)
    state = reader.prefill(true_inputs(reader, prompts))
    first = scored(reader, state, labels_of(reader))
    assert torch.equal(scored(reader, state, labels_of(reader)), first)
    assert reader.generate(state, 6) == reader.generate(reader.prefill(true_inputs(reader, prompts)), 6)


@torch.no_grad()
def test_fork_can_be_consumed_without_touching_the_original(reader):
    prompts = prompts_of(reader)
    state = reader.prefill(true_inputs(reader, prompts))
    ids = torch.arange(20).reshape(4, 5) + 30
    taken, _ = reader.extend(fork(state), ids, torch.ones_like(ids, dtype=torch.bool))
    again, _ = reader.extend(fork(state), ids, torch.ones_like(ids, dtype=torch.bool))
    assert torch.equal(taken, again)
    assert reader.generate(state, 6) == reader.generate(reader.prefill(true_inputs(reader, prompts)), 6)


@torch.no_grad()
def test_extending_twice_equals_extending_once(reader):
    prompts = prompts_of(reader)
    state = reader.prefill(true_inputs(reader, prompts))
    ids = torch.arange(24).reshape(4, 6) + 30
    seen = torch.ones_like(ids, dtype=torch.bool)
    whole, end = reader.extend(fork(state), ids, seen)
    _, middle = reader.extend(fork(state), ids[:, :2], seen[:, :2])
    rest, later = reader.extend(middle, ids[:, 2:], seen[:, 2:])
    close(rest, whole[:, 2:])
    close(later.hidden, end.hidden)
    assert torch.equal(later.mask, end.mask)
    close(reader.head(whole[1]), logits_of_ids(reader, (*prompts[1].ids, *ids[1].tolist()))[-6:])


@torch.no_grad()
def test_hidden_states_and_head_give_the_model_logits(reader):
    prompt = prompts_of(reader)[1]
    close(
        reader.head(reader.hidden_states(true_inputs(reader, [prompt])))[0],
        logits_of_ids(reader, prompt.ids),
    )


@torch.no_grad()
def test_head_caps_logits_where_the_model_does():
    model, tokenizer = tiny_model("gemma3")
    config = copy.deepcopy(model.config)
    config.final_logit_softcapping = 3.0
    capped = Gemma3ForCausalLM(config)
    capped.load_state_dict(model.state_dict())
    reader = Reader(capped, tokenizer, "capped", Layout("plain", 0), "capped")
    prompt = prompts_of(reader)[0]
    logits = logits_of_ids(reader, prompt.ids)
    assert float(logits.abs().max()) <= 3.0
    close(reader.head(reader.hidden_states(true_inputs(reader, [prompt])))[0], logits)


@pytest.mark.parametrize(("family", "own"), [("Granite", {"logits_scaling": 4.0}), ("Cohere", {"logit_scale": 0.25})])
@torch.no_grad()
def test_head_scales_logits_where_the_model_does(family, own):
    model, tokenizer = tiny_model("llama")
    shape = {name: getattr(model.config, name) for name in ("vocab_size", "hidden_size", "intermediate_size")}
    heads = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    tokens = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    config = getattr(transformers, f"{family}Config")(**shape, **heads, **tokens, **own, max_position_embeddings=2048)
    reader = Reader(
        getattr(transformers, f"{family}ForCausalLM")(config), tokenizer, family, Layout("plain", 0), family
    )
    prompt = prompts_of(reader)[0]
    close(next_logits(reader, reader.prefill(true_inputs(reader, [prompt])))[0], logits_of_ids(reader, prompt.ids)[-1])


def speaking(stop, style="plain", tokenizer=None):
    """A tiny Llama reader that says `stop` where it would have said its first new token after the third."""
    model, own = tiny_model("llama")
    tokenizer = tokenizer or own
    model = copy.deepcopy(model)
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    reader = Reader(model, tokenizer, "speaking", Layout(style, 1), "speaking")
    said = reader.generate(reader.prefill(true_inputs(reader, prompts_of(reader)[:1])), 24)[0].ids
    place = next(i for i in range(3, len(said)) if said[i] not in said[:i])
    head = model.lm_head.weight.data
    head[[stop, said[place]]] = head[[said[place], stop]]
    return reader, said[:place]


def ask(reader, max_new_tokens=24):
    return reader.generate(reader.prefill(true_inputs(reader, prompts_of(reader)[:1])), max_new_tokens)[0]


@pytest.mark.parametrize(
    ("text", "style"), [("</s>", "plain"), ("</s>", "chat"), ("<|im_end|>", "chat"), ("\n", "plain"), ("\n", "chat")]
)
@torch.no_grad()
def test_generation_ends_at_a_stop_which_the_answer_leaves_out(text, style):
    _, tokenizer = tiny_model("llama")
    (stop,) = tokenizer(text, add_special_tokens=False)["input_ids"]
    reader, said = speaking(stop, style)
    answer = ask(reader)
    assert answer.ids == (*said, stop)
    assert answer.text == tokenizer.decode(said, skip_special_tokens=True).strip()
    assert len(answer.text) > 0


@torch.no_grad()
def test_answer_keeps_what_stands_before_a_line_break_inside_a_token():
    tokenizer = copy.deepcopy(tiny_model("llama")[1])
    tokenizer.add_tokens(["zebra\nQuestion"])
    stop = tokenizer.convert_tokens_to_ids("zebra\nQuestion")
    reader, said = speaking(stop, tokenizer=tokenizer)
    answer = ask(reader)
    assert answer.ids == (*said, stop)
    assert answer.text == tokenizer.decode(said).strip() + "zebra"


@torch.no_grad()
def test_generation_ends_at_the_longest_answer_allowed(reader):
    answers = [ask(reader, count) for count in (1, 5, 9)]
    assert [len(answer.ids) for answer in answers] == [1, 5, 9]
    assert all(later.ids[: len(earlier.ids)] == earlier.ids for earlier, later in pairwise(answers))


@torch.no_grad()
def test_generation_is_greedy(reader):
    prompt = prompts_of(reader)[0]
    ids = list(prompt.ids)
    for token in ask(reader, 5).ids:
        assert token == int(logits_of_ids(reader, ids)[-1].argmax())
        ids.append(token)


@torch.no_grad()
def test_rows_that_go_on_are_not_disturbed_by_rows_that_stopped():
    _, tokenizer = tiny_model("llama")
    reader, _ = speaking(tokenizer.eos_token_id)
    prompts = prompts_of(reader)
    together = reader.generate(reader.prefill(true_inputs(reader, prompts)), 24)
    assert len({len(answer.ids) for answer in together}) > 1
    for prompt, answer in zip(prompts, together, strict=True):
        assert answer == reader.generate(reader.prefill(true_inputs(reader, [prompt])), 24)[0]


def test_reader_weights_never_move_in_training(reader):
    before = checksum(reader)
    corpus = Corpus(reader, QUESTIONS, "prompt", 0)
    method = PerToken()
    method.prepare(reader, corpus.counts)
    start = method.module().full.clone()
    weights = {"reconstruct": 1.0, "answer_ce": 1.0, "on_policy_kl": 1.0}
    fit(method, [corpus], ObjectiveSpec(weights=weights), TrainSpec(steps=2, batch_examples=2))
    assert not torch.equal(method.module().full, start)
    assert checksum(reader) == before
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in reader.model.parameters())


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_embeddings_are_table_rows_where_nothing_is_scaled(family):
    reader = tiny_reader(family)
    weight = reader.model.get_input_embeddings().weight
    assert reader.rms == pytest.approx(float(weight.square().mean().sqrt()), rel=1e-5)
    for rows, embeds in reader.table(torch.tensor([3, 1, 500])):
        assert torch.equal(embeds, weight[rows])


def test_table_in_chunks_is_the_whole_table(reader, monkeypatch):
    monkeypatch.setattr("latentwire.reader.TABLE_BYTES", 100 * 4 * reader.width)
    chunks = list(reader.table())
    assert [len(rows) for rows, _ in chunks] == [100] * 5 + [reader.vocab_size - 500]
    assert torch.equal(torch.cat([embeds for _, embeds in chunks]), reader.embed(torch.arange(reader.vocab_size)))


@torch.no_grad()
def test_prefix_stands_where_the_slot_was(reader):
    prompt = reader.prompt(QUESTIONS[0], "context")
    inputs = reader.lay_in([prompt], carried(RawEmbeddings(), [prompt], reader))
    assert torch.equal(inputs.embeds[0], reader.embed(torch.tensor(prompt.ids)))
    assert inputs.mask.all()


@torch.no_grad()
def test_reader_answers_alike_from_a_decoder_that_restores_every_token(reader):
    method = PerToken(decoder="codebook_hard")
    method.prepare(reader, counts_of(reader))
    prompts = prompts_of(reader)
    through = reader.generate(reader.prefill(reader.lay_in(prompts, carried(method, prompts, reader))), 8)
    assert through == reader.generate(reader.prefill(true_inputs(reader, prompts)), 8)
