"""Real kills: a resumed run ends with the same weights, bit for bit, as one that was never disturbed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tiny import save_tiny

HARNESS = Path(__file__).parent / "crashes.py"


@pytest.fixture(scope="module")
def reader_folder(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("reader"), "llama")


@pytest.mark.parametrize(("precision", "kills"), [("fp32", 12), ("bf16", 12)])
def test_killed_and_resumed_training_gives_bitwise_the_same_weights(reader_folder, tmp_path, precision, kills):
    call = [sys.executable, str(HARNESS), str(reader_folder), str(tmp_path), precision, str(kills), "7"]
    done = subprocess.run(call, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["calm"] == 0
    assert found["end"] == 0
    assert found["killed"] >= kills
    assert found["during_write"] >= 1
    calm, stormy = (tmp_path / name / "run" for name in ("calm", "stormy"))
    assert (calm / "weights.safetensors").read_bytes() == (stormy / "weights.safetensors").read_bytes()
    assert steps(stormy) == steps(calm)
    assert not list(stormy.glob("*.partial"))


def steps(folder):
    return [json.loads(line)["step"] for line in (folder / "log.jsonl").read_text().splitlines()]


RECIPE = """
name: long
data: {{train: [{{name: facts}}], eval: {{name: facts}}, limit: 24, eval_limit: 4}}
reader: {{name: {reader}, shots: 0, dtype: float32}}
method: {{name: per_token, compression: 4}}
train: {{steps: 20000, batch_tokens: 256, precision: fp32}}
"""


def command(*arguments):
    return [sys.executable, "-m", "latentwire.cli", *map(str, arguments)]


@pytest.fixture
def started(reader_folder, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE.format(reader=reader_folder))
    process = subprocess.Popen(
        command("train", recipe, "--out", tmp_path), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    log = tmp_path / "long" / "log.jsonl"
    until = time.monotonic() + 90
    while not (log.exists() and log.stat().st_size) and time.monotonic() < until:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    yield process, recipe, tmp_path
    process.kill()
    process.wait()


def test_interrupted_run_exits_130_says_how_to_go_on_and_resumes(started):
    process, recipe, out = started
    second = subprocess.run(command("train", recipe, "--out", out), capture_output=True, text=True, check=False)
    assert second.returncode == 2
    assert "another run has it open" in second.stderr
    process.send_signal(signal.SIGINT)
    _, words = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "--resume" in words
    assert (out / "long" / "checkpoint.pt").exists()
    reached = steps(out / "long")[-1]
    refused = {
        (): "--resume",
        ("--resume", "train.lr=0.5"): "another",
    }
    for extra, expected in refused.items():
        done = subprocess.run(
            command("train", recipe, *extra, "--out", out), capture_output=True, text=True, check=False
        )
        assert done.returncode == 2
        assert expected in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
    resumed = subprocess.Popen(command("train", recipe, "--resume", "--out", out), stderr=subprocess.DEVNULL)
    until = time.monotonic() + 150
    while steps(out / "long")[-1] <= reached and time.monotonic() < until:
        time.sleep(0.05)
    os.kill(resumed.pid, signal.SIGKILL)
    resumed.wait()
    assert steps(out / "long")[-1] > reached
