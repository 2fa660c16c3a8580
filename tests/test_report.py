"""The report: rows to verdict, tables, charts and pages, from result files written here."""

import dataclasses
import itertools
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from latentwire.errors import RunError
from latentwire.report.charts import Point, ladder_chart, lines_chart, positions_chart, sweep_chart
from latentwire.report.report import price_sentence, write_report
from latentwire.report.rows import FLOOR, RAW, TEXT, Row
from latentwire.report.sweep import SweepPoint, write_sweep_report

TRAINED = "PCA, mlp"
LINEAR = "PCA, linear"
RUNGS = (FLOOR, TEXT, RAW, LINEAR, TRAINED)
F1 = {FLOOR: 0.03, TEXT: 0.52, RAW: 0.52, LINEAR: 0.17, TRAINED: 0.49}
EXTERNAL = re.compile(r"""https?://|(?:src|href)\s*=\s*["'](?!#)|@import|url\((?!#)""")


def make_row(rung: str = TRAINED, scope: str = "prompt", **changes: object) -> Row:
    decodes = rung in (LINEAR, TRAINED)
    row = Row(
        dataset="facts", split="validation", scope=scope, reader="tiny", rung=rung, method="pca", seed=0, n=200,
        f1=F1[rung], f1_low=F1[rung] - 0.02, f1_high=F1[rung] + 0.02, dtype="float32", threads=2, hardware="a test",
        commit="abc1234", trained=rung == TRAINED, ratio=F1[rung] / 0.52 if decodes else None,
        ratio_low=F1[rung] / 0.52 - 0.03 if decodes else None, ratio_high=F1[rung] / 0.52 + 0.03 if decodes else None,
        compression_requested=8.0 if decodes else None, wire_dtype="int8" if decodes else None,
        num_positions=300.0, bytes_on_wire=22_800.0 if decodes else 1_300.0, token_id_bytes=600.0, text_bytes=1_300.0,
        rms_ratio=0.98 if decodes else None, rms_ratio_heldout=0.93 if decodes else None,
    )  # fmt: skip
    return dataclasses.replace(row, **changes)


def write_lines(path: Path, objects: list[dict[str, object]]) -> None:
    path.write_text("".join(json.dumps(value) + "\n" for value in objects), encoding="utf-8")


def make_run(folder: Path, question: str = "Who built the mill?", **changes: object) -> Path:
    folder.mkdir(parents=True)
    rows = [
        make_row(rung, scope, **(changes if rung == TRAINED else {}))
        for scope in ("prompt", "context")
        for rung in RUNGS
    ]
    write_lines(folder / "rows.jsonl", [row.to_dict() for row in rows])
    losses = {"reconstruct": 0.4, "answer_kl": 2.0}
    shares = {"reconstruct": 0.7, "answer_kl": 0.3}
    write_lines(
        folder / "log.jsonl",
        [{"step": step, "reader": "tiny", "losses": losses, "shares": shares} for step in range(1, 500)],
    )
    predictions = [
        {"reader": "tiny", "rung": rung, "scope": scope, "id": f"q{index}", "question": question, "gold": ["Ada Brook"],
         "answer": "a | b" if rung == LINEAR else "Ada Brook", "f1": float(rung != LINEAR)}
        for scope in ("prompt", "context") for rung in RUNGS for index in range(12)
    ]  # fmt: skip
    write_lines(folder / "predictions.jsonl", predictions)
    (folder / "recipe.yaml").write_text("data: {name: facts}\nverdict: {measure: ratio}\n", encoding="utf-8")
    (folder / "provenance.json").write_text('{"commit": "abc1234", "versions": {"torch": "2.9"}}', encoding="utf-8")
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "demo")


