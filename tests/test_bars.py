"""Progress in a file: lines, not too many, and the last one in any case."""

import io

from rich.console import Console

from latentwire.bars import SECONDS_BETWEEN_LINES, Bars


def test_a_file_gets_a_line_every_half_minute_and_one_at_the_end(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("latentwire.bars.time.monotonic", lambda: now[0])
    written = io.StringIO()
    with (bars := Bars(Console(file=written, width=40))).bars:
        say = bars.task("a task of some words, longer than the console is wide")
        for step in range(1, 101):
            now[0] += 1
            say(step / 100, f"step {step}")
    lines = written.getvalue().splitlines()
    assert SECONDS_BETWEEN_LINES == 30
    assert [line.split("  ")[1:] for line in lines] == [
        ["30%", "30 s", "step 30"],
        ["60%", "60 s", "step 60"],
        ["90%", "90 s", "step 90"],
        ["100%", "100 s", "step 100"],
    ]


def test_a_terminal_gets_bars_and_no_lines():
    written = io.StringIO()
    with (bars := Bars(Console(file=written, force_terminal=True, width=120))).bars:
        bars.task("training")(1.0, "done")
    assert "━" in written.getvalue()
    assert "training  100%" not in written.getvalue()
