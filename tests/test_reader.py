"""The frozen reader on tiny real models of three families."""

import pytest
import torch
import torch.nn.functional as F

from latentwire.data import DATASETS
from latentwire.errors import ReaderError
from latentwire.methods.embeddings import RawEmbeddings
from latentwire.methods.text import FullText
from latentwire.reader import IGNORE, Layout, Prefix, Reader, fork
from questions import next_logits, scored
from tiny import FAMILIES, tiny_model, tiny_reader

EXAMPLES = DATASETS["facts"]().examples("train", 0, 4)
ABOUT_TWO = DATASETS["facts"](questions_per_passage=3).examples("train", 5, 5)
SEVERAL = [*ABOUT_TWO[:3], EXAMPLES[0], *ABOUT_TWO[3:]]  # three about one context, one alone, two about another
SCOPES = ("prompt", "context")

pytestmark = pytest.mark.parametrize("family", FAMILIES)


def laid_in(reader, examples, scope="prompt", method=None):
    method = method or RawEmbeddings()
    prompts = [reader.prompt(example, scope) for example in examples]
    return reader.lay_in(prompts, method.prefix(method.encode([p.slot for p in prompts], reader), reader))


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("method", [RawEmbeddings(), FullText()], ids=["raw", "text"])
def test_logits_from_a_prefix_equal_logits_from_ids(family, scope, method):
    reader = tiny_reader(family)
    for example in EXAMPLES[:2]:
        ids = torch.tensor([reader.prompt(example, scope).ids])
        expected = reader.model(input_ids=ids).logits[:, -1]
        found = next_logits(reader, reader.prefill(laid_in(reader, [example], scope, method)))
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_a_batch_reads_scores_and_answers_like_one_by_one(family):
    reader = tiny_reader(family)
    labels = [reader.prompter.labels(example.answers[0]) for example in EXAMPLES]
    together = reader.prefill(laid_in(reader, EXAMPLES))
    scores = scored(reader, together, reader.pad_labels(labels))
    answers = reader.generate(together, 8)
    for row, example in enumerate(EXAMPLES):
        alone = reader.prefill(laid_in(reader, [example]))
        torch.testing.assert_close(next_logits(reader, together)[row], next_logits(reader, alone)[0], atol=1e-4, rtol=0)
        expected = scored(reader, alone, reader.pad_labels([labels[row]]))[0]
        torch.testing.assert_close(scores[row, : len(labels[row])], expected, atol=1e-4, rtol=0)
        assert answers[row] == reader.generate(alone, 8)[0]


@pytest.mark.parametrize(("examples", "readings"), [(EXAMPLES, 2), (SEVERAL, 3)], ids=["all", "stems"])
def test_a_shared_beginning_read_once_changes_no_logit_and_no_answer(family, examples, readings, monkeypatch):
    reader = tiny_reader(family)
    monkeypatch.setattr(reader, "_window", float("inf") if family != "gemma3" else reader._window)
    inputs = laid_in(reader, examples)
    calls, forward = [], reader._forward
    monkeypatch.setattr(reader, "_forward", lambda *given, **named: calls.append(1) or forward(*given, **named))
    shared = reader.prefill(inputs)
    assert len(calls) == (1 if family == "gemma3" else readings)
    monkeypatch.setattr("latentwire.reader.WORTH_SHARING", 10**6)
    apart = reader.prefill(inputs)
    torch.testing.assert_close(shared.hidden, apart.hidden, atol=1e-4, rtol=0)
    assert reader.generate(shared, 8) == reader.generate(apart, 8)


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize(
    ("examples", "readings", "share"), [(EXAMPLES, 2, 0.9), (SEVERAL, 3, 0.7)], ids=["all", "stems"]
)
def test_what_rows_have_in_common_read_once_changes_no_state_and_no_gradient(
    family, scope, examples, readings, share, monkeypatch
):
    reader = tiny_reader(family)
    monkeypatch.setattr(reader, "_window", float("inf") if family != "gemma3" else reader._window)
    prompts = [reader.prompt(example, scope) for example in examples]
    labels = reader.pad_labels([reader.prompter.labels(example.answers[0]) for example in examples])
    table = torch.nn.Parameter(reader.embed(torch.arange(reader.vocab_size)))
    read = []
    monkeypatch.setattr(reader, "_kept", None)
    forward = reader._forward

    def counted(mask, inputs_embeds, **given):
        read.append(inputs_embeds.shape[:2].numel())
        return forward(mask, inputs_embeds=inputs_embeds, **given)

    monkeypatch.setattr(reader, "_forward", counted)

    def measured():
        read.clear()
        slots = [F.embedding(torch.tensor(prompt.slot.ids), table) for prompt in prompts]
        inputs = reader.lay_in(prompts, Prefix.stack(slots))
        hidden = reader.forced_states(inputs, labels)
        due = reader.append(inputs, labels).mask
        weights = torch.linspace(-1, 1, hidden.shape[-1])
        (gradient,) = torch.autograd.grad((hidden[due] * weights).sum(), table)
        return hidden[due], gradient, list(read)

    found, gradient, positions = measured()
    monkeypatch.setattr("latentwire.reader.WORTH_SHARING", 10**6)
    expected, expected_gradient, positions_apart = measured()
    assert (len(positions), len(positions_apart)) == (1 if family == "gemma3" else readings, 1)
    assert family == "gemma3" or sum(positions) < share * sum(positions_apart)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    assert float((gradient - expected_gradient).norm() / expected_gradient.norm()) < 1e-5


