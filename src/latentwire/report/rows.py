"""The result row: what one rung of the ladder measured, and the only thing the ladder and the report share.

The ladder makes rows, ``rows.jsonl`` and the files in ``results/`` hold them, the report reads them. A field that does
not apply to a rung is ``None``. Scores and ratios are fractions of 1, sizes are means per example, times are medians
per example.
"""

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass

from latentwire.errors import RunError

Value = str | int | float | bool | None

FLOOR = "no context"
TEXT = "full text"
RAW = "raw embeddings"
TOKEN_IDS = "token ids"
TEXT_EQUAL_BYTES = "text cut to equal bytes"
TEXT_EQUAL_POSITIONS = "text cut to equal positions"
FLOOR_TUNED = "no context, tuned"
TEXT_TUNED = "full text, tuned"
BASELINES = (FLOOR, TEXT, RAW, TOKEN_IDS, TEXT_EQUAL_BYTES, TEXT_EQUAL_POSITIONS)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One rung on one scope, data set, reader and seed.

    ``rung`` is the name a person reads in the ladder; the baselines' names are the constants of this module.
    ``trained`` is true where this run's training made the rung. A rung that decodes a latent gives its
    ``compression_requested`` and ``wire_dtype``; the baselines leave both ``None``. A lead is how far what the run trained is
    ahead of this rung, question by question: in F1, and in NLL saved. ``prefill_seconds`` is one read of one prompt on its own,
    beyond what prompts open with, though the evaluation reads a context once for all questions about it. The last eight fields but ``note``
    are filled by per-token methods only; the ``*_heldout`` ones are over vocabulary rows kept out of training.
    """

    dataset: str
    split: str
    scope: str
    reader: str
    rung: str
    method: str
    seed: int
    n: int
    f1: float
    dtype: str
    threads: int
    hardware: str
    commit: str
    variant: str | None = None
    trained: bool = False
    objective: str | None = None
    compression_requested: float | None = None
    compression_achieved: float | None = None
    f1_low: float | None = None
    f1_high: float | None = None
    em: float | None = None
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    share_of_plain_gap: float | None = None
    share_of_gap: float | None = None
    share_of_gap_low: float | None = None
    share_of_gap_high: float | None = None
    target_met: bool | None = None
    f1_lead: float | None = None
    f1_lead_low: float | None = None
    f1_lead_high: float | None = None
    nll_lead: float | None = None
    nll_lead_low: float | None = None
    nll_lead_high: float | None = None
    answer_nll: float | None = None
    first_token_nll: float | None = None
    teacher_forced_accuracy: float | None = None
    exposure_gap: float | None = None
    agreement: float | None = None
    num_positions: float | None = None
    context_tokens: float | None = None
    bytes_on_wire: float | None = None
    wire_dtype: str | None = None
    text_bytes: float | None = None
    token_id_bytes: float | None = None
    decoder_parameters: int | None = None
    table_parameters: int | None = None
    train_examples: int | None = None
    train_seconds: float | None = None
    kv_cache_bytes: float | None = None
    encode_seconds: float | None = None
    reads_to_pay: float | None = None
    prefill_seconds: float | None = None
    generate_seconds: float | None = None
    peak_memory_bytes: float | None = None
    rms_ratio: float | None = None
    cosine: float | None = None
    variance_unexplained: float | None = None
    token_recovery: float | None = None
    rms_ratio_heldout: float | None = None
    cosine_heldout: float | None = None
    variance_unexplained_heldout: float | None = None
    token_recovery_heldout: float | None = None
    note: str | None = None

    @property
    def decodes_latent(self) -> bool:
        """True for a rung that turns a latent back into embeddings, false for every baseline."""
        return self.rung not in BASELINES and self.compression_requested is not None and self.wire_dtype is not None

    def to_dict(self) -> dict[str, Value]:
        """Every field by name, ready for one JSON line."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, object], where: str = "a result row") -> "Row":
        """The row that ``to_dict`` wrote, here or in an earlier version: what may be absent is ``None`` where it is missing.

        Args:
            values: every field by name, ``None`` where it does not apply.
            where: the file and line, for the message.

        Raises:
            RunError: a field is unknown, missing, of the wrong type or not a finite number; all are named at once.
        """
        expected = field_types()
        problems = [f"unknown field '{name}'" for name in values if name not in expected]
        required = [field.name for field in dataclasses.fields(cls) if field.default is dataclasses.MISSING]
        problems += [f"missing field '{name}'" for name in required if name not in values]
        for name in expected.keys() & values.keys():
            problem = _type_problem(name, values[name], expected[name])
            problems += [problem] if problem else []
        if problems:
            raise RunError(
                f"{where} does not fit this version of latentwire: {', '.join(sorted(problems))}. "
                "Run 'latentwire eval' again to write the rows anew."
            )
        return cls(**dict(values))  # type: ignore[arg-type]  # checked field by field above


def field_types() -> dict[str, tuple[type, ...]]:
    """The types each field of ``Row`` accepts, by field name, in the order of the fields."""
    hints = typing.get_type_hints(Row)
    names = [field.name for field in dataclasses.fields(Row)]
    return {
        name: typing.get_args(hint) if isinstance(hint := hints[name], types.UnionType) else (hint,) for name in names
    }


def _type_problem(name: str, value: object, accepted: tuple[type, ...]) -> str | None:
    numbers = int in accepted or float in accepted
    if isinstance(value, bool):
        fits = bool in accepted
    elif isinstance(value, int):
        fits = numbers
    else:
        fits = isinstance(value, accepted)
    if not fits:
        wanted = " or ".join("null" if kind is types.NoneType else kind.__name__ for kind in accepted)
        return f"field '{name}' must be {wanted}, got {value!r:.60}"
    if isinstance(value, float) and not math.isfinite(value):
        return f"field '{name}' must be a finite number, got {value!r}"
    return None