def test_both_pages_hold_each_rung_exactly_once_per_scope(run: Path) -> None:
    html = write_report(run).read_text(encoding="utf-8")
    markdown = (run / "report.md").read_text(encoding="utf-8")
    ladder = html[html.index('id="ladder-table-1"') : html.index('id="prices"')]
    in_html = re.findall(r'<th scope="row">(.*?)</th>\s*<td class="name">(.*?)</td>', ladder)
    ladder = markdown[markdown.index("## Ladder") : markdown.index("## Prices")]
    in_markdown = re.findall(r"^\| ([^|]*?) \| (prompt|context) \|", ladder, flags=re.MULTILINE)
    expected = [(rung + " (trained)" * (rung == TRAINED), scope) for scope in ("prompt", "context") for rung in RUNGS]
    assert in_html == expected
    assert in_markdown == expected


def test_verdict_stands_before_everything_else(run: Path) -> None:
    html = write_report(run).read_text(encoding="utf-8")
    body = html[html.index("<body>") :]
    assert '<h1 class="target">Target reached</h1>' in body
    assert body.index("<h1") < body.index('class="statement">PCA, mlp keeps 0.942') < body.index("<svg")


def test_page_refers_to_nothing_outside_itself(run: Path) -> None:
    html = write_report(run).read_text(encoding="utf-8")
    assert html.count("<svg") == 4
    assert EXTERNAL.findall(html) == []
    ids = re.findall(r'\sid="([^"]*)"', html)
    assert len(ids) == len(set(ids))
    references = re.findall(r'href="#([^"]*)"|url\(#([^)]*)\)|aria-labelledby="([^"]*)"', html)
    assert {name for group in references for text in group for name in text.split()} <= set(ids)


def test_question_cannot_inject_markup(tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script> ![x](y) | `z`\n# title"
    run = make_run(tmp_path / "hostile", question=hostile, note="<b>bold</b>")
    html = write_report(run).read_text(encoding="utf-8")
    markdown = (run / "report.md").read_text(encoding="utf-8")
    assert "<script" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert "<b>" not in html
    assert r"&lt;script&gt;alert(1)&lt;/script&gt; !\[x\](y) \| \`z\` # title" in markdown
    assert "<script" not in markdown


def test_ten_answers_say_which_equal_the_texts(run: Path) -> None:
    html = write_report(run).read_text(encoding="utf-8")
    assert html.count('<article class="question">') == 10
    assert html.count("= equal to the text&#39;s") == 10
    assert html.count("≠ different") == 10


def test_page_says_that_stage_1_is_a_check_and_not_a_product(run: Path) -> None:
    write_report(run)
    markdown = (run / "report.md").read_text(encoding="utf-8")
    assert "22,800 bytes per example on the wire, 38.0 times the 600 bytes of the same text's token ids" in markdown
    assert "saves none of the 300" in markdown
    assert "Stage 1 loses to token ids on bytes and saves no positions: it is a check" in markdown


def test_a_state_that_saves_bytes_and_positions_is_not_called_a_loser() -> None:
    sentence = price_sentence(make_row(bytes_on_wire=300.0, num_positions=75.0), make_row(RAW))
    assert "0.50 of the 600 bytes" in sentence
    assert "saves 75% of the 300" in sentence
    assert "loses" not in sentence


def test_run_that_trained_nothing_has_no_loss_section(run: Path) -> None:
    assert 'id="training"' in write_report(run).read_text(encoding="utf-8")
    (run / "log.jsonl").unlink()
    html = write_report(run).read_text(encoding="utf-8")
    assert 'id="training"' not in html
    assert "gradient shares" not in (run / "report.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["rows.jsonl", "predictions.jsonl", "recipe.yaml", "provenance.json"])
def test_missing_file_raises_run_error_that_names_it(run: Path, name: str) -> None:
    (run / name).unlink()
    with pytest.raises(RunError, match=rf"{re.escape(name)} is missing\. Run 'latentwire"):
        write_report(run)


@pytest.mark.parametrize("name", ["rows.jsonl", "predictions.jsonl", "log.jsonl"])
def test_truncated_line_raises_run_error_that_names_the_line(run: Path, name: str) -> None:
    lines = (run / name).read_text(encoding="utf-8").splitlines()
    (run / name).write_text("\n".join([*lines[:2], lines[2][:-9]]), encoding="utf-8")
    with pytest.raises(RunError, match=rf"{re.escape(name)} line 3 is cut short"):
        write_report(run)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.jsonl", b"", "is empty"),
        ("rows.jsonl", b"\xff\xfe", "UTF-8"),
        ("rows.jsonl", b"[1, 2]\n", "line 1 must hold a JSON object"),
        ("recipe.yaml", b"a: [1", "no valid YAML"),
        ("recipe.yaml", b"verdict: 3", "'verdict' must be a mapping"),
        ("provenance.json", b'{"commit": ', "cut short"),
        (
            "log.jsonl",
            b'{"step": 1, "reader": "r", "losses": {"a": "x"}, "shares": {}}',
            r"line 1: 'losses\.a' must be a number",
        ),
        ("log.jsonl", b'{"step": "1", "reader": "r", "losses": {}, "shares": {}}', "line 1: 'step' must be a int"),
    ],
)
def test_malformed_file_raises_run_error(run: Path, name: str, content: bytes, message: str) -> None:
    (run / name).write_bytes(content)
    with pytest.raises(RunError, match=message):
        write_report(run)


