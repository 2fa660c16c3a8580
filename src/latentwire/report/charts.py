"""Charts as inline SVG: the ladder, the losses with their gradient shares, a sweep.

Each function returns one ``<svg>`` element without fonts, links or styles from outside. Colours are CSS variables of
the page (``--series-1`` …) and ``currentColor``, so a chart follows light and dark mode; shapes and dashes repeat what
a colour says.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullFormatter

from latentwire.report.rows import FLOOR, RAW, Row
from latentwire.report.svg import DASHES, INK, MARKERS, SERIES, STYLE, new_figure, to_svg

MAX_POINTS = 200
BESIDE = 4  # marks whose numbers have room on one side


@dataclass(frozen=True)
class Point:
    """One value of a line, with its interval where there is one."""

    x: str
    value: float
    low: float | None = None
    high: float | None = None


def ladder_chart(rows: Sequence[Row], name: str) -> str:
    """F1 per rung with its 95 % interval, the first rung on top, no context and raw embeddings drawn through as lines.

    Args:
        rows: the rungs of one scope.
        name: unique on the page; the element ids start with it.
    """
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(0.75 + 0.27 * len(rows))
        for place, row in enumerate(rows):
            _draw_rung(axes, place, row)
        _draw_lines(axes, rows)
        axes.set_yticks(range(len(rows)), [row.rung for row in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        highest = max([row.f1 for row in rows] + [row.f1_high for row in rows if row.f1_high is not None])
        axes.set_xlim(0, min(1.12, max(0.1, highest * 1.2)))
        axes.set_xlabel("F1")
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x")
        description = "; ".join(f"{row.rung} {row.f1:.3f}" for row in rows)
        return to_svg(figure, name, f"F1 per rung, scope {rows[0].scope}", description)


def positions_chart(rows: Sequence[Row], name: str) -> str:
    """F1 with its 95 % interval against reader positions, one mark per rung, numbered in the order of the ladder.

    Args:
        rows: the rungs of one reader in one scope.
        name: unique on the page; the element ids start with it.
    """
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(3.4)
        for row in rows:
            color, marker = _look(row)
            x = row.num_positions or 0.0
            if row.f1_low is not None and row.f1_high is not None:
                axes.plot([x, x], [row.f1_low, row.f1_high], color=color, linewidth=1.0, alpha=0.6)
            axes.plot([x], [row.f1], color=color, linestyle="none", marker=marker, markersize=5)
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
        _number(axes, rows)
        axes.set_xlabel("reader positions")
        axes.set_ylabel("F1")
        axes.grid(axis="both")
        description = "; ".join(
            f"{place} {row.rung}: {row.num_positions or 0:.0f} positions, F1 {row.f1:.3f}"
            for place, row in enumerate(rows, start=1)
        )
        return to_svg(figure, name, f"F1 against reader positions, {rows[0].reader}", description)


def lines_chart(
    steps: Sequence[int], curves: Mapping[str, Sequence[float]], name: str, label: str, over: str = "optimiser step"
) -> str:
    """One line per objective over training steps, or over what `over` says; a logarithmic axis where positive values span a factor of 20.

    Long logs are averaged into at most 200 points. Values that are not finite leave a gap.
    """
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(2.9)
        for index, (objective, values) in enumerate(curves.items()):
            x, y = _binned(steps, values)
            marker = "o" if len(x) == 1 else None
            color, dash = SERIES[index % len(SERIES)], DASHES[index % len(DASHES)]
            axes.plot(x, y, label=objective, linewidth=1.6, marker=marker, color=color, linestyle=dash)
        finite = [value for values in curves.values() for value in values if math.isfinite(value)]
        if finite and min(finite) > 0 and max(finite) / min(finite) > 20:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.yaxis.set_minor_formatter(NullFormatter())
        elif finite:
            axes.set_ylim(min(0.0, *finite), max(*finite, 1e-9) * 1.08)
        axes.set_xlabel(over)
        axes.set_ylabel(label)
        axes.grid(axis="y")
        _legend(axes, len(curves))
        ends = "; ".join(f"{objective}: {values[0]:.3g} to {values[-1]:.3g}" for objective, values in curves.items())
        return to_svg(figure, name, f"{label} over {over}s", ends)


def sweep_chart(series: Mapping[str, Sequence[Point]], name: str, key: str, measure: str) -> str:
    """The measure against the swept key with 95 % intervals, one line per combination of the other keys.

    Numeric keys get a numeric axis, logarithmic where they span a factor of 10; others stand in the order given.
    """
    labels = list(dict.fromkeys(point.x for points in series.values() for point in points))
    places = _places(labels)
    step = 0.012 * (max(places.values()) - min(places.values()))
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(3.1)
        for index, (title, points) in enumerate(series.items()):
            _draw_series(axes, index, title, points, {label: place + index * step for label, place in places.items()})
        axes.set_xticks(list(places.values()), labels)
        axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
        axes.set_xlabel(key)
        axes.set_ylabel(measure)
        axes.grid(axis="y")
        if len(series) > 1:
            _legend(axes, len(series))
        description = "; ".join(f"{title} {p.x}: {p.value:.3f}" for title, points in series.items() for p in points)
        return to_svg(figure, name, f"{measure} by {key}", description)


def _draw_rung(axes: Axes, place: int, row: Row) -> None:
    color, marker = _look(row)
    low, high = row.f1_low, row.f1_high
    if low is not None and high is not None:
        axes.plot([low, high], [place, place], color=color, linewidth=1.6, solid_capstyle="butt")
        axes.plot([low, high], [place, place], color=color, linestyle="none", marker="|", markersize=7)
    axes.plot([row.f1], [place], color=color, linestyle="none", marker=marker, markersize=6)
    right = max(row.f1, high) if high is not None else row.f1
    axes.annotate(f"{row.f1:.2f}", (right, place), xytext=(6, 0), textcoords="offset points", va="center", color=color)


def _look(row: Row) -> tuple[str, str]:
    """Colour and marker of a rung."""
    if row.trained:
        return SERIES[1], "D"
    return (SERIES[0], "o") if row.decodes_latent else (INK, "s")


def _draw_lines(axes: Axes, rows: Sequence[Row]) -> None:
    marks = [
        (row, label, dash)
        for row in rows
        for rung, label, dash in ((FLOOR, "floor", ":"), (RAW, "raw", "--"))
        if row.rung == rung
    ]
    marks.sort(key=lambda mark: mark[0].f1)
    close = len(marks) == 2 and marks[1][0].f1 - marks[0][0].f1 < 0.1
    sides = [("right", -3), ("left", 3)] if close else [("center", 0)] * len(marks)
    for (row, label, dash), (side, right) in zip(marks, sides, strict=True):
        axes.axvline(row.f1, color=INK, linewidth=0.9, linestyle=dash, zorder=0)
        top = ("data", "axes fraction")
        axes.annotate(label, (row.f1, 1), (right, 2), xycoords=top, textcoords="offset points", ha=side, va="bottom")


def _number(axes: Axes, rows: Sequence[Row]) -> None:
    """The rungs' numbers beside their marks; apart where marks stand together, and where many do, right and left in turn."""
    (_, right), (_, top) = axes.get_xlim(), axes.get_ylim()
    away, apart = 0.055 * right, 0.05 * top
    numbered = [(row.num_positions or 0.0, row.f1, place, row) for place, row in enumerate(rows, start=1)]
    together: list[list[tuple[float, float, int, Row]]] = []
    for mark in sorted(numbered, key=lambda mark: mark[:3]):
        if not together or mark[0] - together[-1][-1][0] > away:
            together.append([])
        together[-1].append(mark)
    for marks in together:
        sides = [marks[-1][0] + away, marks[0][0] - away]
        lowest = [0.0, 0.0]
        alone = len(marks) == 1 and sides[1] > away / 2  # its number on the left: others' stand on the right
        for turn, (x, f1, place, row) in enumerate(sorted(marks, key=lambda mark: mark[1])):
            side, (color, _) = turn % 2 if len(marks) > BESIDE else int(alone), _look(row)
            height = max(f1, lowest[side])
            lowest[side] = height + apart
            line = {"arrowstyle": "-", "color": color, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 3}
            axes.annotate(
                str(place), (x, f1), (sides[side], height), color=color, va="center", ha="center", arrowprops=line
            )


