"""The ladder: methods × scopes on the same questions, prompts and decoding, as rows that share one paired bootstrap."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from latentwire.codecs import ids_codec
from latentwire.config import Recipe
from latentwire.corpus import Corpus
from latentwire.data import Example, context_hash
from latentwire.errors import RecipeError
from latentwire.evaluate import RungResult
from latentwire.methods import METHODS, Method, decoder_parameters
from latentwire.metrics import Interval, PairedBootstrap
from latentwire.reader import Reader
from latentwire.registry import nearest
from latentwire.report.rows import (
    FLOOR,
    RAW,
    TEXT,
    TEXT_EQUAL_BYTES,
    TEXT_EQUAL_POSITIONS,
    TOKEN_IDS,
    Row,
)
from latentwire.specs import Spec, build

TRAINED = "trained"
INT8_SCALE_BYTES = 2


@dataclass(frozen=True)
class Rung:
    """A place on the ladder: the name a person reads and the method that stands there."""

    name: str
    spec: Spec
    trained: bool = False


def stage1_rungs(recipe: Recipe, corpus: Corpus) -> list[Rung]:
    """Every rung of Stage 1 around the recipe's own method, or those of `eval.rungs`.

    Raises:
        RecipeError: `eval.rungs` names a rung that there is not, or leaves out floor, text or raw embeddings.
    """
    own = {"name": recipe.method["name"], **asdict(build(METHODS, recipe.method))}  # type: ignore[call-overload]
    rungs = [
        Rung(FLOOR, {"name": "no_context"}),
        Rung(TEXT, {"name": "full_text"}),
        Rung(RAW, {"name": "raw_embeddings"}),
        Rung(TOKEN_IDS, {"name": "token_ids"}),
        *(_around(own, corpus) if "decoder" in own else [Rung(own["name"], own, trained=True)]),
    ]
    rungs = list({rung.name: rung for rung in rungs}.values())  # the recipe's own may be one of the others
    chosen = rungs if recipe.eval.rungs is None else [_find(name, rungs) for name in recipe.eval.rungs]
    missing = sorted({FLOOR, TEXT, RAW} - {rung.name for rung in chosen})
    if missing:
        raise RecipeError(
            f"eval.rungs: expected the rungs '{FLOOR}', '{TEXT}' and '{RAW}', which all others are measured against, got"
            f" none named {', '.join(missing)}"
        )
    return chosen


def _around(own: Spec, corpus: Corpus) -> list[Rung]:
    """What stands beside a per-token method: text at its prices, other compressors and decoders, and itself."""
    text_width = max(1, round(_text_bytes_per_token(corpus)) - INT8_SCALE_BYTES)
    size = f"{own['compression']:g}x" if own["width"] is None else f"d={own['width']}"
    pca = {**own, "compressor": "pca"}
    narrowest = {**pca, "decoder": "linear", "width": text_width, "wire_dtype": "int8"}
    return [
        Rung(TEXT_EQUAL_BYTES, {"name": "truncated", "unit": "bytes", "per_token": _vector_bytes(own, corpus.reader)}),
        Rung(TEXT_EQUAL_POSITIONS, {"name": "truncated", "unit": "positions", "per_token": 1.0}),
        Rung("pca at the text's bytes, linear", narrowest),
        Rung(f"random {size}, linear", {**own, "compressor": "random", "decoder": "linear"}),
        Rung(f"pca {size}, linear", {**pca, "decoder": "linear"}),
        Rung(f"pca {size}, codebook_soft", {**pca, "decoder": "codebook_soft"}),
        Rung(f"pca {size}, codebook_hard", {**pca, "decoder": "codebook_hard"}),
        Rung(f"{own['compressor']} {size}, {own['decoder']}", own, trained=True),
    ]


def _find(name: str, rungs: Sequence[Rung]) -> Rung:
    for rung in rungs:
        if rung.name == name or (rung.trained and name == TRAINED):
            return rung
    raise RecipeError(f"eval.rungs: unknown rung '{name}': {nearest(name, [TRAINED, *(rung.name for rung in rungs)])}")


def make_rows(
    results: Sequence[RungResult],
    rungs: Mapping[str, tuple[Rung, Method]],
    examples: Sequence[Example],
    recipe: Recipe,
    reader: Reader,
    facts: Mapping[str, Any],
) -> list[Row]:
    """Rows from results. `facts` holds the run's provenance and training figures by row field."""
    bootstrap = PairedBootstrap([context_hash(example.context) for example in examples], recipe.eval.resamples)
    rows = []
    for scope in recipe.eval.scopes:
        here = {result.rung: result for result in results if result.scope == scope}
        for name, result in here.items():
            rung, method = rungs[name]
            row = {
                **_common(recipe, reader, facts, len(examples), rung, method),
                **_scores(result, here, bootstrap),
                **_prices(result, here, rung, reader),
            }
            rows.append(Row(**row))
    return rows


