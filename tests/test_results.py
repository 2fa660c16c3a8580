"""Committed figures: files in results/ are whole, and RESULTS.md says nothing that they do not."""

import json
import runpy
from pathlib import Path

import pytest

from latentwire.report.rows import Row

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "results").glob("*/*.json"))
LADDERS = [path for path in FILES if "rung" in json.loads(path.read_text())["rows"][0]]


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_result_file_says_how_it_was_made(path):
    result = json.loads(path.read_text())
    assert set(result) == {"run", "train", "meta", "rows"}
    assert {"command", "commit", "hardware", "threads", "versions"} <= result["run"].keys()
    script = [word for word in result["run"]["command"].split() if word.startswith("runs/")]
    assert script
    assert all((ROOT / word).exists() for word in script)


@pytest.mark.parametrize("path", LADDERS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_rows_are_whole_and_share_their_questions(path):
    rows = [Row.from_dict(row) for row in json.loads(path.read_text())["rows"]]
    assert any(row.trained for row in rows)
    for row in rows:
        assert row.f1_low <= row.f1 <= row.f1_high
    by_run = {(row.reader, row.seed, row.scope): set() for row in rows}
    for row in rows:
        by_run[row.reader, row.seed, row.scope].add(row.n)
    assert all(len(sizes) == 1 for sizes in by_run.values())


def test_results_page_is_what_the_files_give():
    table = runpy.run_path(str(ROOT / "runs" / "results_table.py"))["table"]
    assert (ROOT / "RESULTS.md").read_text() == table(ROOT / "results")


def test_collecting_twice_gives_the_same_bytes(tmp_path):
    collect = runpy.run_path(str(ROOT / "runs" / "collect.py"))
    run = tmp_path / "run"
    run.mkdir()
    (run / "recipe.yaml").write_text("name: x\n")
    facts = {"commit": "c", "hardware": "h", "threads": 2, "python": "3", "versions": {}, "train_seconds": 1.23456789}
    (run / "provenance.json").write_text(json.dumps(facts))
    (run / "rows.jsonl").write_text(json.dumps({"trained": True, "f1": 0.123456789}) + "\n")
    one, two = (collect["rounded"](collect["collect"]([run], "runs/x.sh")) for _ in range(2))
    assert one == two
    assert one["rows"][0]["f1"] == 0.123457
    assert one["train"] == [{"train_seconds": 1.23457}]