def test_rung_that_stands_twice_raises_run_error(run: Path) -> None:
    text = (run / "rows.jsonl").read_text(encoding="utf-8")
    (run / "rows.jsonl").write_text(text + text.splitlines()[0], encoding="utf-8")
    with pytest.raises(RunError, match=f"'{FLOOR}' of scope 'prompt' twice"):
        write_report(run)


def test_chart_is_the_same_every_time_and_follows_the_theme() -> None:
    rows = [make_row(rung) for rung in RUNGS]
    svg = ladder_chart(rows, "ladder-1")
    assert svg == ladder_chart(rows, "ladder-1")
    assert "currentColor" in svg
    assert "var(--series-2)" in svg
    assert re.findall(r"#[0-9a-f]{6}\b", svg) == []
    assert all(f">{rung}</text>" in svg for rung in RUNGS)
    assert "<title id=" in svg
    assert "<desc id=" in svg


@pytest.mark.parametrize(("floor", "raw"), [(0.04, 0.13), (0.13, 0.04)])
def test_labels_of_lines_that_are_close_turn_away_from_each_other(floor: float, raw: float) -> None:
    svg = ladder_chart([make_row(FLOOR, f1=floor), make_row(RAW, f1=raw)], "ladder-1")
    anchors = {name: anchor for anchor, name in re.findall(r"text-anchor: (\w+)[^>]*>(floor|raw)</text>", svg)}
    assert anchors == ({"floor": "end", "raw": "start"} if floor < raw else {"floor": "start", "raw": "end"})


def test_numbers_of_rungs_at_one_place_stand_apart_and_beside_the_axes() -> None:
    rows = [make_row(FLOOR, num_positions=0.0, f1=0.0), *(make_row(num_positions=40.0, f1=0.2) for _ in range(11))]
    svg = positions_chart([*rows, make_row(TEXT, num_positions=160.0, f1=0.6)], "positions-1")
    found = re.findall(
        r"""text-anchor: middle; fill: (?:var|currentC)[^>]* x="([\d.]+)" y="([\d.]+)"[^>]*>(\d+)<""", svg
    )
    places = {int(number): (float(x), float(y)) for x, y, number in found if number.isdigit()}
    one = [places[number] for number in range(2, 13)]
    assert len({round(x) for x, _ in one}) == 2
    assert all(abs(x - other) + abs(y - far) > 9 for (x, y), (other, far) in itertools.combinations(one, 2))
    assert places[1][0] > float(re.findall(r'd="M ([\d.]+) ', svg)[0])


def test_chart_escapes_names_and_never_reads_them_as_formulas() -> None:
    svg = ladder_chart([make_row(), dataclasses.replace(make_row(LINEAR), rung="<b> $x_1$ & co")], "ladder-1")
    assert "<b>" not in svg
    assert "&lt;b&gt; $x_1$ &amp; co</text>" in svg


