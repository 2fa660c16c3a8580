"""Several readers decide together: of the answers that each gave, the one that all of them find likeliest.

answers of reader 1, 2, ... ─▶ each scored by every reader behind its own prefix ─▶ log-probabilities summed ─▶ one answer
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from latentwire.data import Example, context_hash
from latentwire.evaluate import Evaluator, RungResult
from latentwire.ladder import Climber
from latentwire.metrics import PairedBootstrap, exact_match, f1
from latentwire.reader import Reader
from latentwire.report.rows import Row

JOINT = "answer chosen by all readers"
TOGETHER = " + "  # between their names


def joint_row(
    results: Sequence[RungResult],
    members: Sequence[tuple[Reader, Climber]],
    examples: Sequence[Example],
    batch: int,
    resamples: int,
    like: Row,
    progress: Callable[[float, str], None],
) -> Row:
    """The row of one rung whose answers several readers choose.

    Args:
        results: What each reader answered on that rung, in the order of `members`.
        members: The readers, each with the rung's method.
        examples: What was asked.
        batch: Prompts read at once.
        resamples: Bootstrap resamples of the interval.
        like: The first reader's row on the rung; what depends on one reader alone is left out.
        progress: Called with the share of the scoring that is done.
    """
    given = [[outcome.answer for outcome in result.outcomes] for result in results]
    likelihoods = np.zeros((len(given), len(examples)))
    for number, (reader, climber) in enumerate(members, 1):
        likelihoods += _log_probabilities(reader, climber, examples, given, results[0].scope, batch)
        progress(number / len(given), "")
    chosen = [given[place][index] for index, place in enumerate(likelihoods.argmax(axis=0))]
    scores = np.array([f1(answer, example.answers) for answer, example in zip(chosen, examples, strict=True)])
    interval = PairedBootstrap([context_hash(example.context) for example in examples], resamples).mean(scores)
    names = TOGETHER.join(reader.name for reader, _ in members)
    exact = [exact_match(answer, example.answers) for answer, example in zip(chosen, examples, strict=True)]
    found: Mapping[str, str | float] = {
        "reader": names,
        "rung": f"{like.rung}, {JOINT}",
        "f1": interval.value,
        "f1_low": interval.low,
        "f1_high": interval.high,
        "em": float(np.mean(exact)),
    }
    return replace(like, **dict.fromkeys(OF_ONE_READER), **found)  # type: ignore[arg-type]


OF_ONE_READER = (
    "ratio",
    "ratio_low",
    "ratio_high",
    "share_of_plain_gap",
    "share_of_gap",
    "share_of_gap_low",
    "share_of_gap_high",
    "f1_lead",
    "f1_lead_low",
    "f1_lead_high",
    "nll_lead",
    "nll_lead_low",
    "nll_lead_high",
    "answer_nll",
    "first_token_nll",
    "teacher_forced_accuracy",
    "exposure_gap",
    "agreement",
    "encode_seconds",
    "reads_to_pay",
    "prefill_seconds",
    "generate_seconds",
    "peak_memory_bytes",
    "kv_cache_bytes",
)


def _log_probabilities(
    reader: Reader,
    climber: Climber,
    examples: Sequence[Example],
    given: Sequence[Sequence[str]],
    scope: str,
    batch: int,
) -> npt.NDArray[np.float64]:
    """Log-probability of each answer and its end, behind the reader's own prefix: `[R, n]` for the answers of R readers."""
    asked = [
        replace(example, answers=(answer,)) for one in given for example, answer in zip(examples, one, strict=True)
    ]
    found = Evaluator(reader, asked, batch, 1).run("", climber.method, scope)  # type: ignore[arg-type]
    sizes = [len(reader.prompter.labels(answer)) for one in given for answer in one]
    log_probabilities = [-outcome.answer_nll * size for outcome, size in zip(found.outcomes, sizes, strict=True)]
    return np.array(log_probabilities).reshape(len(given), len(examples))
