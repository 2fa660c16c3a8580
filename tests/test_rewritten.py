"""Text from another program's file: it takes the context's place, and what is missing is said."""

import json

import pytest

from latentwire.config import make_recipe
from latentwire.corpus import Corpus
from latentwire.data import DATASETS
from latentwire.errors import MethodError, RecipeError
from latentwire.methods.rewritten import Rewritten
from latentwire.rungs import ladder_rungs
from tiny import tiny_reader

EXAMPLES = DATASETS["facts"]().examples("train", 0, 3)


def written(path, examples):
    lines = [json.dumps({"text": example.context, "rewritten": example.context[:20]}) for example in examples]
    path.write_text("\n".join(lines) + "\n")
    return Rewritten(str(path))


def test_the_files_text_stands_in_the_contexts_place_and_the_rest_of_the_prompt_as_it_was(tmp_path):
    reader, method = tiny_reader("llama"), written(tmp_path / "texts.jsonl", EXAMPLES)
    slots = [reader.prompt(example, "prompt").slot for example in EXAMPLES]
    for slot, latent, row in zip(
        slots, latents := method.encode(slots, reader), method.prefix(latents, reader).rows(), strict=True
    ):
        before, context, after = slot.pieces
        assert len(row) == len(reader.prompter.slot(before, context[:20], after).ids) < len(slot.ids)
        assert latent.source_tokens == len(slot.ids)


def test_a_context_that_the_file_has_not_is_an_error_that_names_it(tmp_path):
    reader, method = tiny_reader("llama"), written(tmp_path / "texts.jsonl", EXAMPLES[:1])
    slots = [reader.prompt(example, "context").slot for example in EXAMPLES]
    with pytest.raises(MethodError, match=f"expected the context '{EXAMPLES[1].context[:40]}'"):
        method.encode(slots, reader)


@pytest.mark.parametrize("text", ["not json\n", '{"text": "a"}\n', "[1]\n", None])
def test_a_file_of_another_form_is_refused(tmp_path, text):
    path = tmp_path / "texts.jsonl"
    if text is not None:
        path.write_text(text)
    reader = tiny_reader("llama")
    with pytest.raises(MethodError, match="expected JSON lines with 'text' and 'rewritten'"):
        Rewritten(str(path)).encode([reader.prompt(EXAMPLES[0], "context").slot], reader)


def test_a_recipe_adds_rungs_to_the_ladder_by_their_methods():
    reader = tiny_reader("llama")
    corpus = Corpus(reader, EXAMPLES, "context", 0)
    method = {"name": "pooled"}
    more = {"name": "another's", "of": {"name": "rewritten", "path": "x.jsonl"}}
    plain = ladder_rungs(make_recipe({"name": "a", "reader": {"name": "r"}, "method": method}), corpus)
    asked = {"name": "a", "reader": {"name": "r"}, "method": method, "eval": {"rungs": [more]}}
    found = ladder_rungs(make_recipe(asked), corpus)
    assert found[:-1] == plain
    assert (found[-1].name, found[-1].spec, found[-1].trained) == ("another's", more["of"], False)
    tuned = {"name": "another's 4x, tuned", "of": {"name": "tuned", "of": more["of"]}}
    last = ladder_rungs(make_recipe({**asked, "eval": {"rungs": [more, tuned]}}), corpus)[-1]
    assert (last.spec, last.weights) == (tuned["of"], "tuned/another-s-4x")
    with pytest.raises(RecipeError, match="of"):
        make_recipe({**asked, "eval": {"rungs": [{"name": "another's"}]}})
