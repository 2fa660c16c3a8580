"""The one place that lays prompts out."""

import dataclasses

import pytest

from latentwire.data import DATASETS
from latentwire.errors import PromptError
from latentwire.reader.prompts import ANCHOR, WORKED_EXAMPLES, Layout, Prompter
from tiny import FAMILIES, tiny_reader, tiny_tokenizer

EXAMPLE = DATASETS["facts"]().examples("train", 0, 1)[0]
LAYOUTS = [
    (family, style, shots)
    for family in FAMILIES
    for style in ("plain", "chat")
    for shots in (0, 1, 2)
    if not (family == "gemma3" and style == "chat")
]


@pytest.mark.parametrize(("family", "style", "shots"), LAYOUTS)
def test_both_scopes_hold_the_same_ids_in_the_same_order(family, style, shots):
    prompter = tiny_reader(family, style=style, shots=shots).prompter
    whole, context = prompter.prompt(EXAMPLE, "prompt"), prompter.prompt(EXAMPLE, "context")
    assert whole.ids == context.ids
    assert whole.before == whole.after == ()
    assert context.slot.text == EXAMPLE.context


@pytest.mark.parametrize(("family", "style", "shots"), LAYOUTS)
def test_prompt_has_one_bos_the_shots_the_question_and_ends_with_the_anchor(family, style, shots):
    reader = tiny_reader(family, style=style, shots=shots)
    prompt = reader.prompter.prompt(EXAMPLE, "prompt")
    bos = reader.tokenizer.bos_token_id
    text = reader.tokenizer.decode(prompt.ids)
    assert prompt.ids.count(bos) == (bos is not None)
    assert bos is None or prompt.ids[0] == bos
    assert text.endswith(ANCHOR)
    assert EXAMPLE.question in text
    assert [question in text for _, question, _ in WORKED_EXAMPLES] == [shots > 0, shots > 1]


def test_bos_that_the_template_brings_is_not_doubled():
    tokenizer = tiny_tokenizer("llama").__class__(
        tokenizer_object=tiny_tokenizer("llama")._tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )
    tokenizer.chat_template = "<s>" + tiny_tokenizer("llama").chat_template
    ids = Prompter(tokenizer, Layout("chat", 0), 2048).prompt(EXAMPLE, "prompt").ids
    assert ids.count(tokenizer.bos_token_id) == 1


@pytest.mark.parametrize("family", FAMILIES)
def test_slot_made_from_its_own_pieces_has_the_same_ids(family):
    prompter = tiny_reader(family).prompter
    for scope in ("prompt", "context"):
        slot = prompter.prompt(EXAMPLE, scope).slot
        assert prompter.slot(*slot.pieces) == slot


def test_plain_labels_end_with_a_line_break_and_chat_labels_with_the_end_of_turn():
    plain, chat = tiny_reader("llama").prompter, tiny_reader("llama", style="chat").prompter
    tokenizer = tiny_reader("llama").tokenizer
    assert tokenizer.decode(plain.labels("red")) == " red\n"
    assert tokenizer.decode(chat.labels("red")) == " red<|im_end|>"


def test_chat_layout_without_a_template_is_refused():
    with pytest.raises(PromptError, match=r"reader\.style=plain"):
        Prompter(tiny_tokenizer("gemma3"), Layout("chat", 0), 2048)


def test_more_worked_examples_than_there_are_is_refused():
    with pytest.raises(PromptError, match="0 to 2"):
        Layout("plain", 3)


def test_prompt_that_is_too_long_names_the_example():
    prompter = Prompter(tiny_tokenizer("llama"), Layout("plain", 0), 50)
    with pytest.raises(PromptError, match=EXAMPLE.id):
        prompter.prompt(EXAMPLE, "prompt")


def test_allowed_cut_keeps_the_question_and_is_counted():
    full = Prompter(tiny_tokenizer("llama"), Layout("plain", 0), 2048).prompt(EXAMPLE, "prompt")
    limit = len(full.ids) - 40
    cut = Prompter(tiny_tokenizer("llama"), Layout("plain", 0), limit, "truncate").prompt(EXAMPLE, "prompt")
    assert cut.truncated_tokens == 40
    assert len(cut.ids) <= limit
    assert cut.slot.pieces[2] == full.slot.pieces[2]
    assert full.slot.context.startswith(cut.slot.context)


def test_cut_that_would_leave_no_context_is_refused_even_when_cuts_are_allowed():
    prompter = Prompter(tiny_tokenizer("llama"), Layout("plain", 0), 30, "truncate")
    with pytest.raises(PromptError, match=EXAMPLE.id):
        prompter.prompt(EXAMPLE, "prompt")


def test_text_that_looks_like_the_questions_place_stays_text():
    odd = dataclasses.replace(EXAMPLE, context="a {s} % b " + EXAMPLE.context)
    prompt = tiny_reader("llama").prompt(odd, "context")
    assert prompt.slot.text == odd.context


@pytest.mark.parametrize("style", ["plain", "chat"])
@pytest.mark.parametrize("scope", ["prompt", "context"])
def test_context_that_spells_an_end_of_turn_stays_text(style, scope):
    reader = tiny_reader("llama", style=style, shots=2)
    stop = reader.tokenizer.convert_tokens_to_ids("<|im_end|>")
    plain = reader.prompt(EXAMPLE, scope)
    odd = reader.prompt(dataclasses.replace(EXAMPLE, context="over <|im_end|> " + EXAMPLE.context), scope)
    assert odd.ids.count(stop) == plain.ids.count(stop) == (5 if style == "chat" else 0)
    assert "over <|im_end|> " in reader.tokenizer.decode(odd.ids)
    assert reader.prompter.slot(*odd.slot.pieces) == odd.slot


def test_question_that_spells_an_end_of_turn_is_text_in_a_plain_layout_and_refused_in_a_template():
    odd = dataclasses.replace(EXAMPLE, question="Who <|im_end|>?")
    plain = tiny_reader("llama")
    assert plain.tokenizer.convert_tokens_to_ids("<|im_end|>") not in plain.prompt(odd, "prompt").ids
    with pytest.raises(PromptError, match=rf"{EXAMPLE.id}.*<\|im_end\|>.*reader\.style=plain"):
        tiny_reader("llama", style="chat").prompt(odd, "prompt")
