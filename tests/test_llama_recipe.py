"""The first set-up's own recipe: its real shapes without weights, and the whole of it on a tiny Llama."""

import json
from pathlib import Path

import pytest

from latentwire.climb import evaluate
from latentwire.config import load_recipe
from latentwire.data import DATASETS
from latentwire.dryrun import plan
from latentwire.errors import MethodError
from latentwire.methods.decoders import DECODERS
from latentwire.pipeline import Silent, prepare, report, train
from latentwire.runs import Run
from tiny import save_tiny

RECIPES = Path(__file__).parent.parent / "recipes"


def test_real_shapes_give_eight_billion_and_twenty_million_parameters():
    overrides = [
        f"reader.name={RECIPES / 'shapes' / 'llama-3.1-8b'}",
        "data.train=[{name: facts}]",
        "data.train_split=train",
    ]
    found = plan(load_recipe(RECIPES / "stage1_llama.yaml", overrides))
    assert found["reader parameters"] == 8_030_261_248
    assert found["code width d"] == 512
    assert found["compression"] == 8.0
    assert 19_000_000 <= found["trained parameters"] <= 21_000_000
    assert found["reader memory"] == "14.96 GiB"
    assert found["steps"] > 1000


def planned(*overrides):
    """The recipe's plan on its real shapes and a few generated examples."""
    data = "data={train: [{name: facts}], eval: {name: facts}, limit: 10}"
    return plan(
        load_recipe(RECIPES / "stage1_llama.yaml", [f"reader.name={RECIPES / 'shapes/llama-3.1-8b'}", data, *overrides])
    )


@pytest.mark.parametrize("decoder", list(DECODERS))
def test_every_decoder_can_be_planned(decoder):
    assert (planned(f"method.decoder={decoder}")["trained parameters"] > 0) == (decoder == "mlp")


def test_plan_counts_worked_examples_quantisation_and_gradient_through_the_reader():
    base, plain = planned(), planned("reader.shots=0")
    assert plain["training tokens (estimate)"] < base["training tokens (estimate)"]
    assert planned("reader.quantization={load_in_4bit: true}")["reader memory"] == "3.74 GiB"
    assert planned("objective.weights={answer_ce: 1.0}")["activations of one micro-batch (estimate)"] != "0.00 GiB"


def test_code_as_wide_as_the_embedding_cannot_be_planned():
    with pytest.raises(MethodError, match="d = 4096"):
        planned("method.compression=1")


def squad_folder(folder, split):
    """A local data set with the columns of rajpurkar/squad."""
    folder.mkdir()
    rows = [
        {
            "id": example.id,
            "title": example.group,
            "context": example.context,
            "question": example.question,
            "answers": {"text": list(example.answers), "answer_start": [example.context.index(example.answers[0])]},
        }
        for example in DATASETS["facts"]().examples(split, 0, 12)
    ]
    (folder / "data.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    return folder


def test_whole_recipe_runs_on_a_tiny_llama(tmp_path, monkeypatch):
    pytest.importorskip("datasets")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    overrides = [
        f"reader.name={save_tiny(tmp_path / 'tiny-llama', 'llama')}",
        "reader.dtype=float32",
        f"data.train=[{{name: hub, path: {squad_folder(tmp_path / 'train', 'train')}, group: title}}]",
        f"data.eval={{name: hub, path: {squad_folder(tmp_path / 'dev', 'heldout')}, group: title}}",
        "data.limit=12",
        "data.eval_limit=4",
        "train.epochs=1",
        "train.batch_tokens=2048",
        "eval.resamples=100",
        "eval.max_new_tokens=4",
    ]
    recipe = load_recipe(RECIPES / "stage1_llama.yaml", overrides)
    with Run(tmp_path / "run") as run:
        stage = prepare(recipe, Silent(), 2**30)
        train(stage, run, Silent(), False, lambda: False)
        rows = evaluate(stage, run, Silent())
        page = report(run.folder)
    trained = [row for row in rows if row.trained]
    assert [row.scope for row in trained] == ["prompt", "context"]
    assert all(row.compression_achieved == 8.0 for row in trained)
    assert trained[0].num_positions > trained[1].num_positions
    assert page.exists()
