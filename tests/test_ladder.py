"""The ladder on a tiny reader: equal inputs, equal scores, one bill for all."""

import dataclasses

import pytest

from latentwire.config import EvalSpec, make_recipe
from latentwire.corpus import Corpus
from latentwire.data import DATASETS
from latentwire.errors import DataError, RecipeError
from latentwire.evaluate import Evaluator, Outcome, measure_decoder
from latentwire.ladder import Climber, make_rows
from latentwire.methods import METHODS
from latentwire.methods.text import FullText
from latentwire.pipeline import evaluation_examples, training_examples
from latentwire.report.rows import FLOOR, RAW, TEXT, TEXT_EQUAL_POSITIONS, TOKEN_IDS
from latentwire.rungs import ladder_rungs
from latentwire.specs import build
from tiny import tiny_reader

TRAIN = DATASETS["facts"]().examples("train", 0, 8)
EVAL = DATASETS["facts"]().examples("heldout", 0, 6)
RECIPE = make_recipe(
    {
        "name": "x",
        "reader": {"name": "tiny"},
        "method": {"name": "per_token", "compression": 4, "decoder": "linear"},
        "eval": {"scopes": ["prompt"], "resamples": 200},
    }
)
TRAINED = {"train_examples": 8, "train_seconds": 1.0}
FACTS = {"threads": 1, "hardware": "test", "commit": "c"}
SAME = (TEXT, RAW, TOKEN_IDS, TEXT_EQUAL_POSITIONS, "pca 4x, codebook_hard")


@pytest.fixture(scope="module")
def ladder():
    reader = tiny_reader("gemma3")
    corpus = Corpus(reader, TRAIN, "prompt", 0)
    rungs = {}
    for rung in ladder_rungs(RECIPE, corpus):
        method = build(METHODS, rung.spec)
        method.prepare(reader, corpus.counts)
        rungs[rung.name] = Climber(rung, method, TRAINED if rung.trained else {})
    evaluator = Evaluator(reader, EVAL, 4, 5)
    results = [evaluator.run(name, rung.method, "prompt") for name, rung in rungs.items()]
    return reader, rungs, evaluator, results


def rows_of(ladder, results=None):
    reader, rungs, _, found = ladder
    return {row.rung: row for row in make_rows(results or found, rungs, EVAL, RECIPE, reader, FACTS)}


def test_rungs_that_show_the_reader_the_same_numbers_score_the_same(ladder):
    rows = rows_of(ladder)
    for name in SAME:
        for field in (
            "f1",
            "em",
            "answer_nll",
            "first_token_nll",
            "teacher_forced_accuracy",
            "num_positions",
            "agreement",
        ):
            assert getattr(rows[name], field) == getattr(rows[RAW], field), (name, field)
    assert rows[TEXT].agreement == 1.0
    assert rows[RAW].exposure_gap == 0.0


def test_identical_inputs_are_read_once(ladder):
    _, rungs, evaluator, _ = ladder
    others = len(rungs) - len(SAME) - 1  # text cut to equal bytes cuts nothing here; linear stands there twice
    assert len(evaluator._seen) <= (1 + others) * len(EVAL)
    before = len(evaluator._seen)
    evaluator.run("again", rungs[RAW].method, "context")
    assert len(evaluator._seen) == before


def test_rungs_with_the_same_inputs_call_the_reader_once(ladder, monkeypatch):
    reader, rungs, _, _ = ladder
    prefill, calls = reader.prefill, []

    def counted(inputs, *rest):
        calls.append(len(inputs.mask))
        return prefill(inputs, *rest)

    monkeypatch.setattr(reader, "prefill", counted)
    evaluator = Evaluator(reader, EVAL, 4, 5)
    for name in SAME:
        evaluator.run(name, rungs[name].method, "prompt")
    assert calls == [4, 2]
    evaluator.run(FLOOR, rungs[FLOOR].method, "prompt")
    assert calls == 2 * [4, 2]


