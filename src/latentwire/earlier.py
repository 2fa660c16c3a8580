"""What a run takes over from an earlier one: rungs that it measured (`--baselines`), weights to start from (`train.start_from`)."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from latentwire.config import Recipe
from latentwire.errors import RunError
from latentwire.evaluate import RungResult
from latentwire.methods import METHODS
from latentwire.reader import Scope
from latentwire.rungs import Rung
from latentwire.runs import FORMAT, Run
from latentwire.specs import build
from latentwire.team import team
from latentwire.wire_folder import CONFIG, read_wire

log = logging.getLogger("latentwire")
LADDER = "ladder.jsonl"
SHAPE = ("compressions", "task_tokens", "hidden", "pooling")  # fields of a wire that its weights depend on
FinishedRungs = Sequence[dict[str, Any]]


def starting_weights(recipe: Recipe, own: Path) -> dict[str, Tensor] | None:
    """The weights of the run that `train.start_from` names, None where it names none. `own` is the folder to be trained into.

    Raises:
        RunError: There is no such run, it is not finished, or it has another method, reader or version.
    """
    if recipe.train.start_from is None:
        return None
    folder = Path(recipe.train.start_from)
    if folder.resolve() == own.resolve():
        raise RunError(
            f"train.start_from: expected another run than {own}, which is to be trained; choose another name"
        )
    if (folder / CONFIG).exists():
        return _wires_weights(recipe, folder)
    if not (folder / "recipe.yaml").exists():
        raise RunError(
            f"train.start_from: expected the folder of a finished run or of a wire, found neither in {folder}"
        )
    with Run(folder, team().writes) as other:
        found = other.recipe()
        if build(METHODS, found.method) != build(METHODS, recipe.method) or _names(found) != _names(recipe):
            raise RunError(
                f"train.start_from: expected a run of {recipe.method} for {_names(recipe)}, got one of {found.method}"
                f" for {_names(found)} in {folder}; name another run or use its method and readers"
            )
        if not str(other.facts().get("training_identity")).startswith(f"{FORMAT}-"):
            raise RunError(
                f"train.start_from: expected a run of this version, got an earlier one's in {folder}; train it anew"
            )
        return other.load_weights()


def _wires_weights(recipe: Recipe, folder: Path) -> dict[str, Tensor]:
    """A published wire's weights: of the same method, whatever it was called with, and the same readers."""
    files = read_wire(folder)
    asked = {name: value for name, value in asdict(build(METHODS, recipe.method)).items() if name in SHAPE}  # type: ignore[call-overload]
    held = {name: files.fields()[name] for name in asked}
    readers = {reader.name for reader in files.readers.values()}
    wanted = {Path(spec.name).name for spec in recipe.readers}
    if asked != held or readers != wanted:
        raise RunError(
            f"train.start_from: expected a wire with {asked} for {', '.join(sorted(wanted))}, got one with {held} for"
            f" {', '.join(sorted(readers))} in {folder}; name another or use its method and readers"
        )
    return dict(files.tensors)


def _names(recipe: Recipe) -> str:
    return ", ".join(reader.name for reader in recipe.readers)


def finished_rungs(folder: Path | None) -> FinishedRungs:
    """What a run's evaluation measured, rung by rung; none without a folder.

    Raises:
        RunError: The folder holds no evaluated run.
    """
    if folder is None:
        return []
    path = folder / LADDER
    if not path.exists():
        raise RunError(f"--baselines: expected a run with finished rungs, found no {path}; evaluate that run first")
    return [{"run": folder.name, **json.loads(line)} for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


def measured(line: Mapping[str, Any]) -> RungResult:
    """The result of a finished rung; one that another run measured says which."""
    result = line["result"]
    notes = [result["note"], f"measured in run {line['run']}" if "run" in line else ""]
    return RungResult.from_dict({**result, "note": "; ".join(filter(None, notes))})


def borrowed(lent: FinishedRungs, asked: str, scopes: Sequence[Scope], rungs: Sequence[Rung]) -> list[dict[str, Any]]:
    """Those of another run's finished rungs that asked the same and do not depend on what was trained or fitted."""
    same = [line for line in lent if line["asked"] == asked]
    if lent and not same:
        log.warning(
            "--baselines: that run put other questions, to another reader or with another commit; measuring anew"
        )
    free = [rung for rung in rungs if not rung.trained and "decoder" not in rung.spec]
    wanted = {(rung.name, scope): rung.spec for rung in free for scope in scopes}
    return [line for line in same if wanted.get((line["result"]["rung"], line["result"]["scope"])) == line["spec"]]
