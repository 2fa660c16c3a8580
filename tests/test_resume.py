"""Real kills: a resumed run ends with the same weights, bit for bit, as one that was never disturbed."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tiny import save_tiny

RECIPE = """
name: run
data: {{train: [{{name: facts}}], eval: {{name: facts}}, limit: 8, eval_limit: 4}}
reader: {{name: {reader}, shots: 0, dtype: float32}}
method: {{name: per_token, compression: 4}}
objective: {{weights: {{reconstruct: 0.5, on_policy_kl: 0.5}}}}
train: {{steps: 24, batch_tokens: 256, batch_examples: 2, micro_examples: 1, precision: fp32,
  checkpoint_seconds: 1.0e-6}}
"""
ENDLESS = ["name=endless", "objective.weights={reconstruct: 1.0}", "train.steps=1000000"]
PATIENCE_SECONDS = 90


class Commands:
    """`latentwire` commands in processes of their own, started by crashes.py."""

    def __init__(self, recipe, folder):
        self.recipe, self.words, self.threads = recipe, folder / "words.txt", 1
        harness = [sys.executable, str(Path(__file__).parent / "crashes.py")]
        self.server = subprocess.Popen(harness, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, **request):
        self.server.stdin.write(json.dumps(request) + "\n")
        self.server.stdin.flush()
        return int(self.server.stdout.readline())

    def start(self, *arguments):
        self.words = self.words.with_name(f"{time.monotonic_ns()}.txt")
        words = ["train", str(self.recipe), *map(str, arguments)]
        return self.ask(start=words, words=str(self.words), threads=self.threads)

    def wait(self, process):
        return self.ask(wait=process)

    def train(self, *arguments):
        return self.wait(self.start(*arguments))


@pytest.fixture(scope="module")
def commands(tmp_path_factory):
    folder = tmp_path_factory.mktemp("commands")
    recipe = folder / "recipe.yaml"
    recipe.write_text(RECIPE.format(reader=save_tiny(folder / "tiny-llama", "llama")))
    started = Commands(recipe, folder)
    yield started
    started.server.stdin.close()
    started.server.wait(timeout=30)


def steps(folder):
    log = folder / "log.jsonl"
    text = log.read_text() if log.exists() else ""
    return [json.loads(line)["step"] for line in text[: text.rfind("\n") + 1].splitlines()]


def state_of(process):
    return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0]


def until(condition, process):
    """Waits for `condition`, or for the process' end."""
    last = time.monotonic() + PATIENCE_SECONDS
    while not condition() and state_of(process) != "Z":
        assert time.monotonic() < last, "waited too long"
        time.sleep(0.001)


def kill_at_random(process, folder, draw):
    """Anywhere: while loading, between two steps, within one."""
    if draw.random() < 0.25:
        time.sleep(draw.uniform(0.0, 0.5))
    else:
        due = len(steps(folder)) + draw.randint(1, 3)
        until(lambda: len(steps(folder)) >= due, process)
        time.sleep(draw.uniform(0.0, 0.1))
    os.kill(process, signal.SIGKILL)
    return False


def kill_during_write(process, folder, draw):
    """Stops the process again and again until it is caught with a half-written checkpoint, and kills it there."""
    partial = folder / "checkpoint.pt.partial"
    last = time.monotonic() + PATIENCE_SECONDS
    while state_of(process) != "Z" and time.monotonic() < last:
        until(partial.exists, process)
        os.kill(process, signal.SIGSTOP)
        until(lambda: state_of(process) == "T", process)
        if partial.exists():
            break
        os.kill(process, signal.SIGCONT)
        time.sleep(draw.uniform(0.0, 0.003))
    os.kill(process, signal.SIGKILL)
    return partial.exists()


@pytest.mark.parametrize(("precision", "threads", "kills"), [("fp32", 1, 9), ("bf16", 1, 6), ("bf16", 2, 4)])
def test_killed_and_resumed_training_gives_bitwise_the_same_weights(
    commands, tmp_path, monkeypatch, precision, threads, kills
):
    override = f"train.precision={precision}"
    monkeypatch.setattr(commands, "threads", threads)
    calm = tmp_path / "calm" / "run"
    assert commands.train(override, "--out", calm.parent) == 0, commands.words.read_text()
    draw, killed, in_writes, finished = random.Random(7), 0, 0, []
    while killed < kills or not finished:
        stormy = tmp_path / f"stormy{len(finished)}" / "run"
        process = commands.start(override, "--resume", "--out", stormy.parent)
        if killed < kills:
            in_write = (kill_during_write if killed % 3 == 0 else kill_at_random)(process, stormy, draw)
        code = commands.wait(process)
        assert code in (0, -signal.SIGKILL), commands.words.read_text()
        if code == 0:
            finished.append(stormy)
        else:
            killed += 1
            in_writes += in_write
    assert in_writes >= 2
    for stormy in finished:
        assert (stormy / "weights.safetensors").read_bytes() == (calm / "weights.safetensors").read_bytes()
        assert steps(stormy) == steps(calm) == list(range(1, 25))
        assert not list(stormy.glob("*.partial"))


def test_run_killed_between_its_last_checkpoint_and_its_weights_finishes_on_resume(commands, tmp_path):
    short = ("train.steps=3", "--out", tmp_path)
    assert commands.train(*short) == 0
    weights = tmp_path / "run" / "weights.safetensors"
    expected = weights.read_bytes()
    weights.unlink()
    assert commands.train(*short) == 2
    assert commands.train(*short, "--resume") == 0
    assert weights.read_bytes() == expected


def test_interrupted_run_exits_130_says_how_to_go_on_and_resumes(commands, tmp_path):
    endless, folder = [*ENDLESS, "--out", tmp_path], tmp_path / "endless"
    process = commands.start(*endless)
    until(lambda: (folder / "checkpoint.pt").exists(), process)
    words = commands.words
    assert commands.train(*endless) == 2
    assert "another run has it open" in commands.words.read_text()
    os.kill(process, signal.SIGINT)
    assert commands.wait(process) == 130
    assert "--resume" in words.read_text()
    reached = steps(folder)[-1] if steps(folder) else 0
    refused = {
        (): "add --resume",
        ("--resume", "train.lr=0.5"): "one of another",
        ("--resume", "eval.scopes=[context]"): "one of another",
        ("--resume", "--force"): "got both",
    }
    for extra, expected in refused.items():
        assert commands.train(*endless, *extra) == 2
        found = commands.words.read_text().strip()
        assert expected in found
        assert len(found.splitlines()) == 1
    checkpoint = (folder / "checkpoint.pt").read_bytes()
    process = commands.start(*endless, "--resume")
    until(lambda: (folder / "checkpoint.pt").read_bytes() != checkpoint, process)
    os.kill(process, signal.SIGINT)
    assert commands.wait(process) == 130, commands.words.read_text()
    assert (steps(folder)[-1] if steps(folder) else 0) >= reached
