"""The command line: `latentwire run RECIPE [key=value ...]` and what it is made of.

A user's error is one line and exit code 2 (`--debug` shows the traceback); Ctrl-C exits 130 and leaves a run that
resumes.
"""

import contextlib
import json
import logging
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.logging import RichHandler
from rich.table import Table

from latentwire import climb, pipeline
from latentwire.bars import Bars
from latentwire.config import Recipe, combinations, dump, load_recipe
from latentwire.doctor import examine
from latentwire.dryrun import plan
from latentwire.earlier import LADDER, FinishedRungs, finished_rungs, starting_weights
from latentwire.errors import LatentWireError, RecipeError
from latentwire.reader.load import list_models
from latentwire.report.folder import read_rows, read_run
from latentwire.report.report import run_verdict
from latentwire.report.rows import Row
from latentwire.report.sweep import SweepPoint, write_sweep_report
from latentwire.runs import Run
from latentwire.train import Trained

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)
out = Console()
err = Console(stderr=True)

RecipeFile = Annotated[Path, typer.Argument(help="A YAML recipe.", show_default=False)]
Overrides = Annotated[list[str] | None, typer.Argument(help="Overrides such as train.lr=1e-4.", show_default=False)]
Folder = Annotated[Path, typer.Option("--out", help="Where run folders live.")]
Force = Annotated[bool, typer.Option("--force", help="Replace this run's own earlier output.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on where an interrupted run stopped.")]
Baselines = Annotated[Path | None, typer.Option(help="A finished run to take text rungs of the same questions from.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan: recipe, parameters, memory, steps.")]
OUT = Path("out")
NARROW = 72
INTERRUPTED = 130


