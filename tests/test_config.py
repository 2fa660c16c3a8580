"""Recipes: every error at once, in words that say what to do."""

from pathlib import Path

import pytest

from latentwire.config import (
    DataSpec,
    EvalSpec,
    ObjectiveSpec,
    ReaderSpec,
    Recipe,
    TrainSpec,
    VerdictSpec,
    load_recipe,
    make_recipe,
)
from latentwire.data import DATASETS
from latentwire.errors import RecipeError, RegistryError
from latentwire.methods import METHODS
from latentwire.specs import build

RECIPES = sorted((Path(__file__).parent.parent / "recipes").glob("*.yaml"))
MINIMAL = {"name": "x", "reader": {"name": "r"}}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_shipped_recipe_is_valid(path, monkeypatch):
    monkeypatch.setenv("DATA", "somewhere")
    recipe = load_recipe(path)
    assert recipe.name
    build(METHODS, recipe.method)
    for spec in (*recipe.data.train, recipe.data.eval):
        assert spec["name"] in DATASETS


def test_unknown_keys_name_the_nearest_and_all_errors_come_at_once():
    raw = {**MINIMAL, "train": {"learning": 1, "warmupp": 0.1, "epochs": "many"}, "eval": {"batch": -1}}
    with pytest.raises(RecipeError) as caught:
        make_recipe(raw)
    message = str(caught.value)
    assert "'train.warmupp': did you mean 'warmup'?" in message
    assert "'train.learning'" in message
    assert "'train.epochs'" in message
    assert "'eval.batch'" in message
    assert "\n" not in message


def test_missing_reader_is_named():
    with pytest.raises(RecipeError, match="missing field 'reader'"):
        make_recipe({"name": "x"})


def test_overrides_reach_nested_fields_and_keep_their_types(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("name: x\nreader: {name: r}\n")
    recipe = load_recipe(path, ["train.lr=1e-3", "train.steps=7", "method.decoder=linear", "eval.scopes=[context]"])
    assert recipe.train.lr == 1e-3
    assert recipe.train.steps == 7
    assert recipe.method["decoder"] == "linear"
    assert recipe.eval.scopes == ("context",)


@pytest.mark.parametrize("override", ["train.lr", "=3", "name.first=3", "train.lr=[1"])
def test_override_that_is_none_is_refused(tmp_path, override):
    path = tmp_path / "r.yaml"
    path.write_text("name: x\nreader: {name: r}\n")
    with pytest.raises(RecipeError, match="override") as caught:
        load_recipe(path, [override])
    assert "\n" not in str(caught.value)


def test_environment_variables_are_filled_in(tmp_path, monkeypatch):
    monkeypatch.setenv("MODELS", "/models")
    path = tmp_path / "r.yaml"
    path.write_text("name: x\nreader: {name: $MODELS/a}\ndata: {train: [{name: squad, path: '${MODELS}b'}]}\n")
    recipe = load_recipe(path, ["data.eval={name: jsonl, path: $MODELS/c}"])
    assert recipe.reader.name == "/models/a"
    assert recipe.data.train[0]["path"] == "/modelsb"
    assert recipe.data.eval["path"] == "/models/c"


@pytest.mark.parametrize("value", ["$NOT_SET_HERE/model", "${NOT_SET_HERE}/model", "$SET_HERE/$NOT_SET_HERE"])
def test_environment_variable_that_is_not_set_is_refused(tmp_path, monkeypatch, value):
    monkeypatch.delenv("NOT_SET_HERE", raising=False)
    monkeypatch.setenv("SET_HERE", "a")
    path = tmp_path / "r.yaml"
    path.write_text(f"name: x\nreader: {{name: '{value}'}}\n")
    with pytest.raises(RecipeError, match=r"variable NOT_SET_HERE in .*NOT_SET_HERE=<folder>"):
        load_recipe(path)


@pytest.mark.parametrize(("text", "words"), [("- a\n", "mapping"), ("a: [1\n", "YAML"), ("\xff", "mapping")])
def test_recipe_that_is_no_mapping_is_refused(tmp_path, text, words):
    path = tmp_path / "r.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=words):
        load_recipe(path)


def test_recipe_in_another_encoding_is_refused(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_bytes("name: Zürich\n".encode("latin-1"))
    with pytest.raises(RecipeError, match="expected a YAML recipe"):
        load_recipe(path)


def test_missing_recipe_file_is_refused(tmp_path):
    with pytest.raises(RecipeError, match="found nothing"):
        load_recipe(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("registry", "spec", "nearest"),
    [
        (METHODS, {"name": "per_token", "compresion": 4}, "compression"),
        (METHODS, {"name": "truncated", "units": "bytes"}, "unit"),
        (DATASETS, {"name": "squad", "paht": "x"}, "path"),
        (DATASETS, {"name": "facts", "question_per_passage": 2}, "questions_per_passage"),
    ],
)
def test_unknown_field_of_a_registered_spec_names_the_nearest(registry, spec, nearest):
    with pytest.raises(RecipeError, match=f"did you mean '{nearest}'"):
        build(registry, spec)


@pytest.mark.parametrize(
    ("registry", "spec", "words"),
    [
        (METHODS, {"name": "per_token", "compression": "a lot"}, "method 'per_token': field 'compression'.*a lot"),
        (METHODS, {"name": "per_token", "wire_dtype": "fp8"}, "field 'wire_dtype'.*fp8"),
        (DATASETS, {"name": "facts", "questions_per_passage": "many"}, "dataset 'facts'.*questions_per_passage.*many"),
        (DATASETS, {"name": "squad"}, "dataset 'squad': missing field 'path'"),
    ],
)
def test_wrong_type_or_missing_field_in_a_registered_spec_is_named(registry, spec, words):
    with pytest.raises(RecipeError, match=words):
        build(registry, spec)


def test_unknown_method_and_missing_name_are_refused():
    with pytest.raises(RegistryError, match="did you mean 'per_token'"):
        build(METHODS, {"name": "per_tokn"})
    with pytest.raises(RecipeError, match="add its name"):
        build(METHODS, {"compression": 4})


def test_recipe_stays_small_enough_to_know():
    parts = (DataSpec, ReaderSpec, ObjectiveSpec, TrainSpec, EvalSpec, VerdictSpec)
    assert sum(len(part.model_fields) for part in parts) + 3 <= 45
    assert set(Recipe.model_fields) == {
        "name",
        "data",
        "reader",
        "further_readers",
        "method",
        "objective",
        "train",
        "eval",
        "verdict",
    }


def test_verdict_lines_are_stage_1s_as_a_ratio_or_as_f1_and_rise():
    reader = {"name": "x", "reader": {"name": "tiny"}}
    ratio, f1 = make_recipe(reader).verdict, make_recipe({**reader, "verdict": {"measure": "f1"}}).verdict
    assert (ratio.target, ratio.success, ratio.failure) == pytest.approx((70 / 82, 65 / 82, 50 / 82))
    assert (f1.target, f1.success, f1.failure) == (0.70, 0.65, 0.50)
    with pytest.raises(RecipeError, match="must rise"):
        make_recipe({**reader, "verdict": {"target": 0.5}})
