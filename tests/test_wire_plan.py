"""The dry run of a wire: real shapes of two large readers, and a plan that is what training then has."""

from pathlib import Path

import pytest

from latentwire.config import load_recipe
from latentwire.corpus import Corpus
from latentwire.data import DATASETS
from latentwire.dryrun import plan
from latentwire.methods import METHODS
from latentwire.methods.wire import Wire
from latentwire.specs import build
from tiny import save_tiny, tiny_reader

RECIPES = Path(__file__).parent.parent / "recipes"
FACTS = "data={train: [{name: facts}], eval: {name: facts}, limit: 20}"


def test_a_pair_of_eight_and_seven_billion_is_planned_without_weights():
    llama, qwen = (str(RECIPES / "shapes" / name) for name in ("llama-3.1-8b", "qwen2.5-7b"))
    overrides = [f"reader.name={llama}", f"further_readers=[{{name: {qwen}, dtype: bfloat16}}]", FACTS]
    found = plan(load_recipe(RECIPES / "wire_8b_7b.yaml", overrides))
    assert found[f"parameters of {llama}"] == 8_030_261_248
    assert found[f"parameters of {qwen}"] == 7_615_616_512
    assert found[f"frozen weights of {qwen}"] == "14.19 GiB"
    whole, shared = (
        float(str(found[f"memory per process, {how}"]).split()[0])
        for how in ("everything in each (DDP)", "frozen layers over 8 (FSDP2)")
    )
    assert whole - shared == pytest.approx((13.00 + 12.15) * 7 / 8, abs=0.02)  # embeddings and heads stay whole


def test_planned_parameters_are_those_that_training_has(tmp_path):
    folders = {family: save_tiny(tmp_path / f"tiny-{family}", family) for family in ("llama", "gemma3")}
    path = tmp_path / "wire.yaml"
    path.write_text(
        "name: w\nmethod: {name: wire, hidden: 16, task_tokens: 2}\nobjective: {weights: {answer_ce: 1.0}}\n"
        f"reader: {{name: {folders['llama']}}}\nfurther_readers: [{{name: {folders['gemma3']}}}]\n"
    )
    recipe = load_recipe(path, [FACTS])
    found = plan(recipe)
    method = build(METHODS, recipe.method)
    assert isinstance(method, Wire)
    for family in ("llama", "gemma3"):
        reader = tiny_reader(family)
        method.prepare(reader, Corpus(reader, DATASETS["facts"]().examples("train", 0, 4), "context", 0).counts)
    trained = sum(value for name, value in found.items() if name.startswith("trained parameters"))
    assert trained == sum(parameter.numel() for parameter in method.module().parameters())
