"""The row and the verdict: what a row accepts, and what its numbers are judged to mean."""

import json

import pytest

from latentwire.errors import RunError
from latentwire.report.rows import FLOOR, FLOOR_TUNED, TEXT_TUNED, Row
from latentwire.report.verdict import Thresholds, headline_row, judge, lead_sentence

TRAINED = "PCA, mlp"
LINEAR = "PCA, linear"
REQUIRED: dict[str, object] = {
    "dataset": "facts", "split": "validation", "scope": "prompt", "reader": "tiny", "rung": TRAINED, "method": "pca",
    "seed": 0, "n": 200, "f1": 0.49, "dtype": "float32", "threads": 2, "hardware": "a test", "commit": "abc1234",
}  # fmt: skip


def make_row(rung: str = TRAINED, **changes: object) -> Row:
    decodes = {"compression_requested": 8.0, "wire_dtype": "int8"} if rung != FLOOR else {}
    return Row(**(REQUIRED | {"rung": rung, "trained": rung == TRAINED} | decodes | changes))


@pytest.mark.parametrize(
    ("ratio", "outcome"),
    [(1.0, "target"), (70 / 82, "target"), (70 / 82 - 1e-9, "success"), (65 / 82, "success"),
     (65 / 82 - 1e-9, "inconclusive"), (50 / 82, "inconclusive"), (50 / 82 - 1e-9, "failure"), (0.0, "failure")],
)  # fmt: skip
def test_outcome_changes_exactly_at_each_line(ratio: float, outcome: str) -> None:
    row = make_row(ratio=ratio, ratio_low=ratio, ratio_high=ratio)
    assert judge(row, Thresholds()).outcome == outcome


def test_interval_across_two_lines_names_both_in_the_sentence() -> None:
    verdict = judge(make_row(ratio=0.82, ratio_low=0.75, ratio_high=0.88), Thresholds())
    assert verdict.outcome == "success"
    assert verdict.straddles == ("target", "success")
    assert "straddles the target and success lines" in verdict.sentence
    assert "0.820 (95 % interval 0.750 to 0.880)" in verdict.sentence


@pytest.mark.parametrize(
    ("low", "high", "straddles"),
    [(70 / 82, 0.95, ()), (0.8, 70 / 82, ("target",)), (0.55, 0.65, ("failure",)), (0.86, 0.95, ()),
     (0.5, 0.9, ("target", "success", "failure"))],
)  # fmt: skip
def test_interval_straddles_a_line_only_when_its_ends_fall_on_different_sides(
    low: float, high: float, straddles: tuple[str, ...]
) -> None:
    verdict = judge(make_row(ratio=(low + high) / 2, ratio_low=low, ratio_high=high), Thresholds())
    assert verdict.straddles == straddles
    assert ("straddles" in verdict.sentence) == bool(straddles)


def test_row_without_ratio_says_that_the_reader_is_too_weak() -> None:
    verdict = judge(make_row(ratio=None, ratio_low=None, ratio_high=None), Thresholds())
    assert verdict.outcome == "reader too weak"
    assert verdict.value is None
    assert verdict.sentence.startswith("Reader too weak: on facts, tiny")


def test_no_share_of_the_gap_is_told_by_its_reason() -> None:
    own, thresholds = make_row(), Thresholds(measure="share_of_gap")
    ladder = [own, make_row(FLOOR_TUNED), make_row(TEXT_TUNED)]
    weak, without = judge(own, thresholds, ladder), judge(own, thresholds, ladder[:2])
    assert (weak.outcome, without.outcome) == ("reader too weak", "inconclusive")
    assert weak.sentence.startswith("Reader too weak: on facts, tiny answers from the text not")
    assert without.sentence.startswith("Nothing is decided on facts with tiny")
    assert "'full text, tuned'; add" in without.sentence


def test_absolute_f1_can_be_judged_instead_of_the_ratio() -> None:
    thresholds = Thresholds.from_dict({"measure": "f1", "target": 0.7, "success": 0.65, "failure": 0.5})
    verdict = judge(make_row(f1=0.66, f1_low=0.6, f1_high=0.72, ratio=None), thresholds)
    assert (verdict.outcome, verdict.value, verdict.measure) == ("success", 0.66, "f1")


@pytest.mark.parametrize("block", [{"targt": 0.9}, {"measure": "em"}, {"target": "high"}, {"target": 0.1}])
def test_thresholds_that_make_no_sense_raise_run_error(block: dict[str, object]) -> None:
    with pytest.raises(RunError):
        Thresholds.from_dict(block)