@app.command()
def run(
    recipe: RecipeFile,
    overrides: Overrides = None,
    folder: Folder = OUT,
    force: Force = False,
    resume: Resume = False,
    baselines: Baselines = None,
    as_json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Train, evaluate the whole ladder and write the report."""
    loaded = load_recipe(recipe, overrides or [])
    if dry_run:
        _show_plan(loaded, as_json)
        return
    rows = _run(loaded, folder / loaded.name, force, resume, baselines)
    _show_result(folder / loaded.name, rows, as_json)


@app.command()
def train(
    recipe: RecipeFile,
    overrides: Overrides = None,
    folder: Folder = OUT,
    force: Force = False,
    resume: Resume = False,
    as_json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Train the recipe's method."""
    loaded = load_recipe(recipe, overrides or [])
    if dry_run:
        _show_plan(loaded, as_json)
        return
    with Run(folder / loaded.name) as opened:
        trained = _train(loaded, opened, force, resume)[1]
    _print(asdict(trained), f"trained: {folder / loaded.name}", as_json)


@app.command("eval")
def evaluate(
    recipe: RecipeFile,
    overrides: Overrides = None,
    folder: Folder = OUT,
    force: Force = False,
    baselines: Baselines = None,
    as_json: Json = False,
) -> None:
    """Evaluate the ladder around a trained run."""
    loaded = load_recipe(recipe, overrides or [])
    with Run(folder / loaded.name) as opened:
        if opened.has("rows.jsonl") and not force:
            raise RecipeError(f"{opened.folder} holds rows already; add --force to measure again")
        rows = _evaluate(_prepare(loaded), opened, finished_rungs(baselines))
    _show_result(folder / loaded.name, rows, as_json)


@app.command()
def report(
    run_folder: Annotated[Path, typer.Argument(help="A run folder such as out/demo.")], as_json: Json = False
) -> None:
    """Write the report page of a run from its rows."""
    page = pipeline.report(run_folder)
    _print({"report": str(page)}, f"report: {page}", as_json)


@app.command()
def sweep(
    recipe: RecipeFile,
    grid: Annotated[list[str], typer.Argument(help="Lists such as train.lr=1e-3,3e-4.", show_default=False)],
    folder: Folder = OUT,
    force: Force = False,
    resume: Resume = False,
    as_json: Json = False,
) -> None:
    """Run a grid of overrides and report it as one table and plot."""
    base = load_recipe(recipe)
    points: list[SweepPoint] = []
    for overrides in combinations(grid):
        name = f"{base.name}-sweep/" + "_".join(one.replace("=", "-").replace("/", "-") for one in overrides)
        loaded = load_recipe(recipe, [*overrides, f"name={name}"])
        err.print(f"[bold]{' '.join(overrides)}[/bold]")
        lenders = [point.folder for point in points if (point.folder / LADDER).exists()]
        _run(loaded, folder / name, force, resume, lenders[-1] if lenders else None)
        points.append(SweepPoint(dict(one.split("=", 1) for one in overrides), folder / name))
    page = write_sweep_report(folder / f"{base.name}-sweep", points)
    _print(
        [[row.to_dict() for row in read_rows(point.folder / "rows.jsonl")] for point in points],
        f"report: {page}",
        as_json,
    )


@app.command()
def models(as_json: Json = False) -> None:
    """List the readers that have a name, and say which are installed."""
    found = [asdict(model) for model in list_models()]
    if as_json:
        out.print_json(json.dumps(found))
    else:
        _table("readers (any hub id, folder or .gguf works too)", found)


@app.command()
def doctor(as_json: Json = False) -> None:
    """Say what this machine can do."""
    facts = examine()
    if as_json:
        out.print_json(json.dumps(facts))
    else:
        _table("this machine", [{"what": key, "found": str(value)} for key, value in facts.items()])


def _run(recipe: Recipe, folder: Path, force: bool, resume: bool, baselines: Path | None) -> list[Row]:
    lent = finished_rungs(baselines)  # before --force empties a folder that may be the same
    with Run(folder) as opened:
        stage, _ = _train(recipe, opened, force, resume)
        rows = _evaluate(stage, opened, lent, resume)
    pipeline.report(folder)
    return rows


def _train(recipe: Recipe, opened: Run, force: bool, resume: bool) -> tuple[pipeline.Stage, Trained]:
    if force and resume:
        raise RecipeError("expected --force or --resume, got both; --force would remove what --resume goes on from")
    weights = starting_weights(recipe, opened.folder)
    if not force:
        pipeline.refuse_begun(opened, resume)
    stage = _prepare(recipe)
    if force:
        opened.clear()  # not before all that the recipe names was found
    with (bars := Bars(err)).bars, _interruption() as interrupted:
        return stage, pipeline.train(stage, opened, bars, resume, interrupted, weights)


def _prepare(recipe: Recipe) -> pipeline.Stage:
    with (bars := Bars(err, transient=True)).bars:
        return pipeline.prepare(recipe, bars)


def _evaluate(stage: pipeline.Stage, opened: Run, lent: FinishedRungs, resume: bool = False) -> list[Row]:
    with (bars := Bars(err)).bars:
        return climb.evaluate(stage, opened, bars, lent, resume)


@contextlib.contextmanager
def _interruption() -> Iterator[Callable[[], bool]]:
    """Inside, the first Ctrl-C lets the step in hand finish; a second one stops at once."""
    pressed: list[int] = []

    def note(number: int, frame: object) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        pressed.append(number)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield lambda: bool(pressed)
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed:
        raise KeyboardInterrupt


def _show_plan(recipe: Recipe, as_json: bool) -> None:
    facts = plan(recipe)
    if as_json:
        out.print_json(json.dumps({"recipe": recipe.model_dump(mode="json"), **facts}))
        return
    out.print(dump(recipe), highlight=False)
    _table("plan (nothing was trained)", [{"what": key, "planned": str(value)} for key, value in facts.items()])


def _show_result(folder: Path, rows: Sequence[Row], as_json: bool) -> None:
    if as_json:
        out.print_json(json.dumps({"folder": str(folder), "rows": [row.to_dict() for row in rows]}))
        return
    several = len({row.scope for row in rows}) > 1
    columns = [
        {
            "rung": f"{row.scope}: {row.rung}" if several else row.rung,
            "F1": f"{row.f1:.3f}",
            "95 %": f"{row.f1_low:.2f}–{row.f1_high:.2f}",
            "ratio": "" if row.ratio is None else f"{row.ratio:.3f}",
            "same": "" if row.agreement is None else f"{row.agreement:.3f}",
            "bytes": f"{row.bytes_on_wire:,.0f}",
            "pos.": f"{row.num_positions:,.0f}",
        }
        for row in rows
    ]
    _table(f"{rows[0].dataset}, {rows[0].reader}, n = {rows[0].n}", columns)
    if not any(row.decodes_latent or row.trained for row in rows):
        return  # text alone: there is nothing to judge
    out.print(run_verdict(read_run(folder)).sentence, style="bold", highlight=False, soft_wrap=True)
    page = folder / "report.html"
    words = f"report: {page}" if page.exists() else f"next: latentwire report {folder}"
    out.print(words, highlight=False, soft_wrap=True)


def _table(title: str, records: Sequence[dict[str, Any]]) -> None:
    narrow = sum(max(len(str(record[name])) for record in records) for name in records[0]) <= NARROW
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for name in records[0]:
        table.add_column(name, overflow="fold", no_wrap=narrow)
    for record in records:
        table.add_row(*("" if value is None else str(value) for value in record.values()))
    out.print(table)


def _print(values: Any, words: str, as_json: bool) -> None:
    if as_json:
        out.print_json(json.dumps(values))
    else:
        out.print(words, highlight=False, soft_wrap=True)


def main() -> None:
    """Entry point: turns a user's errors into one line and exit code 2."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    handler = RichHandler(console=err, show_time=False, show_path=False, markup=False)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[handler])
    logging.getLogger("latentwire").setLevel(logging.INFO)
    # The hub tries again and again; the error at the end says what could not be reached.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    try:
        code = app(arguments, standalone_mode=False)
        if code == INTERRUPTED:
            raise KeyboardInterrupt
        sys.exit(code or 0)
    except (KeyboardInterrupt, typer.Abort):
        how = "again" if arguments[:1] == ["eval"] else "again with --resume (and without --force)"
        err.print(f"interrupted: run it {how} to go on", soft_wrap=True)
        sys.exit(INTERRUPTED)
    except LatentWireError as error:
        if debug:
            raise
        err.print(f"error: {error}", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)
    except typer.TyperException as error:
        err.print(f"error: {error.format_message()}", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)
