"""The verdict: one row and three thresholds to one outcome and one sentence that says it."""

import dataclasses
import math
import typing
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from latentwire.errors import RunError
from latentwire.report.rows import FLOOR_TUNED, TEXT_TUNED, Row

Measure = Literal["ratio", "share_of_gap", "f1", "lead"]
Outcome = Literal["target", "success", "inconclusive", "failure", "reader too weak"]

THRESHOLD_NAMES = ("target", "success", "failure")
"""The names a verdict may list under ``straddles``, highest line first."""
TOLD = 3  # rivals that a sentence names
POSITIONS_MARGIN = 0.1  # rungs of a few positions more or less are of as many


@dataclass(frozen=True)
class Thresholds:
    """The lines a verdict is drawn at: fractions of 1, target and success inclusive, failure exclusive.

    The defaults are Stage 1's: on a text F1 of 82, 70 is the target, 65 a success and less than 50 a failure. A ``lead`` has no
    lines: the target is to be clearly ahead of every rung of no more positions.
    """

    measure: Measure = "ratio"
    target: float = 70 / 82
    success: float = 65 / 82
    failure: float = 50 / 82

    @classmethod
    def from_dict(cls, values: Mapping[str, object], where: str = "thresholds") -> "Thresholds":
        """The thresholds of a resolved recipe's ``verdict`` block; what the block leaves out keeps its default.

        Raises:
            RunError: an unknown key, a value that is no number, or lines out of order.
        """
        names = [field.name for field in dataclasses.fields(cls)]
        for name, value in values.items():
            if name not in names:
                raise RunError(f"{where} has an unknown key '{name}'; expected {', '.join(names)}.")
            if name == "measure" and value not in typing.get_args(Measure):
                raise RunError(f"{where} has measure {value!r}; expected {', '.join(typing.get_args(Measure))}.")
            if name != "measure" and (isinstance(value, bool) or not isinstance(value, int | float)):
                raise RunError(f"{where} has {name} {value!r}; expected a fraction such as 0.85.")
        thresholds = cls(**values)  # type: ignore[arg-type]  # checked key by key above
        if not thresholds.failure <= thresholds.success <= thresholds.target:
            raise RunError(f"{where} must rise from failure over success to target, got {thresholds}.")
        return thresholds


@dataclass(frozen=True)
class Verdict:
    """What the numbers say. ``value``, ``low`` and ``high`` are fractions; ``None`` where nothing was measured."""

    outcome: Outcome
    measure: Measure
    value: float | None
    low: float | None
    high: float | None
    straddles: tuple[str, ...]
    sentence: str


def judge(row: Row, thresholds: Thresholds, rows: Sequence[Row] = ()) -> Verdict:
    """The verdict on one row: target, success, inconclusive, failure, or a reader too weak to tell.

    An interval straddles a line when its two ends fall on different sides of it.

    Args:
        row: what is judged.
        thresholds: the lines.
        rows: its reader's ladder, which a ``lead`` and a ``share_of_gap`` are over.
    """
    if thresholds.measure == "lead":
        return _judge_lead(row, rows)
    value, low, high = (getattr(row, f"{thresholds.measure}{end}") for end in ("", "_low", "_high"))
    if value is None:
        return _judge_none(row, thresholds.measure, {other.rung for other in rows})
    outcome = _outcome(value, thresholds)
    straddles: tuple[str, ...] = ()
    if low is not None and high is not None:
        straddles = tuple(name for name in THRESHOLD_NAMES if low < getattr(thresholds, name) <= high)
    sentence = f"{_measured(row, thresholds.measure, value, low, high)} {_placed(outcome, thresholds)}"
    if straddles:
        sentence += f" {_straddling(straddles)}"
    return Verdict(outcome, thresholds.measure, value, low, high, straddles, sentence)


def headline_row(rows: Sequence[Row]) -> Row:
    """The row the run is judged by: what this run trained, else the ladder's last rung that decodes a latent.

    Scope ``prompt`` (Stage 1) goes before ``context``; of several trained rungs the first that decodes a latent counts,
    never the best.

    Raises:
        RunError: no rung decodes a latent, so there is nothing to judge.
    """
    decoders = [row for row in rows if row.decodes_latent or row.trained]
    in_prompt = [row for row in decoders if row.scope == "prompt"] or decoders
    trained = [row for row in in_prompt if row.trained]
    if not in_prompt:
        found = ", ".join(dict.fromkeys(row.rung for row in rows)) or "no rows"
        raise RunError(
            f"Nothing to judge: expected at least one rung that decodes a latent, got {found}. "
            "Run 'latentwire eval' with a compressing method."
        )
    return ([row for row in trained if row.decodes_latent] or trained or in_prompt[-1:])[0]