def test_headline_is_the_trained_rung_in_prompt_scope_and_never_the_best() -> None:
    rows = [make_row(rung, scope=scope) for scope in ("context", "prompt") for rung in (FLOOR, LINEAR, TRAINED)]
    rows.append(make_row("PCA, codebook_hard", ratio=0.999, f1=0.519))
    assert (headline_row(rows).rung, headline_row(rows).scope) == (TRAINED, "prompt")
    untrained = [make_row(FLOOR), make_row("random projection"), make_row(LINEAR)]
    assert headline_row(untrained).rung == LINEAR
    with pytest.raises(RunError, match="Nothing to judge"):
        headline_row([make_row(FLOOR)])


def test_row_survives_json_unchanged() -> None:
    row = make_row(note="no cut happened", decoder_parameters=12)
    assert Row.from_dict(json.loads(json.dumps(row.to_dict()))) == row


def test_row_with_unknown_missing_and_wrong_fields_names_all_of_them() -> None:
    values: dict[str, object] = make_row().to_dict() | {"f2": 0.5, "em": "high", "n": True, "f1": float("nan")}
    del values["seed"]
    with pytest.raises(RunError) as error:
        Row.from_dict(values, "rows.jsonl line 3")
    message = str(error.value)
    assert message.startswith("rows.jsonl line 3")
    for part in (
        "unknown field 'f2'",
        "missing field 'seed'",
        "'em' must be float or null",
        "'n' must be int",
        "finite",
    ):
        assert part in message


def ladder_of(**leads: tuple[float, float]) -> list[Row]:
    """A trained row of 20 positions for a text of 80, and rivals: how far it is ahead, and their positions."""
    own = make_row("wire 4x", scope="context", trained=True, num_positions=20.0, context_tokens=80.0)
    rivals = [
        make_row(
            name,
            scope="context",
            f1_lead=lead,
            f1_lead_low=lead - 0.02,
            f1_lead_high=lead + 0.02,
            num_positions=positions,
        )
        for name, (lead, positions) in leads.items()
    ]
    return [own, *rivals]


def test_lead_names_the_nearest_rival_of_as_many_positions_or_all_that_are_level() -> None:
    own, *rivals = ladder_of(text=(-0.3, 80.0), cut=(0.1, 20.0), pooled=(0.03, 21.9))
    assert lead_sentence([own, *rivals], own) == (
        "It is ahead of all 2 rungs of no more positions, least of 'pooled' (F1 by 0.030 [0.010, 0.050])."
    )
    own, *rivals = ladder_of(cut=(0.1, 20.0))
    assert lead_sentence([own, *rivals], own) == (
        "It is ahead of the 1 rung of no more positions, least of 'cut' (F1 by 0.100 [0.080, 0.120])."
    )
    own, *rivals = ladder_of(cut=(0.1, 20.0), pooled=(0.02, 20.0), drawn=(-0.1, 12.0))
    assert lead_sentence([own, *rivals], own) == (
        "Of 3 rungs of no more positions it is not clearly ahead of 2: 'drawn' (F1 by -0.100 [-0.120, -0.080]),"
        " 'pooled' (F1 by 0.020 [0.000, 0.040])."
    )


def test_lead_is_not_told_where_no_position_is_saved() -> None:
    _, *rivals = ladder_of(cut=(0.1, 80.0))
    same = make_row("wire 4x", scope="context", num_positions=80.0, context_tokens=80.0)
    assert lead_sentence([same, *rivals], same) == ""


@pytest.mark.parametrize(
    ("lead", "outcome"), [(0.03, "target"), (0.02, "inconclusive"), (0.01, "inconclusive"), (-0.01, "failure")]
)
def test_a_lead_is_judged_by_the_rung_that_is_hardest_to_beat(lead: float, outcome: str) -> None:
    own, *rivals = ladder_of(cut=(0.3, 20.0), shuffled=(lead, 20.0), text=(-0.4, 80.0))
    verdict = judge(own, Thresholds(measure="lead"), [own, *rivals])
    assert (verdict.outcome, verdict.value, verdict.low) == (outcome, lead, lead - 0.02)
    assert verdict.sentence == "wire 4x reaches an F1 of 0.490 with tiny."


def test_a_lead_over_nothing_decides_nothing() -> None:
    own, *_ = ladder_of()
    verdict = judge(own, Thresholds(measure="lead"), [own])
    assert (verdict.outcome, verdict.value) == ("inconclusive", None)
