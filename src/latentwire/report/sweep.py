"""The report of a sweep: the judged rung of every point in one table and one plot."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from latentwire.errors import RunError
from latentwire.report.charts import Point, sweep_chart
from latentwire.report.folder import RunResults, read_run
from latentwire.report.page import Chart, Page, Section, Table, write_page
from latentwire.report.report import HEADLINES, run_verdict
from latentwire.report.rows import Row
from latentwire.report.tables import ABSENT, count, interval, number
from latentwire.report.verdict import headline_row


@dataclass(frozen=True)
class SweepPoint:
    """One point of the grid: the overrides that made it, as typed, and the folder of its run."""

    overrides: Mapping[str, str]
    folder: Path


def write_sweep_report(folder: Path, points: Sequence[SweepPoint]) -> Path:
    """Write ``report.html`` and ``report.md`` into the sweep's folder and return the path of the HTML.

    Raises:
        RunError: there is no point, a point's run is incomplete, or the folder cannot be written.
    """
    if not points:
        raise RunError(f"The sweep in {folder} has no points; give a key with values, such as train.lr=1e-3,3e-4.")
    runs = [read_run(point.folder) for point in points]
    rows = [headline_row(run.rows) for run in runs]
    keys = tuple(dict.fromkeys(key for point in points for key in point.overrides))
    first = rows[0]
    section = Section(
        "points", "Points", charts=_charts(points, rows, keys), tables=(_table(points, runs, rows, keys),)
    )
    page = Page(
        title=f"Sweep {folder.resolve().name}",
        kind="one run per point",
        headline=f"{len(points)} points over {', '.join(keys) or 'nothing'}",
        statement=_statement(points, rows),
        facts=f"{first.dataset} ({first.split}), {first.n:,} questions, {first.reader}. Commit {first.commit}.",
        sections=(section,),
    )
    return write_page(folder, page)


def _table(points: Sequence[SweepPoint], runs: Sequence[RunResults], rows: Sequence[Row], keys: Sequence[str]) -> Table:
    lines = tuple(
        (
            *(point.overrides.get(key, ABSENT) for key in keys),
            row.rung,
            HEADLINES[run_verdict(run).outcome],
            interval(row.f1, row.f1_low, row.f1_high),
            interval(row.ratio, row.ratio_low, row.ratio_high),
            number(row.em),
            number(row.answer_nll),
            number(row.agreement),
            number(row.exposure_gap),
            count(row.bytes_on_wire),
            count(row.num_positions),
            count(row.train_seconds),
            point.folder.name,
        )
        for point, run, row in zip(points, runs, rows, strict=True)
    )
    columns = ("F1 [95 % interval]", "ratio [95 % interval]", "exact match", "answer NLL", "agreement", "exposure gap")
    prices = ("bytes on wire", "positions", "train seconds", "run")
    caption = "Each point's judged rung: what it trained, else the last rung that decodes a latent."
    return Table(caption, (*keys, "rung", "verdict", *columns, *prices), lines, num_headers=len(keys) + 2)


def _charts(points: Sequence[SweepPoint], rows: Sequence[Row], keys: Sequence[str]) -> tuple[Chart, ...]:
    if not keys:
        return ()
    swept = max(keys, key=lambda key: len({point.overrides.get(key) for point in points}))
    measure = _measure(rows)
    series: dict[str, list[Point]] = {}
    for point, row in zip(points, rows, strict=True):
        others = ", ".join(f"{key}={value}" for key, value in point.overrides.items() if key != swept)
        value, low, high = _values(row, measure)
        series.setdefault(others, []).append(Point(point.overrides.get(swept, ABSENT), value, low, high))
    caption = f"{measure} by {swept}; whiskers are 95 % intervals."
    return (Chart(caption, sweep_chart(series, "sweep", swept, measure)),)


def _statement(points: Sequence[SweepPoint], rows: Sequence[Row]) -> str:
    measure = _measure(rows)
    values = [_values(row, measure)[0] for row in rows]
    best = max(range(len(values)), key=values.__getitem__)
    settings = ", ".join(f"{key}={value}" for key, value in points[best].overrides.items())
    return (
        f"The highest {measure} is {values[best]:.3f}, at {settings or 'the base recipe'}. The highest of "
        f"{len(points)} points flatters itself: confirm it on questions the sweep has not seen."
    )


def _measure(rows: Sequence[Row]) -> str:
    return "ratio" if all(row.ratio is not None for row in rows) else "F1"


def _values(row: Row, measure: str) -> tuple[float, float | None, float | None]:
    if measure == "ratio" and row.ratio is not None:
        return row.ratio, row.ratio_low, row.ratio_high
    return row.f1, row.f1_low, row.f1_high