def test_what_prompts_open_with_is_read_once_for_all_steps(family, monkeypatch):
    reader = tiny_reader(family)
    monkeypatch.setattr(reader, "_window", float("inf"))
    monkeypatch.setattr(reader, "_kept", None)
    prompts = [reader.prompt(example, "context") for example in EXAMPLES]
    labels = reader.pad_labels([reader.prompter.labels(example.answers[0]) for example in EXAMPLES])
    read, forward = [], reader._forward

    def counted(mask, inputs_embeds, **given):
        read.append(inputs_embeds.shape[1])
        return forward(mask, inputs_embeds=inputs_embeds, **given)

    monkeypatch.setattr(reader, "_forward", counted)
    first, second = [reader.forced_states(laid_in(reader, EXAMPLES, "context"), labels) for _ in range(2)]
    assert read.count(len(prompts[0].before)) == 1
    assert torch.equal(first, second)


def test_score_equals_one_pass_over_prompt_and_answer(family):
    reader = tiny_reader(family)
    labels = reader.pad_labels([reader.prompter.labels(example.answers[0]) for example in EXAMPLES])
    inputs = laid_in(reader, EXAMPLES)
    hidden = reader.hidden_states(reader.append(inputs, labels))
    expected = reader.head(hidden[:, -labels.shape[1] :])
    found = scored(reader, reader.prefill(inputs), labels)
    due = labels != IGNORE
    torch.testing.assert_close(found[due], expected[due], atol=1e-4, rtol=0)


def test_scoring_leaves_the_state_usable(family):
    reader = tiny_reader(family)
    state = reader.prefill(laid_in(reader, EXAMPLES))
    expected = reader.generate(fork(state), 6)
    scored(reader, state, reader.pad_labels([reader.prompter.labels(example.answers[0]) for example in EXAMPLES]))
    assert reader.generate(state, 6) == expected


def test_an_answer_ends_before_its_stop_token(family, monkeypatch):
    reader = tiny_reader(family)
    state = reader.prefill(laid_in(reader, EXAMPLES[:1]))
    word = reader.tokenizer(" river", add_special_tokens=False)["input_ids"]
    for stop in (reader.prompter.stop_id, reader.tokenizer.eos_token_id):
        logits = F.one_hot(torch.tensor([stop]), reader.vocab_size).float()
        monkeypatch.setattr(reader, "head", lambda hidden, logits=logits: logits)
        answer = reader.generate(fork(state), 8)[0]
        assert answer.ids == (stop,)
        assert answer.text == ""
        assert reader.text([*word, stop]) == "river"


def test_generation_stops_at_the_length_limit(family):
    reader = tiny_reader(family)
    answers = reader.generate(reader.prefill(laid_in(reader, EXAMPLES)), 3)
    assert all(len(answer.ids) <= 3 for answer in answers)


def test_every_parameter_is_frozen(family):
    reader = tiny_reader(family)
    assert not any(parameter.requires_grad for parameter in reader.model.parameters())


def test_magnitudes_come_from_the_embedding_modules_output(family):
    reader = tiny_reader(family)
    weight = reader.model.get_input_embeddings().weight
    plain = float(weight.square().mean().sqrt())
    scale = reader.width**0.5 if family == "gemma3" else 1.0
    assert reader.rms == pytest.approx(plain * scale, rel=1e-2)


@pytest.mark.parametrize("token", ["eos", "pad"])
def test_tokenizer_without_eos_or_pad_is_refused(family, token):
    model, tokenizer = tiny_model(family)
    bare = type(tokenizer)(
        tokenizer_object=tokenizer._tokenizer, **{f"{'pad' if token == 'eos' else 'eos'}_token": "<pad>"}
    )
    with pytest.raises(ReaderError, match=token):
        Reader(model, bare, "bare", Layout("plain", 0), "x")


def test_model_that_reads_more_than_embeddings_is_refused(family):
    model, tokenizer = tiny_model(family)

    class AddsIds(type(model)):
        def forward(self, input_ids=None, **rest):
            out = super().forward(input_ids=input_ids, **rest)
            if input_ids is not None:
                out.logits = out.logits + input_ids[..., None] * 0.01
            return out

    foreign = AddsIds(model.config)
    with pytest.raises(ReaderError, match="equal logits"):
        Reader(foreign, tokenizer, "foreign", Layout("plain", 0), "x")


def test_model_whose_head_does_more_than_project_is_refused(family):
    model, tokenizer = tiny_model(family)

    class Scales(type(model)):
        def forward(self, *args, **rest):
            out = super().forward(*args, **rest)
            out.logits = 1.5 * out.logits
            return out

    with pytest.raises(ReaderError, match="from its output head"):
        Reader(Scales(model.config), tokenizer, "foreign", Layout("plain", 0), "x")
