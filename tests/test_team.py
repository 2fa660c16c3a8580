"""Several processes that train together end where one ends, at the same global batch."""

import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from test_wire_run import RECIPE as WIRE
from tiny import save_tiny

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


def trained(folder, recipe, processes, *overrides):
    """Weights and log of a training by so many processes."""
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", str(processes)]
    command = [*launch, "--mixed_precision", "no", "--dynamo_backend", "no", "--num_machines", "1"]
    command += ["--multi_gpu"] if processes > 1 else ["--cpu"]  # without a GPU as well
    command += ["--main_process_port", "0", "-m", "latentwire", "train", str(recipe), *overrides, "--out", str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "LATENTWIRE_CACHE": str(folder / "cache")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (home,) = [path.parent for path in folder.rglob("weights.safetensors") if path.parent.parent == folder]
    lines = (home / "log.jsonl").read_text().splitlines()
    return load_file(home / "weights.safetensors"), [json.loads(line)["losses"] for line in lines]


@pytest.mark.parametrize(("recipe", "overrides"), [(STAGE1, []), (WIRE, FEW)], ids=["per_token", "wire"])
def test_two_processes_train_as_one_does(recipe, overrides, readers, tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe.format(**readers))
    one, losses = trained(tmp_path / "one", path, 1, *overrides)
    two, others = trained(tmp_path / "two", path, 2, *overrides)
    assert len(losses) == len(others) > 1
    for found, expected in zip(others, losses, strict=True):
        assert found == pytest.approx(expected, rel=1e-4)
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, atol=1e-4, rtol=1e-3)
