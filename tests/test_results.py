"""Committed figures: files in results/ are whole, and RESULTS.md says nothing that they do not."""

import json
import re
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
    assert not [value for value in leaves(result) if isinstance(value, str) and re.match(r"/\w", value)]
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


def test_tables_of_the_pages_are_what_the_files_give():
    script = runpy.run_path(str(ROOT / "runs" / "results_table.py"))
    filled, pages = script["filled"], {page: page.read_text() for page in script["PAGES"]}
    for page in pages.values():
        assert filled(page, ROOT) == page
        assert page.count("<!-- results/") == page.count("<!-- end -->")
    readme = pages[ROOT / "README.md"]
    changed = readme.replace("| full text |", "| full text | 0.999", 1)
    assert changed != readme
    assert filled(changed, ROOT) == readme


def test_every_number_on_the_results_page_stands_in_a_file(tmp_path):
    """Checked on made-up files, whose figures occur nowhere else: a ladder, a study and a benchmark."""
    table = runpy.run_path(str(ROOT / "runs" / "results_table.py"))["table"]
    for name, result in (("facts/per_token--x", LADDER), ("facts/per_token--z", STUDY), ("benchmarks/y", BENCHMARK)):
        path = tmp_path / f"{name}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(result))
    told = {
        rounding for result in (LADDER, STUDY, BENCHMARK) for value in leaves(result) for rounding in roundings(value)
    }
    page = table(tmp_path)
    assert table(tmp_path) == page
    body = page[page.index("\n## ") :]
    found = [text.replace(",", "") for text in re.findall(r"\d[\d,]*(?:\.\d+)?(?:e-?\d+)?", body)]
    assert {"0.412", "0.391", "0.433", "1357", "0.713", "24.7", "0.123", "0.046", "0.234", "77", "150"} <= set(found)
    assert set(found) - told <= {"1"}  # the column named F1
    assert page.count("full text") == 1


