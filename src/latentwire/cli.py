"""The command line: `latentwire run RECIPE [key=value ...]` and what it is made of.

A user's error is one line and exit code 2 (`--debug` shows the traceback); Ctrl-C exits 130 and leaves a run that
resumes. What needs torch is imported by the command that needs it: help and mistakes are told at once.
"""

import json
import logging
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.logging import RichHandler

from latentwire.cli_serve import serve
from latentwire.cli_wire import answer, ask_question, codebooks, encode, inspect
from latentwire.config import load_recipe
from latentwire.errors import LatentWireError
from latentwire.options import (
    CACHE_GIB,
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
from latentwire.report.folder import read_rows

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)

app.command("ask")(ask_question)
for command in (encode, codebooks, inspect, answer, serve):
    app.command()(command)

OUT = Path("out")
INTERRUPTED = 130
LAUNCHED = {"RANK", "LOCAL_RANK", "WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE"}


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
    from latentwire import launch

    rows = launch.run(loaded, folder / loaded.name, force, resume, baselines, cache_limit)
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
    from latentwire import launch

    trained = launch.train(loaded, folder / loaded.name, force, resume, cache_limit)
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
    from latentwire import launch

    show_result(folder / loaded.name, launch.evaluate(loaded, folder / loaded.name, force, baselines), as_json)


@app.command()
def report(
    run_folder: Annotated[Path, typer.Argument(help="A run folder such as out/demo.")], as_json: Json = False
) -> None:
    """Write the report page of a run from its rows."""
    from latentwire import pipeline

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
    from latentwire import launch

    page, points = launch.sweep(recipe, grid, folder, force, resume, cache_limit)
    rows = [[row.to_dict() for row in read_rows(point / "rows.jsonl")] for point in points]
    say(rows, f"report: {page}", as_json)


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
    from latentwire import launch
    from latentwire.wired import attach_recipe, take_reader

    loaded = attach_recipe(wire, reader, overrides or [])
    rows = launch.run(loaded, folder / loaded.name, force, resume, None, cache_limit)
    take_reader(wire, folder / loaded.name)
    show_result(folder / loaded.name, rows, as_json)


@app.command()
def models(as_json: Json = False) -> None:
    """List the readers that have a name, and say which are installed."""
    from latentwire.reader.load import list_models

    found = [asdict(model) for model in list_models()]
    if as_json:
        out.print_json(json.dumps(found))
    else:
        table("readers (any hub id, folder or .gguf works too)", found)


@app.command()
def doctor(as_json: Json = False) -> None:
    """Say what this machine can do."""
    from latentwire.doctor import examine

    facts = examine()
    if as_json:
        out.print_json(json.dumps(facts))
    else:
        table("this machine", [{"what": key, "found": str(value)} for key, value in facts.items()])


def _writes() -> bool:
    """Whether this process, of several that `accelerate launch` started together, speaks; one alone does."""
    if not LAUNCHED & os.environ.keys():
        return True
    from latentwire.team import team

    return team().writes


def main() -> None:
    """Entry point: turns a user's errors into one line and exit code 2."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    err.quiet = not _writes()
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
