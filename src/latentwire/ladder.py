"""The ladder: methods × scopes on the same questions, prompts and decoding, as rows that share one paired bootstrap."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from latentwire.codecs import ids_codec
from latentwire.config import Recipe
from latentwire.data import Example, context_hash
from latentwire.evaluate import RungResult
from latentwire.methods import METHODS, Method, decoder_parameters
from latentwire.metrics import Interval, PairedBootstrap
from latentwire.reader import Reader
from latentwire.reader.cache import cache_bytes
from latentwire.reader.precision import dtype_name
from latentwire.report.rows import FLOOR, FLOOR_TUNED, RAW, TEXT, TEXT_TUNED, Row
from latentwire.rungs import OWN, Rung
from latentwire.specs import Spec, build


@dataclass(frozen=True)
class Climber:
    """A rung with its method, ready to be climbed, and what training wrote down about it."""

    rung: Rung
    method: Method
    training: Mapping[str, Any]


def make_rows(
    results: Sequence[RungResult],
    climbers: Mapping[str, Climber],
    examples: Sequence[Example],
    recipe: Recipe,
    reader: Reader,
    facts: Mapping[str, Any],
) -> list[Row]:
    """Rows from results. `facts` holds the run's provenance by row field."""
    bootstrap = PairedBootstrap([context_hash(example.context) for example in examples], recipe.eval.resamples)
    rows = []
    for scope in recipe.eval.scopes:
        here = {result.rung: result for result in results if result.scope == scope}
        own = next((result for name, result in here.items() if climbers[name].rung.weights == OWN), None)
        for name, result in here.items():
            climber = climbers[name]
            row = {
                **_common(recipe, reader, facts, len(examples), climber),
                **_scores(result, here, bootstrap),
                **({} if own is None or _same(climber, climbers[own.rung]) else _leads(own, result, bootstrap)),
                **_prices(result, here, climber.rung, reader),
            }
            rows.append(Row(**row))
    return rows


def _common(recipe: Recipe, reader: Reader, facts: Mapping[str, Any], n: int, climber: Climber) -> dict[str, Any]:
    rung, method = climber.rung, climber.method
    per_token = "decoder" in rung.spec
    return {
        "dataset": _dataset_name(recipe.data.eval),
        "split": recipe.data.eval_split,
        "reader": reader.name,
        "rung": rung.name,
        "method": rung.spec["name"],
        "variant": rung.spec.get("decoder") or rung.spec.get("unit"),
        "trained": rung.trained,
        "objective": "+".join(recipe.objective.weights) if rung.trained else None,
        "seed": recipe.train.seed,
        "n": n,
        "dtype": dtype_name(reader.dtype),
        "threads": facts["threads"],
        "hardware": facts["hardware"],
        "commit": facts["commit"],
        "decoder_parameters": decoder_parameters(method) if per_token else None,
        "table_parameters": reader.vocab_size * reader.width if per_token else None,
        **{key: climber.training.get(key) for key in ("train_examples", "train_seconds")},
    }


def _scores(result: RungResult, here: Mapping[str, RungResult], bootstrap: PairedBootstrap) -> dict[str, Any]:
    scores, raw, floor = (np.array(one.f1) for one in (result, here[RAW], here[FLOOR]))
    interval = bootstrap.mean(scores)
    gap = bootstrap.difference(raw, floor)
    ratio: Interval | None = bootstrap.ratio(scores, raw) if gap.low > 0 else None
    texts = [outcome.answer for outcome in here[TEXT].outcomes]
    return {
        "scope": result.scope,
        "f1": interval.value,
        "f1_low": interval.low,
        "f1_high": interval.high,
        "em": float(np.mean(result.em)),
        "ratio": ratio and ratio.value,
        "ratio_low": ratio and ratio.low,
        "ratio_high": ratio and ratio.high,
        "share_of_plain_gap": (interval.value - float(floor.mean())) / gap.value if ratio else None,
        "answer_nll": _mean(result, "answer_nll"),
        "first_token_nll": _mean(result, "first_token_nll"),
        "teacher_forced_accuracy": _mean(result, "forced_accuracy"),
        "exposure_gap": _exposure(result) - _exposure(here[RAW]),
        "agreement": float(np.mean([out.answer == text for out, text in zip(result.outcomes, texts, strict=True)])),
        **_share_of_gap(result, here, bootstrap),
    }


def _share_of_gap(
    result: RungResult, here: Mapping[str, RungResult], bootstrap: PairedBootstrap
) -> dict[str, float | None]:
    """How much of the way from the tuned floor to text a rung comes: text plain or tuned, whichever is better.

    None where there are no tuned rungs, or where the way is not clearly above zero.
    """
    if FLOOR_TUNED not in here or TEXT_TUNED not in here:
        return {}
    floor = np.array(here[FLOOR_TUNED].f1)
    ceiling = max((np.array(here[name].f1) for name in (TEXT, TEXT_TUNED)), key=lambda scores: float(scores.mean()))
    if bootstrap.difference(ceiling, floor).low <= 0:
        return {}
    share = bootstrap.ratio(np.array(result.f1) - floor, ceiling - floor)
    return {"share_of_gap": share.value, "share_of_gap_low": share.low, "share_of_gap_high": share.high}


