"""A run folder's result files, read and checked: what is missing or cut short is named, with what to do."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import yaml

from latentwire.errors import RunError
from latentwire.report.rows import Row

T = TypeVar("T")

AGAIN_EVAL = "Run 'latentwire eval' on this run again."
AGAIN_TRAIN = "Run 'latentwire train' on this run again (--resume goes on from the last checkpoint)."


TEXTS = ("reader", "rung", "scope", "id", "question", "answer")


@dataclass(frozen=True)
class LogRecord:
    """One line of ``log.jsonl``: losses and gradient shares by objective, at one optimiser step."""

    step: int
    reader: str
    losses: Mapping[str, float]
    shares: Mapping[str, float]


@dataclass(frozen=True)
class Prediction:
    """One line of ``predictions.jsonl``: what one rung answered to one question. Untrusted text."""

    reader: str
    rung: str
    scope: str
    id: str
    question: str
    gold: tuple[str, ...]
    answer: str
    f1: float


@dataclass(frozen=True)
class CurvePoint:
    """One line of ``curve.jsonl``: what a rung had learnt after so many training examples."""

    reader: str
    rung: str
    examples: int
    answer_nll: float
    share: float | None  # of the gap; none in a run without tuned rungs


@dataclass(frozen=True)
class RunResults:
    """Everything the report knows of a run."""

    name: str
    recipe: Mapping[str, object]
    recipe_text: str
    provenance: Mapping[str, object]
    rows: tuple[Row, ...]
    log: tuple[LogRecord, ...]
    predictions: tuple[Prediction, ...]
    curve: tuple[CurvePoint, ...] = ()


def read_run(folder: Path) -> RunResults:
    """The results in a run folder; ``log`` is empty when nothing was trained.

    Raises:
        RunError: a file is missing, cut short, or holds something else than expected.
    """
    if not folder.is_dir():
        raise RunError(f"No run folder at {folder}. Give the folder that 'latentwire run' wrote, such as out/demo.")
    recipe_text = read_text(folder / "recipe.yaml", AGAIN_TRAIN)
    log_path = folder / "log.jsonl"
    return RunResults(
        name=folder.resolve().name,
        recipe=_recipe(folder / "recipe.yaml", recipe_text),
        recipe_text=recipe_text,
        provenance=_provenance(folder / "provenance.json"),
        rows=read_rows(folder / "rows.jsonl"),
        log=tuple(_log_record(line, where) for where, line in read_lines(log_path, AGAIN_TRAIN))
        if log_path.exists()
        else (),
        predictions=tuple(
            _prediction(line, where) for where, line in read_lines(folder / "predictions.jsonl", AGAIN_EVAL)
        ),
        curve=_curve(folder / "curve.jsonl"),
    )


def read_rows(path: Path) -> tuple[Row, ...]:
    """The rows of one ``rows.jsonl``, in the order of the ladder, at least one.

    Raises:
        RunError: the file is missing, empty or cut short, or one rung stands in it twice.
    """
    rows = tuple(Row.from_dict(line, where) for where, line in read_lines(path, AGAIN_EVAL))
    if not rows:
        raise RunError(f"{path} is empty; expected one row per rung. {AGAIN_EVAL}")
    seen: set[tuple[object, ...]] = set()
    for row in rows:
        key = (row.dataset, row.split, row.reader, row.seed, row.scope, row.rung)
        if key in seen:
            raise RunError(f"{path} holds the rung '{row.rung}' of scope '{row.scope}' twice. {AGAIN_EVAL}")
        seen.add(key)
    return rows


def read_lines(path: Path, what_to_do: str) -> list[tuple[str, dict[str, object]]]:
    """The objects of a JSON-lines file, each with its ``file line n`` for messages.

    Raises:
        RunError: the file is missing, is not UTF-8, or a line is no complete JSON object.
    """
    objects: list[tuple[str, dict[str, object]]] = []
    for number, line in enumerate(read_text(path, what_to_do).split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path} line {number}"
        objects.append((where, _json_object(line, where, what_to_do)))
    return objects


def read_text(path: Path, what_to_do: str) -> str:
    """The UTF-8 text of a file.

    Raises:
        RunError: the file is missing, unreadable or not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RunError(f"{path} is missing. {what_to_do}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"{path} cannot be read as UTF-8 text ({error}). {what_to_do}") from error


def _json_object(text: str, where: str, what_to_do: str) -> dict[str, object]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise RunError(f"{where} is cut short or no JSON ({error.msg}, column {error.colno}). {what_to_do}") from error
    if not isinstance(value, dict):
        raise RunError(f"{where} must hold a JSON object, got {text.strip():.40}. {what_to_do}")
    return value


def _recipe(path: Path, text: str) -> dict[str, object]:
    try:
        recipe = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RunError(f"{path} is no valid YAML ({' '.join(str(error).split())}). {AGAIN_TRAIN}") from error
    if not isinstance(recipe, dict):
        raise RunError(f"{path} must hold a resolved recipe (a mapping), got {text.strip()!r:.40}. {AGAIN_TRAIN}")
    return recipe


def _provenance(path: Path) -> dict[str, object]:
    return _json_object(read_text(path, AGAIN_TRAIN), str(path), AGAIN_TRAIN)


def _log_record(line: Mapping[str, object], where: str) -> LogRecord:
    return LogRecord(
        step=_field(line, "step", int, where, AGAIN_TRAIN),
        reader=_field(line, "reader", str, where, AGAIN_TRAIN),
        losses=_numbers(line, "losses", where),
        shares=_numbers(line, "shares", where),
    )


def _curve(path: Path) -> tuple[CurvePoint, ...]:
    """The points of a learning curve; none where the run has none."""
    found = read_lines(path, AGAIN_EVAL) if path.exists() else []
    return tuple(
        CurvePoint(
            reader=_field(line, "reader", str, where, AGAIN_EVAL),
            rung=_field(line, "rung", str, where, AGAIN_EVAL),
            examples=_field(line, "examples", int, where, AGAIN_EVAL),
            answer_nll=_number(line, "answer_nll", where),
            share=_number(line, "share_of_gap", where) if line.get("share_of_gap") is not None else None,
        )
        for where, line in found
    )


def _number(line: Mapping[str, object], name: str, where: str) -> float:
    return float(_field(line, name, (float, int), where, AGAIN_EVAL))


def _prediction(line: Mapping[str, object], where: str) -> Prediction:
    gold = _field(line, "gold", list, where, AGAIN_EVAL)
    texts = {name: _field(line, name, str, where, AGAIN_EVAL) for name in TEXTS}
    return Prediction(
        **texts, gold=tuple(str(answer) for answer in gold), f1=_field(line, "f1", (float, int), where, AGAIN_EVAL)
    )


def _numbers(line: Mapping[str, object], name: str, where: str) -> dict[str, float]:
    values: dict[object, object] = _field(line, name, dict, where, AGAIN_TRAIN)
    for key, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise RunError(f"{where}: '{name}.{key}' must be a number, got {value!r:.40}. {AGAIN_TRAIN}")
    return {str(key): float(value) for key, value in values.items() if isinstance(value, int | float)}


def _field(
    line: Mapping[str, object], name: str, kind: type[T] | tuple[type[T], ...], where: str, what_to_do: str
) -> T:
    value = line.get(name)
    if not isinstance(value, kind) or isinstance(value, bool):
        wanted = kind.__name__ if isinstance(kind, type) else "number"
        raise RunError(f"{where}: '{name}' must be a {wanted}, got {value!r:.40}. {what_to_do}")
    return value
