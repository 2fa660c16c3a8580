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
    build,
    load_recipe,
    make_recipe,
)
from latentwire.data import DATASETS
from latentwire.errors import RecipeError, RegistryError
from latentwire.methods import METHODS

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


@pytest.mark.parametrize("override", ["train.lr", "=3", "name.first=3"])
def test_override_that_is_none_is_refused(tmp_path, override):
    path = tmp_path / "r.yaml"
    path.write_text("name: x\nreader: {name: r}\n")
    with pytest.raises(RecipeError, match="override"):
        load_recipe(path, [override])


def test_environment_variable_that_is_not_set_is_refused(tmp_path, monkeypatch):
    monkeypatch.delenv("NOT_SET_HERE", raising=False)
    path = tmp_path / "r.yaml"
    path.write_text("name: x\nreader: {name: $NOT_SET_HERE/model}\n")
    with pytest.raises(RecipeError, match="NOT_SET_HERE"):
        load_recipe(path)


@pytest.mark.parametrize(("text", "words"), [("- a\n", "mapping"), ("a: [1\n", "YAML"), ("\xff", "mapping")])
def test_recipe_that_is_no_mapping_is_refused(tmp_path, text, words):
    path = tmp_path / "r.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=words):
        load_recipe(path)


def test_missing_recipe_file_is_refused(tmp_path):
    with pytest.raises(RecipeError, match="found nothing"):
        load_recipe(tmp_path / "none.yaml")


def test_unknown_field_of_a_method_names_the_nearest():
    with pytest.raises(RecipeError, match="did you mean 'compression'"):
        build(METHODS, {"name": "per_token", "compresion": 4})


def test_wrong_type_in_a_method_is_named():
    with pytest.raises(RecipeError, match="compression"):
        build(METHODS, {"name": "per_token", "compression": "a lot"})


def test_unknown_method_and_missing_name_are_refused():
    with pytest.raises(RegistryError, match="did you mean 'per_token'"):
        build(METHODS, {"name": "per_tokn"})
    with pytest.raises(RecipeError, match="add its name"):
        build(METHODS, {"compression": 4})


def test_recipe_stays_small_enough_to_know():
    parts = (DataSpec, ReaderSpec, ObjectiveSpec, TrainSpec, EvalSpec, VerdictSpec)
    assert sum(len(part.model_fields) for part in parts) + 2 <= 45
    assert set(Recipe.model_fields) == {"name", "data", "reader", "method", "objective", "train", "eval", "verdict"}