def _same(climber: Climber, own: Climber) -> bool:
    """Whether a rung is the trained method itself, perhaps at another compression: there is nothing to be ahead of."""
    return (climber.rung.weights, climber.rung.spec["name"]) == (OWN, own.rung.spec["name"])


def _leads(own: RungResult, other: RungResult, bootstrap: PairedBootstrap) -> dict[str, float]:
    """How far the trained method is ahead of another rung, question by question: in F1, and in NLL saved."""
    nll = [np.array([outcome.answer_nll for outcome in one.outcomes]) for one in (other, own)]
    found = {
        "f1_lead": bootstrap.difference(np.array(own.f1), np.array(other.f1)),
        "nll_lead": bootstrap.difference(nll[0], nll[1]),
    }
    return {
        f"{name}{end}": getattr(interval, part)
        for name, interval in found.items()
        for end, part in (("", "value"), ("_low", "low"), ("_high", "high"))
    }


def _prices(result: RungResult, here: Mapping[str, RungResult], rung: Rung, reader: Reader) -> dict[str, Any]:
    tokens, positions = float(np.mean(here[RAW].num_positions)), float(np.mean(result.num_positions))
    quality = {} if result.quality is None else vars_of(result.quality)
    heldout = {} if result.quality_heldout is None else vars_of(result.quality_heldout)
    return {
        **_compression(rung.spec, reader, tokens, positions),
        "num_positions": positions,
        "context_tokens": tokens,
        "bytes_on_wire": float(np.mean(result.bytes_on_wire)),
        "text_bytes": float(np.mean(here[TEXT].bytes_on_wire)),
        "token_id_bytes": tokens * (2 if ids_codec(reader.vocab_size) == "ids16" else 4),
        "kv_cache_bytes": _kv_cache_bytes(result, reader),
        "encode_seconds": result.encode_seconds,
        "reads_to_pay": _reads_to_pay(result, here[TEXT]),
        "prefill_seconds": result.prefill_seconds,
        "generate_seconds": result.generate_seconds,
        "peak_memory_bytes": result.peak_memory_bytes,
        "note": result.note or None,
        **quality,
        **{f"{key}_heldout": value for key, value in heldout.items()},
    }


def _kv_cache_bytes(result: RungResult, reader: Reader) -> float:
    """Mean bytes of keys and values that the slot's positions take in the reader's cache."""
    size = reader.dtype.itemsize
    return float(np.mean([cache_bytes(reader.model.config, count, size) for count in result.num_positions]))


def _reads_to_pay(result: RungResult, text: RungResult) -> float | None:
    """After how many reads a shorter sequence, encoded once, has taken less time than the text; None where it never will."""
    saved = text.prefill_seconds - result.prefill_seconds
    shorter = sum(result.num_positions) < sum(text.num_positions)
    return result.encode_seconds / saved if shorter and saved > 0 else None


def vars_of(quality: Any) -> dict[str, float]:
    """Fields of a slotted dataclass."""
    return {name: float(getattr(quality, name)) for name in quality.__slots__}


def _compression(spec: Spec, reader: Reader, tokens: float, positions: float) -> dict[str, Any]:
    """How many times narrower a code is, or how many times fewer positions there are, task tokens counted."""
    if "decoder" in spec:
        width = getattr(build(METHODS, spec), "code_width")(reader)  # noqa: B009
        asked = (
            float(spec.get("compression", 8.0)) if spec.get("width") is None else reader.width / float(spec["width"])
        )
        return {
            "compression_requested": asked,
            "compression_achieved": reader.width / width,
            "wire_dtype": spec.get("wire_dtype", "int8"),
        }
    inner = spec.get("of", spec)
    if "compression" not in inner:
        return {}
    return {
        "compression_requested": float(inner["compression"]),
        "compression_achieved": spec.get("count", 1) * tokens / positions,  # several contexts may share the positions
        "wire_dtype": inner.get("wire_dtype"),
    }


def _dataset_name(spec: Spec) -> str:
    path = str(spec.get("path", ""))
    stem = path.rstrip("/").rsplit("/", 1)[-1].removesuffix(".json").removesuffix(".jsonl")
    return stem or str(spec["name"])


def _mean(result: RungResult, name: str) -> float:
    return float(np.mean([getattr(outcome, name) for outcome in result.outcomes]))


def _exposure(result: RungResult) -> float:
    return _mean(result, "forced_accuracy") - _mean(result, "free_accuracy")
