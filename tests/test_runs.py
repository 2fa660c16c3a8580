"""Run folders: atomic, locked, and honest about damage."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import latentwire
from latentwire.config import make_recipe
from latentwire.errors import RunError
from latentwire.runs import OWN, Run, provenance, training_identity

RECIPE = {"name": "x", "reader": {"name": "r"}}


def test_second_opening_of_a_folder_is_refused_until_the_first_is_closed(tmp_path):
    with Run(tmp_path / "a"), pytest.raises(RunError, match="another run has it open"):
        Run(tmp_path / "a")
    with Run(tmp_path / "a") as again:
        assert again.folder.exists()


def test_clear_removes_the_runs_own_files_only(tmp_path):
    with Run(tmp_path) as run:
        for name in (*OWN, "notes.txt"):
            (tmp_path / name).write_text("x")
        run.clear()
    assert {path.name for path in tmp_path.iterdir()} - {".lock"} == {"notes.txt"}


def test_half_written_last_line_is_left_out(tmp_path):
    with Run(tmp_path) as run:
        run.append("log.jsonl", {"step": 1})
        with (tmp_path / "log.jsonl").open("a") as file:
            file.write('{"step": 2')
        assert run.lines("log.jsonl") == [{"step": 1}]
        assert run.lines("none.jsonl") == []


def test_leftovers_of_a_killed_write_are_removed_at_the_next_start(tmp_path):
    (tmp_path / "checkpoint.pt.partial").write_text("half")
    with Run(tmp_path):
        assert not (tmp_path / "checkpoint.pt.partial").exists()


def test_weights_survive_and_damage_is_named(tmp_path):
    with Run(tmp_path) as run:
        with pytest.raises(RunError, match="found none"):
            run.load_weights()
        run.save_weights({"a": torch.arange(6.0).reshape(2, 3).T})
        assert torch.equal(run.load_weights()["a"], torch.arange(6.0).reshape(2, 3).T)
        path = tmp_path / "weights.safetensors"
        path.write_bytes(path.read_bytes()[:20])
        with pytest.raises(RunError, match="--force"):
            run.load_weights()


@pytest.mark.parametrize("kept", [0, 100, 5000])
def test_damaged_checkpoint_is_named(tmp_path, kept):
    with Run(tmp_path) as run:
        assert run.load_checkpoint() is None
        run.save_checkpoint({"step": 3, "parameters": [torch.ones(4000)]})
        state = run.load_checkpoint()
        assert state["step"] == 3
        assert torch.equal(state["parameters"][0], torch.ones(4000))
        path = tmp_path / "checkpoint.pt"
        path.write_bytes(path.read_bytes()[:kept])
        with pytest.raises(RunError, match=r"checkpoint\.pt, got.*--force") as caught:
            run.load_checkpoint()
        assert "\n" not in str(caught.value)


def test_recipe_is_read_back_as_it_was_resolved(tmp_path):
    recipe = make_recipe({**RECIPE, "train": {"lr": 0.125, "steps": 3}})
    with Run(tmp_path) as run:
        with pytest.raises(RunError, match="train it first"):
            run.recipe()
        run.start(recipe, {"extra": 1})
        assert run.recipe() == recipe
        facts = json.loads((tmp_path / "provenance.json").read_text())
    assert facts["extra"] == 1
    assert {"commit", "hardware", "threads", "python", "versions"} <= facts.keys()
    assert facts["versions"]["torch"] == provenance()["versions"]["torch"]


def test_identity_of_a_training_ignores_evaluation_and_verdict_only():
    base = training_identity(make_recipe(RECIPE), "reader")
    assert (
        training_identity(make_recipe({**RECIPE, "eval": {"batch": 3}, "verdict": {"measure": "f1"}}), "reader") == base
    )
    assert training_identity(make_recipe({**RECIPE, "data": {"eval_limit": 3}}), "reader") == base
    assert training_identity(make_recipe({**RECIPE, "data": {"limit": 3}}), "reader") != base
    assert training_identity(make_recipe({**RECIPE, "train": {"lr": 0.5}}), "reader") != base
    assert training_identity(make_recipe(RECIPE), "another reader") != base
    placed = {
        **RECIPE,
        "reader": {**RECIPE["reader"], "device": "cuda:1", "device_map": "auto"},
        "train": {"micro_examples": 2},
    }
    assert training_identity(make_recipe(placed), "reader") == base
    joined = {**RECIPE, "further_readers": [{"name": "other", "shots": 1}]}
    assert training_identity(make_recipe(joined), "reader") != base


def test_identity_of_a_training_holds_the_scope_that_its_prompts_are_laid_out_in():
    base = training_identity(make_recipe(RECIPE), "reader")
    assert training_identity(make_recipe({**RECIPE, "eval": {"scopes": ["prompt"]}}), "reader") == base
    assert training_identity(make_recipe({**RECIPE, "eval": {"scopes": ["context", "prompt"]}}), "reader") != base


FULL_DISK = """
import sys, torch
from pathlib import Path
from latentwire.errors import RunError
from latentwire.runs import Run
with Run(Path(sys.argv[1])) as run:
    for write in (lambda: run.append("log.jsonl", {"words": "x" * 200_000}),
                  lambda: run.write("rows.jsonl", b"x" * 200_000),
                  lambda: run.save_checkpoint({"a": torch.zeros(100_000)}),
                  lambda: run.save_weights({"a": torch.zeros(100_000)})):
        try:
            write()
        except RunError as error:
            print(error)
"""


def test_full_disk_is_one_clear_error_and_the_old_file_stays(tmp_path):
    for name in ("rows.jsonl", "checkpoint.pt", "weights.safetensors"):
        (tmp_path / name).write_text("old")

    def small_disk():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)],
        capture_output=True,
        text=True,
        preexec_fn=small_disk,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.strip().splitlines()
    assert len(lines) == 4
    assert all(line.startswith("expected to write ") and "free space" in line for line in lines)
    assert [(tmp_path / name).read_text() for name in ("rows.jsonl", "checkpoint.pt", "weights.safetensors")] == [
        "old"
    ] * 3
    assert not list(tmp_path.glob("*.partial"))


def test_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="expected to write in"):
        Run(tmp_path / "file" / "run")


def test_commit_of_another_projects_checkout_is_not_taken_for_ours(tmp_path):
    package = Path(latentwire.__file__).parent
    shutil.copytree(package, tmp_path / "env" / "latentwire", ignore=shutil.ignore_patterns("__pycache__"))
    identity = ["-c", "user.name=n", "-c", "user.email=e"]
    (tmp_path / "own.txt").write_text("theirs")
    for words in (["init", "-q"], ["add", "own.txt"], [*identity, "commit", "-qm", "theirs"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    ask = "import latentwire.runs; print(latentwire.runs.__file__); print(latentwire.runs.commit())"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "env")}
    found = subprocess.run([sys.executable, "-c", ask], env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.split() == [str(tmp_path / "env" / "latentwire" / "runs.py"), "unknown"]


def test_line_separators_within_a_text_do_not_part_a_record(tmp_path):
    with Run(tmp_path / "run") as run:
        record = {"answer": "one\u2028two\u0085three"}
        run.append("log.jsonl", record)
        run.append("log.jsonl", record)
        assert run.lines("log.jsonl") == [record, record]