@pytest.mark.parametrize("scope", ["context", "prompt"])
def test_the_questions_of_a_context_share_its_reading_but_not_its_time(scope, monkeypatch):
    """Two contexts, three questions each, asked in turn: read as three rows of a context, timed as one row of each."""
    reader = tiny_reader("llama")
    passages = DATASETS["facts"](questions_per_passage=3).examples("heldout", 0, 6)
    asked = [passages[place] for place in (0, 3, 1, 4, 2, 5)]
    expected = Evaluator(reader, asked, 1, 5).run("alone", FullText(), scope)
    read, forward = [], reader._forward

    def counted(mask, inputs_embeds, **given):
        read.append(inputs_embeds.shape[:2])
        return forward(mask, inputs_embeds=inputs_embeds, **given)

    monkeypatch.setattr(reader, "_forward", counted)
    found = Evaluator(reader, asked, 6, 5).run("together", FullText(), scope)
    assert [out.answer for out in found.outcomes] == [out.answer for out in expected.outcomes]
    assert [out.answer_nll for out in found.outcomes] == pytest.approx(
        [out.answer_nll for out in expected.outcomes], abs=1e-4
    )
    longest = max(len(reader.prompt(example, "context").slot.ids) for example in asked)
    contexts = [rows for rows, size in read if size > longest // 2]
    assert contexts == [2, 1, 2], "expected both contexts to be read once for their questions, and once to be timed"


def test_each_rung_pays_what_it_sends(ladder):
    reader, _, _, _ = ladder
    rows = rows_of(ladder)
    tokens = sum(len(reader.prompt(example, "prompt").slot.ids) for example in EVAL) / len(EVAL)
    assert rows[RAW].bytes_on_wire == pytest.approx(tokens * reader.width * 4)
    assert rows[TOKEN_IDS].bytes_on_wire == pytest.approx(tokens * 2) == rows[RAW].token_id_bytes
    assert rows["pca 4x, linear"].bytes_on_wire == pytest.approx(tokens * (16 + 2))
    assert rows["pca 4x, linear"].compression_achieved == 4
    assert rows[FLOOR].bytes_on_wire < rows[TEXT].bytes_on_wire == rows[RAW].text_bytes
    slots = [reader.prompt(example, "prompt").slot for example in EVAL]
    texts = [len(slot.text.encode()) + len(slot.pieces) - 1 for slot in slots]  # a byte between pieces
    assert rows[TEXT].bytes_on_wire == pytest.approx(sum(texts) / len(texts))
    assert rows[TEXT_EQUAL_POSITIONS].note == "no cut happened"
    assert 1 <= rows["pca at the text's bytes, linear"].bytes_on_wire <= 1.5 * rows[TEXT].bytes_on_wire


def test_ratio_is_given_only_where_raw_is_clearly_above_the_floor(ladder):
    results = ladder[3]
    better = [dataclasses.replace(r, f1=[1.0 if r.rung != FLOOR else 0.0] * len(EVAL)) for r in results]
    rows = rows_of(ladder, better)
    assert rows[RAW].ratio == 1.0
    assert rows[FLOOR].ratio == 0.0
    assert rows[RAW].share_of_plain_gap == 1.0
    equal = rows_of(ladder, [dataclasses.replace(r, f1=[0.5] * len(EVAL)) for r in results])
    assert all(row.ratio is None and row.share_of_plain_gap is None for row in equal.values())


def test_exposure_gap_is_forced_minus_free_accuracy_minus_raws(ladder):
    def outcome(forced, free):
        return Outcome("x", 1.0, 1.0, forced, free)

    given = {RAW: (0.9, 0.8), "pca 4x, linear": (0.7, 0.3)}
    results = [
        dataclasses.replace(r, outcomes=[outcome(*given.get(r.rung, (0.5, 0.5)))] * len(EVAL)) for r in ladder[3]
    ]
    assert rows_of(ladder, results)["pca 4x, linear"].exposure_gap == pytest.approx(0.4 - 0.1)


def test_unknown_rung_names_the_nearest(ladder):
    reader = ladder[0]
    recipe = RECIPE.model_copy(update={"eval": RECIPE.eval.model_copy(update={"rungs": ("full texd",)})})
    with pytest.raises(RecipeError, match="did you mean 'full text'"):
        ladder_rungs(recipe, Corpus(reader, TRAIN, "prompt", 0))


def test_ladder_without_its_references_is_refused_before_anything_is_trained(ladder):
    recipe = RECIPE.model_copy(update={"eval": EvalSpec(rungs=("full text", "raw embeddings", "trained"))})
    with pytest.raises(RecipeError, match="got none named no context"):
        ladder_rungs(recipe, Corpus(ladder[0], EVAL, "prompt", 0))


def test_rungs_named_pca_are_pca_whatever_the_recipe_trains(ladder):
    for own, expected in (("random", "random 4x, mlp"), ("pca", "pca 4x, mlp")):
        method = {"name": "per_token", "compressor": own, "compression": 4}
        rungs = ladder_rungs(RECIPE.model_copy(update={"method": method}), Corpus(ladder[0], EVAL, "prompt", 0))
        assert all(rung.spec["compressor"] == rung.name.split()[0] for rung in rungs if "decoder" in rung.spec)
        assert [rung.name for rung in rungs if rung.trained] == [expected]


def test_recipes_own_method_takes_the_place_of_the_rung_that_it_is(ladder):
    recipe = RECIPE.model_copy(update={"method": {"name": "per_token", "decoder": "codebook_hard", "compression": 4}})
    rungs = ladder_rungs(recipe, Corpus(ladder[0], EVAL, "prompt", 0))
    assert [rung.trained for rung in rungs if rung.name == "pca 4x, codebook_hard"] == [True]


def test_decoder_quality_of_the_hard_codebook_is_perfect(ladder):
    reader, rungs, _, _ = ladder
    corpus = Corpus(reader, EVAL, "prompt", 0)
    exact = measure_decoder(rungs["pca 4x, codebook_hard"].method, reader, corpus.counts)
    assert (exact.token_recovery, exact.variance_unexplained) == (pytest.approx(1.0), pytest.approx(0.0))
    linear = measure_decoder(rungs["pca 4x, linear"].method, reader, corpus.counts)
    assert linear.variance_unexplained > 0.1
    assert linear.rms_ratio < 1.0


def test_training_examples_of_several_files_are_mixed_and_limited(tmp_path):
    for name in "ab":
        lines = [f'{{"id": "{name}{n}", "context": "c {name}{n}", "question": "q", "answers": "a"}}' for n in range(5)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    data = {
        "train": [{"name": "jsonl", "path": str(tmp_path / f"{name}.jsonl")} for name in "ab"],
        "train_split": "all",
    }
    recipe = make_recipe({"name": "x", "reader": {"name": "r"}, "data": {**data, "limit": 8, "eval_limit": 3}})
    found = training_examples(recipe)
    assert len(found) == 8
    assert {example.id[0] for example in found} == {"a", "b"}
    assert len(evaluation_examples(recipe)) == 3
    with pytest.raises(DataError, match="got 10"):
        training_examples(recipe.model_copy(update={"data": recipe.data.model_copy(update={"limit": 11})}))
