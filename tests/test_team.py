"""Several processes that train together end where one ends, at the same global batch."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from latentwire.team import Team
from test_cli import call
from tiny import save_tiny
from wires import RECIPE as WIRE

LAUNCH = Path(__file__).parent.parent / "recipes" / "launch"
STAGE1 = """
name: tiny
data: {{train: [{{name: facts}}], eval: {{name: facts}}, limit: 10, eval_limit: 4}}
reader: {{name: {first}, shots: 0, dtype: float32}}
method: {{name: per_token, compression: 4}}
objective: {{weights: {{reconstruct: 0.5, answer_kl: 0.5}}}}
train: {{steps: 5, batch_tokens: 256, batch_examples: 4, micro_examples: 2, lr: 1.0e-3, precision: fp32}}
"""
FEW = ["train.micro_examples=2", "method.company=0.5", "eval.rungs=[no context, full text, raw embeddings, wire 4x]"]


@pytest.fixture(scope="module")
def readers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("readers")
    return {"first": save_tiny(folder / "tiny-llama", "llama"), "second": save_tiny(folder / "tiny-gemma", "gemma3")}


def launched(folder, launch, *trainings):
    """Weights and log of each training, a recipe and overrides, by the processes that a file of recipes/launch starts on the CPU."""
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(LAUNCH / f"{launch}.yaml")]
    folders = [folder / str(place) for place in range(len(trainings))]
    calls = [["train", *map(str, words), "--out", str(out)] for words, out in zip(trainings, folders, strict=True)]
    command += ["--main_process_port", "0", str(Path(__file__).parent / "commands.py"), json.dumps(calls)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "LATENTWIRE_CACHE": str(folder / "cache")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [learnt(out) for out in folders]


@pytest.fixture
def alone(monkeypatch, capsys):
    """The same of a training in this process."""

    def trained(folder, recipe, *overrides):
        monkeypatch.setenv("LATENTWIRE_CACHE", str(folder / "cache"))
        code, _, words = call(capsys, "train", recipe, *overrides, "--out", folder)
        assert code == 0, words
        return learnt(folder)

    return trained


def learnt(folder):
    (home,) = [path.parent for path in folder.rglob("weights.safetensors") if path.parent.parent == folder]
    lines = (home / "log.jsonl").read_text().splitlines()
    return load_file(home / "weights.safetensors"), [json.loads(line)["losses"] for line in lines]


def test_two_processes_train_as_one_does(readers, tmp_path, alone):
    trainings = []
    for name, recipe, overrides in (("per_token", STAGE1, []), ("wire", WIRE, FEW)):
        path = tmp_path / f"{name}.yaml"
        path.write_text(recipe.format(**readers))
        trainings.append((path, *overrides))
    both = launched(tmp_path / "two", "ddp", *trainings)
    for (two, others), training in zip(both, trainings, strict=True):
        one, losses = alone(tmp_path / training[0].stem, *training)
        assert len(losses) == len(others) > 1
        for found, expected in zip(others, losses, strict=True):
            assert found == pytest.approx(expected, rel=1e-4)
        assert one.keys() == two.keys()
        for name, tensor in one.items():
            torch.testing.assert_close(two[name], tensor, atol=1e-4, rtol=1e-3)


def test_a_launch_of_one_process_trains_as_a_plain_call_does(readers, tmp_path, alone):
    path = tmp_path / "recipe.yaml"
    path.write_text(STAGE1.format(**readers))
    one, _ = alone(tmp_path / "one", path)
    ((other, _),) = launched(tmp_path / "other", "one_gpu", (path,))
    for name, tensor in one.items():
        assert torch.equal(other[name], tensor)


def test_frozen_layers_that_are_shared_out_train_the_same(readers, tmp_path, alone):
    path = tmp_path / "recipe.yaml"
    path.write_text(WIRE.format(**readers))
    few = ["train.micro_examples=4", "train.batch_examples=12", "train.steps=3"]  # one process has less to read
    few += [
        "data.train=[{name: facts, questions_per_passage: 2}]",
        "method.company=0.5",
    ]  # readings differ in structure
    few += ["eval.rungs=[no context, full text, raw embeddings, wire 4x, 'no context, tuned', 'full text, tuned']"]
    one, losses = alone(tmp_path / "one", path, *few)
    ((two, others),) = launched(tmp_path / "two", "fsdp2", (path, *few))
    assert [found["answer_ce"] for found in others] == pytest.approx([found["answer_ce"] for found in losses], rel=1e-4)
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, atol=1e-4, rtol=1e-3)


def test_shared_out_models_are_refused_where_one_process_would_evaluate(readers, tmp_path, monkeypatch, capsys):
    path = tmp_path / "recipe.yaml"
    path.write_text(STAGE1.format(**readers))
    monkeypatch.setattr("latentwire.pipeline.team", lambda: Team(0, 2, shards=True))
    code, _, words = call(capsys, "run", path, "--out", tmp_path)
    assert (code, "expected 'latentwire train'" in words) == (2, True)
