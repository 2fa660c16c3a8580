"""The command line: `latentwire run RECIPE [key=value ...]` and what it is made of.

A user's error is one line and exit code 2 (`--debug` shows the traceback); Ctrl-C exits 130 and leaves a run that
resumes.
"""

import contextlib
import json
import logging
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.logging import RichHandler

from latentwire import climb, pipeline
from latentwire.bars import Bars
from latentwire.cli_serve import serve
from latentwire.cli_wire import answer, ask_question, codebooks, encode, inspect
from latentwire.config import Recipe, combinations, load_recipe
from latentwire.doctor import examine
from latentwire.earlier import LADDER, FinishedRungs, finished_rungs, starting_weights
from latentwire.errors import LatentWireError, RecipeError
from latentwire.options import (
    Baselines,
    CacheLimit,
    DryRun,
    Folder,
    Force,
    Json,
    Overrides,
    RecipeFile,
    Resume,
    WireFolder,
)
from latentwire.printing import err, out, say, show_plan, show_result, table
from latentwire.reader.load import list_models
from latentwire.report.folder import read_rows
from latentwire.report.rows import Row
from latentwire.report.sweep import SweepPoint, write_sweep_report
from latentwire.runs import Run
from latentwire.team import team
from latentwire.train import Trained
from latentwire.wired import attach_recipe, take_reader

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)

app.command("ask")(ask_question)
for command in (encode, codebooks, inspect, answer, serve):
    app.command()(command)

OUT = Path("out")
CACHE_GIB = pipeline.CACHE_BYTES / 2**30
INTERRUPTED = 130