@pytest.mark.parametrize(("share", "named"), [(0.4, "Share of the gap"), (None, "NLL of the answers")])
def test_learning_curve_is_of_the_share_where_there_is_one_else_of_the_likelihood(
    run: Path, share: float | None, named: str
) -> None:
    point = {"reader": "tiny", "rung": TRAINED, "answer_nll": 2.5} | ({} if share is None else {"share_of_gap": share})
    write_lines(run / "curve.jsonl", [{**point, "examples": examples} for examples in (100, 200)])
    html = write_report(run).read_text(encoding="utf-8")
    assert f"{named} against training examples seen, tiny." in html
    assert html.count("against training examples seen") == 1


def test_positions_are_drawn_where_they_are_saved(run: Path, tmp_path: Path) -> None:
    shorter = make_run(tmp_path / "shorter", num_positions=75.0)
    drawn = ["F1 against reader positions" in write_report(one).read_text(encoding="utf-8") for one in (run, shorter)]
    assert drawn == [False, True]


def test_long_log_becomes_a_short_curve_and_gaps_stay_gaps() -> None:
    steps = list(range(100_000))
    svg = lines_chart(
        steps, {"reconstruct": [1.0 / (step + 1) for step in steps], "late": [float("nan")] * 100_000}, "l", "loss"
    )
    assert len(svg) < 60_000
    assert "nan" not in svg.split("</desc>")[1].lower()


@pytest.mark.parametrize("labels", [("1e-4", "3e-4", "1e-3"), ("1", "2", "3"), ("linear", "mlp", "soft")])
def test_sweep_line_runs_through_its_points_inside_the_chart(labels: tuple[str, ...]) -> None:
    points = [
        Point(label, value, value - 0.1, value + 0.1) for label, value in zip(labels, (0.2, 0.5, 0.8), strict=True)
    ]
    svg = sweep_chart({"": points}, "sweep", "train.lr", "ratio")
    width, height = (float(size) for size in re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)[0])
    line = next(path for path in re.findall(r'<path d="([^"]*)" clip-path', svg) if path.count("L") == 2)
    (x1, y1), (x2, y2), (x3, y3) = ((float(x), float(y)) for x, y in re.findall(r"[ML] ([\d.]+) ([\d.]+)", line))
    assert 0 < x1 < x2 < x3 < width
    assert height > y1 > y2 > y3 > 0
    assert y1 - y2 == pytest.approx(y2 - y3, abs=0.01)
    assert y1 - y3 > height / 3


def test_sweep_report_holds_one_row_per_point_and_one_plot(tmp_path: Path) -> None:
    points = []
    for rate, ratio in (("1e-4", 0.6), ("1e-3", 0.9)):
        for limit in ("640", "10000"):
            run = make_run(tmp_path / f"{rate}-{limit}", ratio=ratio, ratio_low=ratio - 0.01, ratio_high=ratio + 0.01)
            points.append(SweepPoint({"train.lr": rate, "data.limit": limit}, run))
    html = write_sweep_report(tmp_path, points).read_text(encoding="utf-8")
    markdown = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert html.count("<svg") == 1
    assert html.count('<th scope="row">') == len(points)
    assert EXTERNAL.findall(html) == []
    assert "| 1e-3 | 640 | PCA, mlp | Target reached |" in markdown
    assert "highest ratio is 0.900, at train.lr=1e-3, data.limit=640" in markdown


def test_sweep_of_a_weak_reader_falls_back_to_f1_for_every_point(tmp_path: Path) -> None:
    weak = make_run(tmp_path / "weak", ratio=None, ratio_low=None, ratio_high=None)
    strong = make_run(tmp_path / "strong")
    points = [SweepPoint({"reader": "weak"}, weak), SweepPoint({"reader": "strong"}, strong)]
    write_sweep_report(tmp_path, points)
    markdown = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "highest F1 is" in markdown
    assert "Reader too weak" in markdown


def test_empty_sweep_and_absent_folder_raise_run_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no points"):
        write_sweep_report(tmp_path, [])
    with pytest.raises(RunError, match="No run folder"):
        write_report(tmp_path / "absent")


def test_report_imports_no_model() -> None:
    code = "import sys, latentwire.report.sweep; print({'torch', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
