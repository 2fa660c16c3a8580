"""The command line end to end, on a tiny reader: what a user types and what comes back."""

import json
import os
import re
import signal
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from latentwire import cli, climb
from latentwire.config import combinations
from latentwire.errors import RecipeError
from latentwire.report.rows import Row
from latentwire.runs import Run
from tiny import save_tiny

RECIPE = """
name: tiny
data: {{train: [{{name: facts}}], eval: {{name: facts}}, limit: 12, eval_limit: 5}}
reader: {{name: {reader}, shots: 0, dtype: float32}}
method: {{name: per_token, compression: 4}}
train: {{steps: 6, batch_tokens: 256, precision: fp32}}
eval: {{max_new_tokens: 4, resamples: 200, batch: 4}}
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recipe")
    path = folder / "tiny.yaml"
    path.write_text(RECIPE.format(reader=save_tiny(folder / "tiny-llama", "llama")))
    return path


@pytest.fixture
def measured(monkeypatch):
    """Names of the rungs in the order in which they are measured."""
    names = []
    run = climb.Evaluator.run
    monkeypatch.setattr(climb.Evaluator, "run", lambda self, *rest: names.append(rest[0]) or run(self, *rest))
    return names


def call(capsys, *arguments):
    """Exit code, standard output and error of one command, run in this process."""
    before, sys.argv = sys.argv, ["latentwire", *map(str, arguments)]
    try:
        cli.out.file, cli.err.file = sys.stdout, sys.stderr
        with pytest.raises(SystemExit) as stopped:
            cli.main()
    finally:
        sys.argv = before
        cli.out.file, cli.err.file = None, None
    captured = capsys.readouterr()
    return stopped.value.code or 0, captured.out, captured.err


def test_run_trains_evaluates_reports_and_guards_its_folder(recipe, tmp_path, capsys):
    code, out, _ = call(capsys, "run", recipe, "--out", tmp_path, "--json")
    assert code == 0
    folder = tmp_path / "tiny"
    rows = [Row.from_dict(json.loads(line)) for line in (folder / "rows.jsonl").read_text().splitlines()]
    assert json.loads(out)["rows"] == [row.to_dict() for row in rows]
    assert {row.scope for row in rows} == {"prompt", "context"}
    assert len(rows) == 24
    judged = next(row for row in rows if row.trained)
    assert (judged.variant, judged.wire_dtype, judged.decoder_parameters > 0) == ("mlp", "int8", True)
    predictions = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    assert len(predictions) == 24 * 5
    assert "tiny-llama" in (folder / "report.html").read_text()
    assert not (folder / "ladder.partial.jsonl").exists()

    code, _, words = call(capsys, "run", recipe, "--out", tmp_path)
    assert code == 2
    assert "--force" in words
    assert len(words.strip().splitlines()) == 1

    (folder / "mine.txt").write_text("kept")
    small = "eval.rungs=[no context, full text, raw embeddings, trained]"
    code, _, _ = call(capsys, "run", recipe, small, "--out", tmp_path, "--force")
    assert code == 0
    assert (folder / "mine.txt").read_text() == "kept"
    again = [Row.from_dict(json.loads(line)) for line in (folder / "rows.jsonl").read_text().splitlines()]
    assert len(again) == 8
    assert {(row.scope, row.rung, row.f1, row.answer_nll) for row in again} < {
        (row.scope, row.rung, row.f1, row.answer_nll) for row in rows
    }

    code, _, words = call(capsys, "eval", recipe, "--out", tmp_path)
    assert code == 2
    assert "--force" in words


def test_evaluation_goes_on_after_the_rungs_it_finished(recipe, tmp_path, capsys):
    small = "eval.rungs=[no context, full text, raw embeddings, trained]"
    assert call(capsys, "run", recipe, small, "--out", tmp_path)[0] == 0
    folder = tmp_path / "tiny"
    expected = (folder / "predictions.jsonl").read_text()
    with pytest.MonkeyPatch.context() as patch:
        calls = []
        run = climb.Evaluator.run

        def stop_at_third(self, name, method, scope):
            calls.append(name)
            if len(calls) == 3:
                raise KeyboardInterrupt
            return run(self, name, method, scope)

        patch.setattr(climb.Evaluator, "run", stop_at_third)
        assert call(capsys, "eval", recipe, small, "--out", tmp_path, "--force")[0] == 130
        calls.clear()
        patch.setattr(climb.Evaluator, "run", lambda self, *rest: calls.append(rest[0]) or run(self, *rest))
        assert call(capsys, "eval", recipe, small, "--out", tmp_path, "--force")[0] == 0
        assert len(calls) == 2 * 4 - 2
    assert (folder / "predictions.jsonl").read_text() == expected


def test_evaluation_under_another_recipe_than_the_training_is_refused(recipe, tmp_path, capsys):
    small = "eval.rungs=[no context, full text, raw embeddings, trained]"
    code, _, words = call(capsys, "eval", recipe, "--out", tmp_path)
    assert code == 2
    assert "train it first" in words
    assert call(capsys, "train", recipe, "--out", tmp_path)[0] == 0
    for change in ("method.compression=2", "train.lr=0.5", "data.limit=11", "eval.scopes=[context]"):
        code, _, words = call(capsys, "eval", recipe, small, change, "--out", tmp_path)
        assert code == 2, change
        assert "one of another" in words
        assert len(words.strip().splitlines()) == 1
    assert not (tmp_path / "tiny" / "rows.jsonl").exists()
    assert call(capsys, "eval", recipe, small, "data.eval_limit=3", "--out", tmp_path)[0] == 0
    assert len((tmp_path / "tiny" / "predictions.jsonl").read_text().splitlines()) == 2 * 4 * 3


def test_ladder_of_text_alone_prints_its_table_and_no_verdict(recipe, tmp_path, capsys):
    assert call(capsys, "train", recipe, "--out", tmp_path)[0] == 0
    rungs = "eval.rungs=[no context, full text, raw embeddings]"
    code, out, _ = call(capsys, "eval", recipe, rungs, "--out", tmp_path)
    assert code == 0
    assert "full text" in out
    assert "F1" in out
    assert "keeps" not in out
    assert "report" not in out


def test_ctrl_c_in_the_evaluation_of_a_run_exits_130_and_the_run_resumes(recipe, tmp_path, capsys):
    small = "eval.rungs=[no context, full text, raw embeddings, trained]"
    folder = tmp_path / "tiny"
    with pytest.MonkeyPatch.context() as patch:
        append = Run.append

        def press_ctrl_c(self, name, record):
            append(self, name, record)
            if name == "ladder.partial.jsonl":
                os.kill(os.getpid(), signal.SIGINT)

        patch.setattr(Run, "append", press_ctrl_c)
        before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores the signal
        code, _, words = call(capsys, "run", recipe, small, "--out", tmp_path)
        signal.signal(signal.SIGINT, before)
    assert code == 130
    assert "--resume" in words
    assert len((folder / "ladder.partial.jsonl").read_text().splitlines()) == 1
    provenance, written = (folder / "provenance.json").read_bytes(), (folder / "weights.safetensors").stat().st_mtime_ns
    (folder / "checkpoint.pt").unlink()  # what was trained to its end needs none
    assert call(capsys, "run", recipe, small, "--out", tmp_path, "--resume")[0] == 0
    assert (folder / "weights.safetensors").stat().st_mtime_ns == written
    assert (folder / "provenance.json").read_bytes() == provenance
    assert len((folder / "rows.jsonl").read_text().splitlines()) == 2 * 4


def test_rungs_that_are_asked_for_later_are_measured_beside_those_that_are_there(recipe, tmp_path, capsys):
    few, folder = "no context, full text, raw embeddings, trained", tmp_path / "tiny"
    assert call(capsys, "run", recipe, f"eval.rungs=[{few}]", "--out", tmp_path)[0] == 0
    before = (folder / "ladder.jsonl").read_text().splitlines()
    assert call(capsys, "run", recipe, f"eval.rungs=[{few}, token ids]", "--out", tmp_path, "--resume")[0] == 0
    after = (folder / "ladder.jsonl").read_text().splitlines()
    assert after[: len(before)] == before  # their seconds too
    assert {json.loads(line)["result"]["rung"] for line in after[len(before) :]} == {"token ids"}
    assert len((folder / "rows.jsonl").read_text().splitlines()) == 2 * 5


def test_diverged_training_is_one_error_and_keeps_a_checkpoint_that_resumes(recipe, tmp_path, capsys):
    wild = ["train.lr=1e30", "train.warmup=0", "train.checkpoint_seconds=1e-6"]
    code, _, words = call(capsys, "train", recipe, *wild, "--out", tmp_path)
    assert code == 2
    assert "expected finite losses" in words
    assert "at step 1" in words
    with Run(tmp_path / "tiny") as run:
        state = run.load_checkpoint()
    assert state["step"] == 0
    assert all(bool((parameter.abs() < 100).all()) for parameter in state["parameters"])
    assert not (tmp_path / "tiny" / "weights.safetensors").exists()


def test_damaged_checkpoint_is_one_line(recipe, tmp_path, capsys):
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "checkpoint.pt").write_bytes(b"junk")
    code, _, words = call(capsys, "train", recipe, "--resume", "--out", tmp_path)
    assert code == 2
    assert "expected a readable checkpoint" in words
    assert len(words.strip().splitlines()) == 1


def test_dry_run_in_words_holds_recipe_and_steps_and_writes_nothing(recipe, tmp_path, capsys):
    code, out, _ = call(capsys, "run", recipe, "--dry-run", "--out", tmp_path)
    assert code == 0
    assert "compression: 4" in out
    assert re.search(r"steps\s+6\b", out)
    assert list(tmp_path.iterdir()) == []


def test_dry_run_prints_the_plan_and_writes_nothing(recipe, tmp_path, capsys):
    code, out, _ = call(capsys, "run", recipe, "--dry-run", "--json", "--out", tmp_path)
    plan = json.loads(out)
    assert code == 0
    assert plan["steps"] == 6
    assert plan["code width d"] == 16
    assert plan["trained parameters"] > 0
    assert plan["recipe"]["name"] == "tiny"
    assert list(tmp_path.iterdir()) == []


def test_sweep_runs_every_point_and_reports_them_together(recipe, tmp_path, capsys):
    text = recipe.read_text().replace(
        "\neval: {", "\neval: {scopes: [prompt], rungs: [no context, full text, raw embeddings, trained], "
    )
    path = tmp_path / "small.yaml"
    path.write_text(text)
    code, _, words = call(capsys, "sweep", path, "train.lr=1e-3,3e-4", "method.compression=4", "--out", tmp_path)
    assert code == 0, words
    folder = tmp_path / "tiny-sweep"
    points = [path.name for path in folder.iterdir() if path.is_dir()]
    assert sorted(points) == ["train.lr-1e-3_method.compression-4", "train.lr-3e-4_method.compression-4"]
    page = (folder / "report.html").read_text()
    assert "1e-3" in page
    assert "3e-4" in page


def test_text_rungs_are_taken_from_a_run_that_put_the_same_questions(recipe, tmp_path, capsys, measured, caplog):
    small = ["eval.rungs=[no context, full text, raw embeddings, 'pca 4x, linear', trained]", "eval.scopes=[prompt]"]

    def rows_of(*overrides):
        measured.clear()
        code, out, words = call(capsys, "run", recipe, *small, *overrides, "--out", tmp_path, "--force", "--json")
        assert code == 0, words
        return {row["rung"]: row for row in json.loads(out)["rows"]}

    alone = rows_of("train.steps=9", "name=other")
    first = rows_of()
    assert len(measured) == 5
    lent = ["--baselines", tmp_path / "tiny"]
    second = rows_of("train.steps=9", "name=other", *lent)
    assert measured == ["pca 4x, linear", "pca 4x, mlp"]
    for name, row in second.items():
        timed = {key for key in row if key.endswith("_seconds") or key in ("peak_memory_bytes", "reads_to_pay", "note")}
        assert {key: row[key] for key in row.keys() - timed} == {key: alone[name][key] for key in row.keys() - timed}
    assert second["full text"]["prefill_seconds"] == first["full text"]["prefill_seconds"]
    notes = ["measured in run tiny", "measured in run tiny", "measured in run tiny", None, None]
    assert [row["note"] for row in second.values()] == notes
    third = rows_of("train.steps=9", "name=other", "--baselines", tmp_path / "other")
    assert measured == ["pca 4x, linear", "pca 4x, mlp"]
    assert [row["note"] for row in third.values()] == notes

    rows_of("name=other", *lent, "data.eval_limit=4")
    assert len(measured) == 5
    assert "measuring anew" in caplog.text
    code, _, words = call(capsys, "run", recipe, "name=lost", "--baselines", tmp_path / "no", "--out", tmp_path)
    assert code == 2
    assert "--baselines: expected a run" in words
    assert not (tmp_path / "lost").exists()


def test_sweep_reads_each_text_rung_once(recipe, tmp_path, capsys, measured):
    path = tmp_path / "small.yaml"
    rungs = "\neval: {scopes: [prompt], rungs: [no context, full text, raw embeddings, trained], "
    path.write_text(recipe.read_text().replace("\neval: {", rungs))
    assert call(capsys, "sweep", path, "train.lr=1e-3,3e-4", "--out", tmp_path)[0] == 0
    assert measured == ["no context", "full text", "raw embeddings", "pca 4x, mlp", "pca 4x, mlp"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "nowhere.yaml"], "found nothing at nowhere.yaml"),
        (["run"], "Missing argument"),
        (["rum"], "rum"),
        (["report", "nowhere"], "nowhere"),
        (["sweep", "recipe.yaml", "train.lr"], "recipe.yaml"),
    ],
)
def test_a_users_error_is_one_line_and_exit_code_2(arguments, words, capsys):
    code, _, found = call(capsys, *arguments)
    assert code == 2
    assert words in found
    assert len(found.strip().splitlines()) == 1


def test_debug_shows_the_traceback(monkeypatch):
    monkeypatch.setattr("sys.argv", ["latentwire", "--debug", "run", "nowhere.yaml"])
    with pytest.raises(RecipeError):
        cli.main()


def test_training_context_in_the_evaluation_is_refused(recipe, tmp_path, capsys):
    line = json.dumps({"id": "a", "context": "Ann is ten.", "question": "How old is Ann?", "answers": ["ten"]})
    path = tmp_path / "same.jsonl"
    path.write_text(line + "\n")
    spec = f"{{name: jsonl, path: {path}}}"
    overrides = [f"data.train=[{spec}]", f"data.eval={spec}", "data.limit=1", "data.eval_limit=1"]
    splits = ["data.train_split=all", "data.eval_split=all"]
    code, _, words = call(capsys, "run", recipe, *overrides, *splits, "--out", tmp_path)
    assert code == 2
    assert "same context" in words


def test_models_and_doctor_print_json_for_machines(capsys):
    code, out, _ = call(capsys, "models", "--json")
    assert code == 0
    assert {model["name"] for model in json.loads(out)} == {"smollm2-135m", "gemma-3-270m"}
    code, out, _ = call(capsys, "doctor", "--json")
    assert code == 0
    facts = json.loads(out)
    assert facts["device"] in ("cpu", "cuda")
    assert facts["threads"] >= 1
    assert float(facts["bfloat16 matrix product"].split()[0].replace(",", "")) > 0


def test_models_and_doctor_print_tables_for_people(capsys):
    code, out, _ = call(capsys, "models")
    assert code == 0
    assert "smollm2-135m" in out
    code, out, _ = call(capsys, "doctor")
    assert code == 0
    assert "GFLOP/s" in out


def test_grid_entry_without_values_is_refused():
    with pytest.raises(RecipeError, match="key=value"):
        combinations(["train.lr"])


def test_grid_is_the_product_of_its_axes():
    assert combinations(["a=1,2", "b=3"]) == [["a=1", "b=3"], ["a=2", "b=3"]]


def test_training_starts_from_the_weights_of_an_earlier_run(recipe, tmp_path, capsys):
    first = tmp_path / "tiny"

    def train(*overrides):
        return call(capsys, "train", recipe, "--out", tmp_path, *overrides)

    def weights(name):
        return load_file(tmp_path / name / "weights.safetensors")["decoder.full"]

    assert train()[0] == 0
    assert train("name=next", f"train.start_from={first}", "train.lr=1e-9", "train.seed=1")[0] == 0
    assert train("name=anew", "train.lr=1e-9", "train.seed=1")[0] == 0
    torch.testing.assert_close(weights("next"), weights("tiny"), atol=1e-6, rtol=0)
    assert (weights("anew") - weights("tiny")).abs().max() > 1e-3
    for wrong, words in (
        ([f"train.start_from={tmp_path / 'none'}"], "found neither in"),
        ([f"train.start_from={first}", "method.compression=2"], "expected a run of"),
    ):
        code, _, found = train("name=other", *wrong)
        assert (code, len(found.strip().splitlines())) == (2, 1)
        assert words in found
        assert not (tmp_path / "other" / "weights.safetensors").exists()
    code, _, found = train(f"train.start_from={first}", "--force")
    assert (code, "expected another run than" in found) == (2, True)
    assert weights("tiny").abs().max() > 1e-3


def test_force_keeps_the_old_run_until_all_that_the_recipe_names_is_found(recipe, tmp_path, capsys):
    assert call(capsys, "train", recipe, "--out", tmp_path)[0] == 0
    weights = (tmp_path / "tiny" / "weights.safetensors").read_bytes()
    for wrong in ("data.train=[{name: squad, path: nowhere.json}]", "method.compresion=4", "eval.rungs=[full test]"):
        assert call(capsys, "run", recipe, wrong, "--out", tmp_path, "--force")[0] == 2, wrong
        assert (tmp_path / "tiny" / "weights.safetensors").read_bytes() == weights, wrong


def test_unknown_names_within_the_recipes_parts_are_told_at_once(recipe, tmp_path, capsys):
    wrong = ("method.compresion=4", "data.eval={name: fact}", "objective.weights={reconstrct: 1}")
    code, _, words = call(capsys, "run", recipe, *wrong, "--out", tmp_path)
    assert (code, len(words.strip().splitlines())) == (2, 1)
    for hint in ("'compresion': did you mean 'compression'", "'facts'", "'reconstruct'"):
        assert hint in words


def test_resumed_run_that_was_finished_measures_nothing_again(recipe, tmp_path, capsys, measured):
    small = "eval.rungs=[no context, full text, raw embeddings, trained]"
    assert call(capsys, "run", recipe, small, "--out", tmp_path)[0] == 0

    def rows():
        lines = (tmp_path / "tiny" / "rows.jsonl").read_text().splitlines()
        return [{**json.loads(line), "train_seconds": None} for line in lines]

    before = rows()
    measured.clear()
    assert call(capsys, "run", recipe, small, "--out", tmp_path, "--resume")[0] == 0
    assert measured == []
    assert rows() == before


def test_rows_name_the_commit_that_measured_them(recipe, tmp_path, capsys):
    small = "eval.rungs=[no context, full text, raw embeddings]"
    assert call(capsys, "train", recipe, "--out", tmp_path)[0] == 0
    path = tmp_path / "tiny" / "provenance.json"
    facts = json.loads(path.read_text())
    path.write_text(json.dumps({**facts, "commit": "of the training", "threads": 999}))
    code, out, _ = call(capsys, "eval", recipe, small, "--out", tmp_path, "--json")
    assert code == 0
    assert {(row["commit"], row["threads"]) for row in json.loads(out)["rows"]} == {(facts["commit"], facts["threads"])}


def test_decoder_without_parameters_is_run_without_training(recipe, tmp_path, capsys):
    small = "eval.rungs=[no context, full text, raw embeddings, trained]"
    code, out, words = call(capsys, "run", recipe, small, "method.decoder=codebook_hard", "--out", tmp_path, "--json")
    assert code == 0, words
    row = json.loads(out)["rows"][3]
    assert (row["rung"], row["agreement"], row["train_seconds"]) == ("pca 4x, codebook_hard", 1.0, 0.0)


def test_plain_install_says_what_the_command_line_needs():
    code = "import sys; sys.modules['typer'] = None; from latentwire.__main__ import main; main()"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert found.returncode == 2
    assert "expected typer to be installed" in found.stderr
    assert len(found.stderr.strip().splitlines()) == 1


def test_any_registered_method_has_a_rung_of_its_own(recipe, tmp_path, capsys):
    half = "method={name: truncated, unit: positions, per_token: 0.5}"
    code, out, words = call(capsys, "run", recipe, half, "eval.scopes=[prompt]", "--out", tmp_path, "--json")
    assert code == 0, words
    rows = {row["rung"]: row for row in json.loads(out)["rows"]}
    assert list(rows) == ["no context", "full text", "raw embeddings", "token ids", "truncated"]
    assert rows["truncated"]["num_positions"] <= 0.5 * rows["full text"]["num_positions"]
    assert "truncated" in (tmp_path / "tiny" / "report.html").read_text()