def test_runs_are_compared_question_by_question_with_raw_embeddings_and_the_first_run(tmp_path):
    folders = []
    for name, shift in (("base", 0.5), ("better", 0.2)):
        folders.append(tmp_path / name)
        folders[-1].mkdir()
        (folders[-1] / "rows.jsonl").write_text(
            json.dumps({"rung": "raw embeddings", "scope": "prompt", "trained": False})
            + "\n"
            + json.dumps({"rung": "t", "scope": "prompt", "trained": True})
        )
        lines = [
            {"rung": rung, "scope": scope, "id": str(i), "context": f"c{i // 2}", "f1": 0.5, "answer_nll": i + over}
            for scope, far in (("prompt", 0.0), ("context", 9.0))
            for rung, over in (("raw embeddings", 0.0), ("t", far + shift))
            for i in range(6)
        ]
        (folders[-1] / "predictions.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    base, better = runpy.run_path(str(ROOT / "runs" / "collect.py"))["paired"](folders, "prompt")
    assert base["over_first"]["answer_nll"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert base["over_raw"]["answer_nll"]["value"] == pytest.approx(0.5)
    assert better["over_raw"]["answer_nll"]["high"] == pytest.approx(0.2)
    assert better["over_first"]["answer_nll"]["value"] == pytest.approx(-0.3)


def test_a_training_is_compared_with_another_reader_by_reader(tmp_path, monkeypatch, capsys):
    runs = {
        "joint": {"a": (0.5, 1.0), "b": (0.4, 2.0)},
        "alone-a": {"a": (0.51, 0.9)},
        "alone-b": {"b": (0.9, 1.0)},
    }
    provenance = {"commit": "c", "hardware": "h", "threads": 2, "python": "3", "versions": {}}
    for name, readers in runs.items():
        folder = tmp_path / name
        folder.mkdir()
        (folder / "recipe.yaml").write_text("name: x\n")
        (folder / "provenance.json").write_text(json.dumps(provenance))
        row = {"dataset": "d", "seed": 3, "rung": "wire 4x", "train_seconds": 60.0}
        (folder / "rows.jsonl").write_text(json.dumps(row))
        told = [
            {"reader": reader, "rung": rung, "id": str(i), "context": f"c{i // 2}", "f1": f1, "answer_nll": nll}
            for reader, (f1, nll) in readers.items()
            for rung in ("wire 4x", "other")
            for i in range(8)
        ]
        (folder / "predictions.jsonl").write_text("\n".join(json.dumps(line) for line in told))
    path = [str(tmp_path / name) for name in ("joint", "alone-a", "alone-b")]
    words = ["versus.py", path[0], "--reference", *path[1:], "--margin", "0.02", "--variant", "v", "--command", "x"]
    monkeypatch.setattr("sys.argv", [*words, "--results", str(tmp_path / "results")])
    monkeypatch.syspath_prepend(str(ROOT / "runs"))
    runpy.run_path(str(ROOT / "runs" / "versus.py"))["main"]()
    result = json.loads((tmp_path / "results" / "d" / "wire--v.json").read_text())
    first, second = result["rows"]
    assert (first["comparison"], second["comparison"]) == ("a: joint against alone-a", "b: joint against alone-b")
    assert (first["f1_lost"], first["nll_lost"], first["no_worse"]) == (pytest.approx(0.01), pytest.approx(0.1), "yes")
    assert (second["f1_lost"], second["no_worse"], second["n"]) == (pytest.approx(0.5), "no", 8)
    verdict = runpy.run_path(str(ROOT / "runs" / "versus.py"))["verdict"]
    assert verdict(-0.01, 0.03, 0.02, 40) == "not resolved at n = 40"


def test_a_page_tells_a_shorter_ladder_by_shares_of_the_gap_and_its_learning_curve(tmp_path):
    shared = {"share_of_gap": 0.456, "share_of_gap_low": 0.4, "share_of_gap_high": 0.5}
    point = {
        "reader": "r",
        "rung": "wire 4x",
        "examples": 1600,
        "f1": 0.321,
        "answer_nll": 1.987,
        "share_of_gap": 0.111,
    }
    result = {**LADDER, "meta": {"curve": [point]}, "rows": [{**LADDER_ROW, **shared, "rung": "wire 4x"}]}
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "w.json").write_text(json.dumps(result))
    text = "<!-- results/w.json reader=r -->\n<!-- end -->\n<!-- results/w.json part=curve -->\n<!-- end -->\n"
    page = runpy.run_path(str(ROOT / "runs" / "results_table.py"))["filled"](text, tmp_path)
    assert "| wire 4x | 0.412 [0.391, 0.433] | 0.456 [0.400, 0.500] | 2.718 | – | 361 |" in page
    assert "| r | wire 4x | 1,600 | 0.321 | 1.987 | 0.111 |" in page


def leaves(value):
    """All values of nested JSON."""
    if isinstance(value, dict):
        return [leaf for item in value.values() for leaf in leaves(item)]
    return [leaf for item in value for leaf in leaves(item)] if isinstance(value, list) else [value]


def roundings(value):
    """A value's numbers as the page may print them."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return {f"{value:.3f}", f"{value:.0f}", f"{value:.3g}"}
    return set(re.findall(r"\d[\d,]*(?:\.\d+)?", value)) if isinstance(value, str) else set()


RUN = {"command": "runs/x.sh", "hardware": "a chip, 6 cores", "threads": 5, "commit": "abc", "seed": 8}
FIGURES = {
    "f1": 0.41234,
    "f1_low": 0.39123,
    "f1_high": 0.43345,
    "ratio": 0.71296,
    "ratio_low": 0.69,
    "ratio_high": 0.73,
}
LADDER_ROW = {
    **{"scope": "prompt", "reader": "r", "rung": "full text", "seed": 8, "n": 612, "trained": False, "objective": None},
    **{"em": 0.31415, "answer_nll": 2.71828, "exposure_gap": 0.0161, "agreement": 0.92, "train_examples": None},
    **{"bytes_on_wire": 1356.7, "num_positions": 361.2, **FIGURES},
}
LADDER = {
    "run": RUN,
    "train": [],
    "meta": {"intervals": "95 %, paired"},
    "rows": [
        LADDER_ROW,
        LADDER_ROW,
        {**LADDER_ROW, "rung": "t", "trained": True, "objective": "a", "train_examples": 640},
        {**LADDER_ROW, "rung": "t", "trained": True, "objective": "b", "train_examples": 2500},
    ],
}
BENCHMARK = {
    "run": RUN,
    "train": {},
    "meta": {"what": "speed", "peer": "another 3.7"},
    "rows": [{"comparison": "one", "times_faster": 24.731, "tokens": 987654}, {"comparison": "two", "error": 3.2e-7}],
}


STUDY = {
    "run": RUN,
    "train": [{"train_steps": 77}],
    "meta": {
        "intervals": "95 %, paired",
        "paired": [
            {
                "run": "base",
                "scope": "prompt",
                "over_raw": {"answer_nll": {"value": 0.1234, "low": 0.0456, "high": 0.2345}},
                "over_first": {"answer_nll": {"value": 0.0, "low": 0.0, "high": 0.0}},
            }
        ],
    },
    "rows": [LADDER_ROW, {**LADDER_ROW, "rung": "t", "trained": True, "objective": "a", "train_seconds": 150.4}],
}


def test_rows_say_whether_they_met_a_target_that_was_set_for_their_rung():
    judge = runpy.run_path(str(ROOT / "runs" / "collect.py"))["judge"]
    shares = {"wire 4x": 0.61, "wire 8x": None, "text cut 4x": 0.9}
    rows = [{"rung": rung, "share_of_gap": share} for rung, share in shares.items()]
    judge(rows, ["wire 4x=0.60", "wire 8x=0.45"])
    assert [row.get("target_met") for row in rows] == [True, False, None]
    judge(rows, ["wire 4x=0.62"])
    assert rows[0]["target_met"] is False
    with pytest.raises(SystemExit, match="with a rung of the runs"):
        judge(rows, ["wire 5x=0.6"])


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


def test_a_curve_without_tuned_rungs_gets_its_shares_from_a_ladder_of_the_same_questions(tmp_path):
    ladder, short = tmp_path / "ladder", tmp_path / "short"
    scores = {"no context, tuned": (0.0, 0.2, 0.9), "full text": (0.4, 0.4, 0.9), "full text, tuned": (0.5, 0.7, 0.9)}
    for folder, size in ((ladder, 3), (short, 2)):
        folder.mkdir()
        lines = [
            {"reader": "r", "rung": rung, "id": f"q{place}", "f1": f1}
            for rung, values in scores.items()
            for place, f1 in enumerate(values[:size])
        ]
        (folder / "predictions.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    collect = runpy.run_path(str(ROOT / "runs" / "collect.py"))
    curve = [{"reader": "r", "n": 2, "f1": f1} for f1 in (0.1, 0.35, 0.6)]
    collect["same_questions"]([short], ladder)
    collect["share_curve"](curve, ladder)
    assert [point["share_of_gap"] for point in curve] == pytest.approx([0.0, 0.5, 1.0])
    with pytest.raises(SystemExit, match="for 4 questions"):
        collect["share_curve"]([{"reader": "r", "n": 4, "f1": 0.1}], ladder)
    with pytest.raises(SystemExit, match="got others"):
        collect["same_questions"]([ladder], short)
