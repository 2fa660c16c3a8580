"""What the commands that train, evaluate and report do, once their arguments are known to be right: the command line imports this last.

recipe, run folder ─ train ─▶ weights ─ evaluate ─▶ rows ─ report ─▶ page, with progress bars, and a Ctrl-C that leaves what resumes
"""

import contextlib
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import typer

from latentwire import climb, pipeline
from latentwire.bars import Bars
from latentwire.config import Recipe, combinations, load_recipe
from latentwire.earlier import LADDER, FinishedRungs, finished_rungs, starting_weights
from latentwire.errors import RecipeError
from latentwire.options import CACHE_GIB
from latentwire.printing import err
from latentwire.report.rows import Row
from latentwire.report.sweep import SweepPoint, write_sweep_report
from latentwire.runs import Run
from latentwire.team import team
from latentwire.train import Trained


def run(
    recipe: Recipe, folder: Path, force: bool, resume: bool, baselines: Path | None, cache_limit: float
) -> list[Row]:
    """Train, evaluate the whole ladder, write the report."""
    pipeline.refuse_shards()
    lent = finished_rungs(baselines)  # before --force empties a folder that may be the same
    with Run(folder, team().writes) as opened:
        stage, _ = _train(recipe, opened, force, resume, cache_limit)
        _others_end_here()
        rows = _evaluate(stage, opened, lent, resume)
    pipeline.report(folder)
    return rows


def train(recipe: Recipe, folder: Path, force: bool, resume: bool, cache_limit: float) -> Trained:
    """Train alone."""
    with Run(folder, team().writes) as opened:
        trained = _train(recipe, opened, force, resume, cache_limit)[1]
    _others_end_here()
    return trained


def evaluate(recipe: Recipe, folder: Path, force: bool, baselines: Path | None) -> list[Row]:
    """Evaluate what was trained."""
    with Run(folder) as opened:
        if opened.has("rows.jsonl") and not force:
            raise RecipeError(f"{opened.folder} holds rows already; add --force to measure again")
        return _evaluate(_prepare(recipe), opened, finished_rungs(baselines))


def sweep(
    recipe: Path, grid: Sequence[str], folder: Path, force: bool, resume: bool, cache_limit: float
) -> tuple[Path, list[Path]]:
    """Run every point of a grid, each in a folder of its own; the report's page and those folders."""
    if team().size > 1:
        raise RecipeError("expected a sweep in one process, got several; sweep without accelerate launch")
    base = load_recipe(recipe)
    points: list[SweepPoint] = []
    for overrides in combinations(grid):
        name = f"{base.name}-sweep/" + "_".join(one.replace("=", "-").replace("/", "-") for one in overrides)
        loaded = load_recipe(recipe, [*overrides, f"name={name}"])
        err.print(f"[bold]{' '.join(overrides)}[/bold]")
        lenders = [point.folder for point in points if (point.folder / LADDER).exists()]
        run(loaded, folder / name, force, resume, lenders[-1] if lenders else None, cache_limit)
        points.append(SweepPoint(dict(one.split("=", 1) for one in overrides), folder / name))
    page = write_sweep_report(folder / f"{base.name}-sweep", points)
    return page, [point.folder for point in points]


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
