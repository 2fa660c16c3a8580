"""A wire's run end to end: one encoder, two readers, the ladder of each with its tuned rungs and controls."""

import json

import pytest
import torch
from safetensors.torch import load_file

from latentwire.joint import JOINT
from latentwire.report.rows import FLOOR_TUNED, TEXT_TUNED
from latentwire.wire_folder import read_wire
from test_cli import call
from tiny import save_tiny
from wires import RECIPE

TUNED = {
    "no-context",
    "full-text",
    "text-cut-4x",
    "random-tokens-4x",
    "surprising-tokens-4x",
    "mean-pooled-4x",
    "summary-4x-by-tiny-llama",
    "summary-4x-by-tiny-gemma",
    "learned-queries-4x",
}


OWN = {"wire 4x", "wire 8x", "wire 16x"}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recipe")
    path = folder / "wire.yaml"
    readers = {"first": save_tiny(folder / "tiny-llama", "llama"), "second": save_tiny(folder / "tiny-gemma", "gemma3")}
    path.write_text(RECIPE.format(**readers))
    return path


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("LATENTWIRE_CACHE", str(folder))
        yield folder


def test_run_climbs_the_ladder_of_every_reader_from_one_training(recipe, cache, tmp_path, capsys):
    code, printed, _ = call(capsys, "run", recipe, "--out", tmp_path)
    assert code == 0
    assert "tiny-llama" in printed
    assert "tiny-gemma" in printed
    folder = tmp_path / "tiny-wire"
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    by_reader = {
        name: {row["rung"]: row for row in rows if row["reader"] == name} for name in ("tiny-llama", "tiny-gemma")
    }
    assert by_reader["tiny-llama"].keys() == by_reader["tiny-gemma"].keys()
    assert {path.name for path in (folder / "tuned").iterdir()} == TUNED
    for found in by_reader.values():
        ours = [found[f"wire {size}x"]["num_positions"] for size in (4, 8, 16)]
        assert ours == sorted(ours, reverse=True)
        assert len(set(ours)) == 3
        assert found["wire 4x, zero"]["num_positions"] == found["learned queries 4x"]["num_positions"] == ours[0]
        assert found["random tokens 4x, tuned"]["num_positions"] == ours[0]
        assert found["text cut 4x, tuned"]["num_positions"] <= found["random tokens 4x, tuned"]["num_positions"]
        assert found["text cut 4x"]["num_positions"] <= found["random tokens 4x"]["num_positions"]
        trained = {name for name, row in found.items() if row["trained"]}
        assert trained == {name for name in found if any(word in name for word in ("tuned", "wire", "queries"))}
        assert all(found[name]["train_seconds"] > 0 for name in trained)
        assert {found[name]["train_examples"] for name in (FLOOR_TUNED, TEXT_TUNED, "wire 4x")} == {16}
        assert all((row["f1_lead"] is None) == (name in OWN) for name, row in found.items())
        for row in found.values():
            if row["f1_lead"] is not None:
                assert row["f1_lead"] == pytest.approx(found["wire 4x"]["f1"] - row["f1"])
                assert row["nll_lead"] == pytest.approx(row["answer_nll"] - found["wire 4x"]["answer_nll"], abs=1e-5)
                assert row["nll_lead_low"] <= row["nll_lead"] <= row["nll_lead_high"]
    (joint,) = [row for row in rows if "+" in row["reader"]]
    assert (joint["reader"], joint["rung"]) == ("tiny-llama + tiny-gemma", f"wire 4x, {JOINT}")
    assert any((cache / "features").iterdir())
    curve = [json.loads(line) for line in (folder / "curve.jsonl").read_text().splitlines()]
    points = {(line["reader"], line["rung"]): [] for line in curve}
    for line in curve:
        points[line["reader"], line["rung"]].append(line["examples"])
    assert points == {(name, rung): [8, 16, 32, 64] for name in by_reader for rung in ("wire 4x", TEXT_TUNED)}
    for line in curve:
        row = by_reader[line["reader"]][line["rung"]]
        assert line["examples"] < 64 or (line["f1"], line["answer_nll"]) == pytest.approx(
            (row["f1"], row["answer_nll"])
        )
    early = {line["answer_nll"] for line in curve if line["rung"] == "wire 4x"}
    assert len(early) == 8
    page = (folder / "report.html").read_text()
    assert "tiny-gemma" in page
    assert "wire 16x" in page


def test_finished_tuned_rungs_are_kept_and_force_trains_them_anew(recipe, cache, tmp_path, capsys):
    few = ["eval.rungs=[no context, full text, raw embeddings, 'full text, tuned']", "--out", tmp_path]
    assert call(capsys, "train", recipe, *few)[0] == 0
    weights = tmp_path / "tiny-wire" / "tuned" / "full-text" / "weights.safetensors"
    log = weights.with_name("log.jsonl")
    first = weights.read_bytes(), log.read_text()
    assert call(capsys, "train", recipe, *few, "--resume")[0] == 0
    assert (weights.read_bytes(), log.read_text()) == first
    assert call(capsys, "train", recipe, "train.steps=5", *few, "--force")[0] == 0
    assert weights.read_bytes() != first[0]


def test_training_goes_on_from_a_published_wire_and_from_no_other(recipe, cache, tmp_path, capsys):
    few = ["eval.rungs=[no context, full text, raw embeddings, wire 4x]", "--out", tmp_path]
    assert call(capsys, "train", recipe, *few)[0] == 0
    wire = tmp_path / "tiny-wire" / "wire"
    further = ["name=further", f"train.start_from={wire}", "train.steps=1", "train.lr=1e-30", "train.tuned_lr=1e-30"]
    assert call(capsys, "train", recipe, *further, *few)[0] == 0
    assert read_wire(tmp_path / "further" / "wire").space == read_wire(wire).space
    code, _, words = call(capsys, "train", recipe, *further, "name=other", "method.hidden=8", *few)
    assert code == 2
    assert "train.start_from: expected a wire with" in words


def test_a_published_wire_is_rounded_and_what_the_run_measures_is_that(recipe, cache, tmp_path, capsys):
    few = ["eval.rungs=[no context, full text, raw embeddings, wire 4x]", "--out", tmp_path]
    assert call(capsys, "run", recipe, *few)[0] == 0
    folder = tmp_path / "tiny-wire"
    kept, files = load_file(folder / "weights.safetensors"), read_wire(folder / "wire")
    assert all(torch.equal(kept[name], tensor) for name, tensor in files.tensors.items())
    stored = load_file(folder / "wire" / "latents.safetensors")
    assert stored["mix.weight"].dtype == torch.int8
    assert stored["standard.shift"].dtype == torch.float16
    assert kept["latents.mix.weight"].unique().numel() > 100
    curve = [json.loads(line) for line in (folder / "curve.jsonl").read_text().splitlines()]
    assert sorted({line["examples"] for line in curve}) == [8, 16, 32, 64]
    assert not any("share_of_gap" in line for line in curve)  # without tuned rungs there is no gap to share


def test_features_that_are_too_big_are_refused_before_the_first_step(recipe, cache, tmp_path, capsys):
    code, _, words = call(capsys, "run", recipe, "data.seed=5", "--cache-limit", 1e-5, "--out", tmp_path)
    assert code == 2
    assert words.splitlines()[-1].startswith("error:")
    assert "--cache-limit" in words.splitlines()[-1]
    assert not (tmp_path / "tiny-wire" / "weights.safetensors").exists()