def lead_sentence(rows: Sequence[Row], own: Row) -> str:
    """Which rungs of no more reader positions `own` is clearly ahead of, by paired intervals; empty where it saves none.

    Args:
        rows: one reader's ladder.
        own: the row it is judged by.
    """
    rivals = _rivals(rows, own)
    level = [row for row in rivals if (row.f1_lead_low or 0.0) <= 0]
    if not rivals:
        return ""
    counted = "1 rung" if len(rivals) == 1 else f"{len(rivals)} rungs"
    if not level:
        return f"It is ahead of {'the' if len(rivals) == 1 else 'all'} {counted} of no more positions, least of {_lead(rivals[0])}."
    listed = ", ".join(map(_lead, level[:TOLD])) + (f" and {len(level) - TOLD} more" if len(level) > TOLD else "")
    return f"Of {counted} of no more positions it is not clearly ahead of {len(level)}: {listed}."


def _rivals(rows: Sequence[Row], own: Row) -> list[Row]:
    """Rungs of no more positions than `own`, the hardest to beat first; none where it saves none."""
    if own.num_positions is None or own.context_tokens is None or own.num_positions >= own.context_tokens:
        return []
    most = own.num_positions * (1 + POSITIONS_MARGIN)
    same = [row for row in rows if (row.scope, row.reader) == (own.scope, own.reader) and row.f1_lead is not None]
    return sorted((row for row in same if (row.num_positions or 0) <= most), key=lambda row: row.f1_lead_low or 0.0)


def _judge_lead(row: Row, rows: Sequence[Row]) -> Verdict:
    """Judged by the rung that is hardest to beat."""
    sentence = _measured(row, "f1", row.f1, row.f1_low, row.f1_high)
    rivals = _rivals(rows, row)
    if not rivals:
        sentence += " The ladder has no rung of no more positions to be ahead of, so nothing is decided."
        return Verdict("inconclusive", "lead", None, None, None, (), sentence)
    value, low, high = rivals[0].f1_lead, rivals[0].f1_lead_low, rivals[0].f1_lead_high
    ahead = low is not None and low > 0
    behind = value is not None and value <= 0
    outcome: Outcome = "target" if ahead else "failure" if behind else "inconclusive"
    return Verdict(outcome, "lead", value, low, high, (), sentence)


def _lead(row: Row) -> str:
    return f"'{row.rung}' (F1 by {row.f1_lead:.3f} [{row.f1_lead_low:.3f}, {row.f1_lead_high:.3f}])"


def _outcome(value: float, thresholds: Thresholds) -> Outcome:
    if value >= thresholds.target:
        return "target"
    if value >= thresholds.success:
        return "success"
    return "failure" if value < thresholds.failure else "inconclusive"


def _measured(row: Row, measure: Measure, value: float, low: float | None, high: float | None) -> str:
    share = f"{value:.3f}"
    if low is not None and high is not None and math.isfinite(low) and math.isfinite(high):
        share += f" (95 % interval {low:.3f} to {high:.3f})"
    if measure == "ratio":
        return f"{row.rung} keeps {share} of the F1 that {row.reader} reaches on raw embeddings."
    if measure == "share_of_gap":
        return f"{row.rung} covers {share} of the way from no context to the text, both tuned, with {row.reader}."
    return f"{row.rung} reaches an F1 of {share} with {row.reader}."


def _placed(outcome: Outcome, thresholds: Thresholds) -> str:
    target, success, failure = (f"{line:.3f}" for line in (thresholds.target, thresholds.success, thresholds.failure))
    if outcome == "target":
        return f"Target reached: the line is {target}."
    if outcome == "success":
        return f"Success, short of the target: the lines are {success} and {target}."
    if outcome == "failure":
        return f"Failure: less than {failure}."
    return f"Inconclusive: between failure ({failure}) and success ({success})."


def _straddling(names: Sequence[str]) -> str:
    listed = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    lines = "line" if len(names) == 1 else "lines"
    return f"The interval straddles the {listed} {lines}: more questions could change this outcome."


def _judge_none(row: Row, measure: Measure, rungs: Collection[str]) -> Verdict:
    """Nothing is formed: a rung that it takes is not there, or the reader does not gain from the text."""
    missing = [rung for rung in (FLOOR_TUNED, TEXT_TUNED) if rung not in rungs]
    if measure == "share_of_gap" and missing:
        sentence = (
            f"Nothing is decided on {row.dataset} with {row.reader}: no share of the gap is formed without the rungs "
            f"{' and '.join(map(repr, missing))}; add them to eval.rungs."
        )
        return Verdict("inconclusive", measure, None, None, None, (), sentence)
    if measure == "share_of_gap":
        sentence = (
            f"Reader too weak: on {row.dataset}, {row.reader} answers from the text not clearly better than with no "
            "context, both tuned, so no share of the gap is formed and nothing is decided."
        )
    else:
        sentence = (
            f"Reader too weak: on {row.dataset}, {row.reader} answers from raw embeddings not clearly better than with no "
            "context, so no ratio is formed and nothing is decided. "
            "Use a stronger reader, more questions or another layout."
        )
    return Verdict("reader too weak", measure, None, None, None, (), sentence)
