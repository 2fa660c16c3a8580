"""What the command line prints: tables and lines for people, JSON for machines."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from latentwire.config import Recipe, dump
from latentwire.report.folder import read_run
from latentwire.report.rows import Row
from latentwire.report.tables import milliseconds

if TYPE_CHECKING:
    from latentwire.wired import Asked

out = Console()
err = Console(stderr=True)
BETWEEN = 2  # columns of a terminal that stand between two of a table


def show_plan(recipe: Recipe, as_json: bool) -> None:
    """The plan of a run that was not started."""
    from latentwire.dryrun import plan

    facts = plan(recipe)
    if as_json:
        out.print_json(json.dumps({"recipe": recipe.model_dump(mode="json"), **facts}))
        return
    out.print(dump(recipe), highlight=False)
    table("plan (nothing was trained)", [{"what": key, "planned": str(value)} for key, value in facts.items()])


def show_result(folder: Path, rows: Sequence[Row], as_json: bool) -> None:
    """The ladder of each reader, the verdict, and where the report is."""
    if as_json:
        out.print_json(json.dumps({"folder": str(folder), "rows": [row.to_dict() for row in rows]}))
        return
    for reader in dict.fromkeys(row.reader for row in rows):
        own = [row for row in rows if row.reader == reader]
        table(f"{own[0].dataset}, {reader}, n = {own[0].n}", _ladder(own))
    if not any(row.decodes_latent or row.trained for row in rows):
        return  # text alone: there is nothing to judge
    from latentwire.report.report import run_verdict

    out.print(run_verdict(read_run(folder)).sentence, style="bold", highlight=False, soft_wrap=True)
    page = folder / "report.html"
    words = f"report: {page}" if page.exists() else f"next: latentwire report {folder}"
    out.print(words, highlight=False, soft_wrap=True)


def show_asked(question: str, answers: "Sequence[Asked]", as_json: bool) -> None:
    """The answers to one question side by side."""
    if as_json:
        out.print_json(json.dumps([asdict(one) for one in answers]))
        return
    columns = [
        {
            "context": one.context,
            "answer": one.answer,
            "positions": f"{one.positions:,}",
            "encode ms": milliseconds(one.encode_seconds),
            "answer ms": milliseconds(one.answer_seconds),
        }
        for one in answers
    ]
    table(question, columns)


def _ladder(rows: Sequence[Row]) -> list[dict[str, str]]:
    several = len({row.scope for row in rows}) > 1
    tuned = any(row.share_of_gap is not None for row in rows)
    return [
        {
            "rung": f"{row.scope}: {row.rung}" if several else row.rung,
            "F1": f"{row.f1:.3f}",
            "95 %": f"{row.f1_low:.2f}–{row.f1_high:.2f}",
            **({"of gap": _number(row.share_of_gap)} if tuned else {"ratio": _number(row.ratio)}),
            "same": _number(row.agreement),
            "bytes": f"{row.bytes_on_wire:,.0f}",
            "pos.": f"{row.num_positions:,.0f}",
        }
        for row in rows
    ]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def table(title: str, records: Sequence[dict[str, Any]]) -> None:
    """Records as a table."""
    widths = [max(len(name), *(len(str(record[name])) for record in records)) for name in records[0]]
    narrow = sum(widths) + BETWEEN * len(widths) <= out.width
    shown = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for name in records[0]:
        shown.add_column(name, overflow="fold", no_wrap=narrow)
    for record in records:
        shown.add_row(*("" if value is None else str(value) for value in record.values()))
    out.print(shown)


def say(values: Any, words: str, as_json: bool) -> None:
    """Words for people, values for machines."""
    if as_json:
        out.print_json(json.dumps(values))
    else:
        out.print(words, highlight=False, soft_wrap=True)