def _common(
    recipe: Recipe, reader: Reader, facts: Mapping[str, Any], n: int, rung: Rung, method: Method
) -> dict[str, Any]:
    trained = {key: facts[key] for key in ("train_examples", "train_seconds")} if rung.trained else {}
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
        "dtype": str(reader.dtype).removeprefix("torch."),
        "threads": facts["threads"],
        "hardware": facts["hardware"],
        "commit": facts["commit"],
        "decoder_parameters": decoder_parameters(method) if per_token else None,
        "table_parameters": reader.vocab_size * reader.width if per_token else None,
        **trained,
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
    }


def _prices(result: RungResult, here: Mapping[str, RungResult], rung: Rung, reader: Reader) -> dict[str, Any]:
    per_token = "decoder" in rung.spec
    width = getattr(build(METHODS, rung.spec), "code_width")(reader) if per_token else None  # noqa: B009
    tokens = float(np.mean(here[RAW].num_positions))
    quality = {} if result.quality is None else vars_of(result.quality)
    heldout = {} if result.quality_heldout is None else vars_of(result.quality_heldout)
    return {
        "compression_requested": _requested(rung.spec, reader) if per_token else None,
        "compression_achieved": reader.width / width if width else None,
        "wire_dtype": rung.spec.get("wire_dtype", "int8") if per_token else None,
        "num_positions": float(np.mean(result.num_positions)),
        "context_tokens": tokens,
        "bytes_on_wire": float(np.mean(result.bytes_on_wire)),
        "text_bytes": float(np.mean(here[TEXT].bytes_on_wire)),
        "token_id_bytes": tokens * (2 if ids_codec(reader.vocab_size) == "ids16" else 4),
        "encode_seconds": result.encode_seconds,
        "prefill_seconds": result.prefill_seconds,
        "generate_seconds": result.generate_seconds,
        "peak_memory_bytes": result.peak_memory_bytes,
        "note": result.note or None,
        **quality,
        **{f"{key}_heldout": value for key, value in heldout.items()},
    }


def vars_of(quality: Any) -> dict[str, float]:
    """Fields of a slotted dataclass."""
    return {name: float(getattr(quality, name)) for name in quality.__slots__}


def _requested(spec: Spec, reader: Reader) -> float:
    width = spec.get("width")
    return float(spec.get("compression", 8.0)) if width is None else reader.width / float(width)


def _dataset_name(spec: Spec) -> str:
    path = str(spec.get("path", ""))
    stem = path.rstrip("/").rsplit("/", 1)[-1].removesuffix(".json").removesuffix(".jsonl")
    return stem or str(spec["name"])


def _vector_bytes(spec: Spec, reader: Reader) -> float:
    width = build(METHODS, {**spec, "name": "per_token"}).code_width(reader)  # type: ignore[attr-defined]
    return float(2 * width if spec.get("wire_dtype") == "fp16" else width + INT8_SCALE_BYTES)


def _text_bytes_per_token(corpus: Corpus) -> float:
    return sum(len(prompt.slot.text.encode()) for prompt in corpus.prompts) / corpus.num_tokens


def _mean(result: RungResult, name: str) -> float:
    return float(np.mean([getattr(outcome, name) for outcome in result.outcomes]))


def _exposure(result: RungResult) -> float:
    return _mean(result, "forced_accuracy") - _mean(result, "free_accuracy")