@app.command()
def run(
    recipe: RecipeFile,
    overrides: Overrides = None,
    folder: Folder = OUT,
    force: Force = False,
    resume: Resume = False,
    baselines: Baselines = None,
    cache_limit: CacheLimit = CACHE_GIB,
    as_json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Train, evaluate the whole ladder and write the report."""
    loaded = load_recipe(recipe, overrides or [])
    if dry_run:
        show_plan(loaded, as_json)
        return
    rows = _run(loaded, folder / loaded.name, force, resume, baselines, cache_limit)
    show_result(folder / loaded.name, rows, as_json)


@app.command()
def train(
    recipe: RecipeFile,
    overrides: Overrides = None,
    folder: Folder = OUT,
    force: Force = False,
    resume: Resume = False,
    cache_limit: CacheLimit = CACHE_GIB,
    as_json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Train the recipe's method."""
    loaded = load_recipe(recipe, overrides or [])
    if dry_run:
        show_plan(loaded, as_json)
        return
    with Run(folder / loaded.name, team().writes) as opened:
        trained = _train(loaded, opened, force, resume, cache_limit)[1]
    _others_end_here()
    say(asdict(trained), f"trained: {folder / loaded.name}", as_json)


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
    show_result(folder / loaded.name, rows, as_json)


@app.command()
def report(
    run_folder: Annotated[Path, typer.Argument(help="A run folder such as out/demo.")], as_json: Json = False
) -> None:
    """Write the report page of a run from its rows."""
    page = pipeline.report(run_folder)
    say({"report": str(page)}, f"report: {page}", as_json)


@app.command()
def sweep(
    recipe: RecipeFile,
    grid: Annotated[list[str], typer.Argument(help="Lists such as train.lr=1e-3,3e-4.", show_default=False)],
    folder: Folder = OUT,
    force: Force = False,
    resume: Resume = False,
    cache_limit: CacheLimit = CACHE_GIB,
    as_json: Json = False,
) -> None:
    """Run a grid of overrides and report it as one table and plot."""
    if team().size > 1:
        raise RecipeError("expected a sweep in one process, got several; sweep without accelerate launch")
    base = load_recipe(recipe)
    points: list[SweepPoint] = []
    for overrides in combinations(grid):
        name = f"{base.name}-sweep/" + "_".join(one.replace("=", "-").replace("/", "-") for one in overrides)
        loaded = load_recipe(recipe, [*overrides, f"name={name}"])
        err.print(f"[bold]{' '.join(overrides)}[/bold]")
        lenders = [point.folder for point in points if (point.folder / LADDER).exists()]
        _run(loaded, folder / name, force, resume, lenders[-1] if lenders else None, cache_limit)
        points.append(SweepPoint(dict(one.split("=", 1) for one in overrides), folder / name))
    page = write_sweep_report(folder / f"{base.name}-sweep", points)
    say(
        [[row.to_dict() for row in read_rows(point.folder / "rows.jsonl")] for point in points],
        f"report: {page}",
        as_json,
    )


@app.command()
def attach(
    wire: WireFolder,
    reader: Annotated[str, typer.Option(help="The reader that joins: a name, hub id, folder or .gguf.")],
    overrides: Overrides = None,
    folder: Folder = OUT,
    force: Force = False,
    resume: Resume = False,
    cache_limit: CacheLimit = CACHE_GIB,
    as_json: Json = False,
) -> None:
    """Train an adapter for one more reader; encoder, latents and other adapters stay as they are."""
    loaded = attach_recipe(wire, reader, overrides or [])
    rows = _run(loaded, folder / loaded.name, force, resume, None, cache_limit)
    take_reader(wire, folder / loaded.name)
    show_result(folder / loaded.name, rows, as_json)


@app.command()
def models(as_json: Json = False) -> None:
    """List the readers that have a name, and say which are installed."""
    found = [asdict(model) for model in list_models()]
    if as_json:
        out.print_json(json.dumps(found))
    else:
        table("readers (any hub id, folder or .gguf works too)", found)


@app.command()
def doctor(as_json: Json = False) -> None:
    """Say what this machine can do."""
    facts = examine()
    if as_json:
        out.print_json(json.dumps(facts))
    else:
        table("this machine", [{"what": key, "found": str(value)} for key, value in facts.items()])


def _run(
    recipe: Recipe, folder: Path, force: bool, resume: bool, baselines: Path | None, cache_limit: float
) -> list[Row]:
    pipeline.refuse_shards()
    lent = finished_rungs(baselines)  # before --force empties a folder that may be the same
    with Run(folder, team().writes) as opened:
        stage, _ = _train(recipe, opened, force, resume, cache_limit)
        _others_end_here()
        rows = _evaluate(stage, opened, lent, resume)
    pipeline.report(folder)
    return rows


def _train(
    recipe: Recipe, opened: Run, force: bool, resume: bool, cache_limit: float
) -> tuple[pipeline.Stage, Trained]:
    if force and resume:
        raise RecipeError("expected --force or --resume, got both; --force would remove what --resume goes on from")
    weights = starting_weights(recipe, opened.folder)
    if not force:
        pipeline.refuse_begun(opened, resume)
    stage = _prepare(recipe, cache_limit)
    if force:
        opened.clear()  # not before all that the recipe names was found
    with (bars := Bars(err)).bars, _interruption() as interrupted:
        trained = pipeline.train(stage, opened, bars, resume, interrupted, weights)
        pipeline.train_tuned(stage, opened, bars, interrupted)
    return stage, trained


def _prepare(recipe: Recipe, cache_limit: float = CACHE_GIB) -> pipeline.Stage:
    with (bars := Bars(err, transient=True)).bars:
        return pipeline.prepare(recipe, bars, int(cache_limit * 2**30))


def _evaluate(stage: pipeline.Stage, opened: Run, lent: FinishedRungs, resume: bool = False) -> list[Row]:
    with (bars := Bars(err)).bars:
        return climb.evaluate(stage, opened, bars, lent, resume)


def _others_end_here() -> None:
    """Of several processes that trained together one goes on: it evaluates and reports."""
    if not team().writes:
        raise typer.Exit


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


def main() -> None:
    """Entry point: turns a user's errors into one line and exit code 2."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    err.quiet = not team().writes
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