def _draw_series(axes: Axes, index: int, title: str, points: Sequence[Point], places: Mapping[str, float]) -> None:
    ordered = sorted(points, key=lambda point: places[point.x])
    x = [places[point.x] for point in ordered]
    color, dash = SERIES[index % len(SERIES)], DASHES[index % len(DASHES)]
    marker = MARKERS[index % len(MARKERS)]
    values = [point.value for point in ordered]
    axes.plot(x, values, marker, label=title, color=color, linestyle=dash, linewidth=1.6, markersize=5)
    for place, point in zip(x, ordered, strict=True):
        if point.low is not None and point.high is not None:
            ends = [point.low, point.high]
            axes.plot([place, place], ends, color=color, linewidth=1.2, marker="_", markersize=6)


def _legend(axes: Axes, num_entries: int) -> None:
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=min(2, num_entries), borderaxespad=0.2, handlelength=2.6)


def _binned(steps: Sequence[int], values: Sequence[float]) -> tuple[list[float], list[float]]:
    size = max(1, math.ceil(len(steps) / MAX_POINTS))
    starts = range(0, len(steps), size)
    return (
        [float(np.mean(steps[start : start + size])) for start in starts],
        [_finite_mean(values[start : start + size]) for start in starts],
    )


def _finite_mean(values: Sequence[float]) -> float:
    finite = [value for value in values if math.isfinite(value)]
    return float(np.mean(finite)) if finite else math.nan


def _places(labels: Sequence[str]) -> dict[str, float]:
    """Where each label stands on the axis: its number, the logarithm over a factor of 10, else its rank."""
    try:
        numbers = [float(label) for label in labels]
    except ValueError:
        numbers = []
    if not numbers or not all(math.isfinite(number) for number in numbers):
        numbers = [float(index) for index in range(len(labels))]
    elif min(numbers) > 0 and max(numbers) / min(numbers) >= 10:
        numbers = [math.log10(number) for number in numbers]
    return dict(zip(labels, numbers, strict=True))
