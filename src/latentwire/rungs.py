"""Which rungs stand around a recipe's own method: names, method specs, and where their weights lie."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from latentwire.config import MoreRung, Recipe
from latentwire.corpus import Corpus
from latentwire.errors import RecipeError
from latentwire.methods import METHODS
from latentwire.reader import Reader
from latentwire.registry import nearest
from latentwire.report.rows import FLOOR, RAW, TEXT, TEXT_EQUAL_BYTES, TEXT_EQUAL_POSITIONS, TOKEN_IDS
from latentwire.specs import Spec, build
from latentwire.wire_folder import IN_RUN

TRAINED = "trained"
INT8_SCALE_BYTES = 2
OWN = "."


@dataclass(frozen=True)
class Rung:
    """A place on the ladder.

    Attributes:
        name: What a person reads.
        spec: The method that stands there.
        weights: Folder of its weights, below the run's own; `OWN` for those of the recipe's method, None without training.
    """

    name: str
    spec: Spec
    weights: str | None = None

    @property
    def trained(self) -> bool:
        """Whether this run's training made it."""
        return self.weights is not None


def ladder_rungs(recipe: Recipe, corpus: Corpus) -> list[Rung]:
    """Every rung around the recipe's own method, or those of `eval.rungs`.

    Raises:
        RecipeError: `eval.rungs` names a rung that there is not, or leaves out floor, text or raw embeddings.
    """
    own = {"name": recipe.method["name"], **asdict(build(METHODS, recipe.method))}  # type: ignore[call-overload]
    if "decoder" in own:
        around = [Rung(TOKEN_IDS, {"name": "token_ids"}), *_per_token(own, corpus)]
    elif "compressions" in own:
        earlier = own["latents_from"] or recipe.train.start_from
        around = list(_shorter(own, [spec.name for spec in recipe.readers], earlier))
    else:
        around = [Rung(TOKEN_IDS, {"name": "token_ids"}), Rung(own["name"], own, OWN)]
    rungs = [
        Rung(FLOOR, {"name": "no_context"}),
        Rung(TEXT, {"name": "full_text"}),
        Rung(RAW, {"name": "raw_embeddings"}),
        *around,
    ]
    rungs = list({rung.name: rung for rung in rungs}.values())  # the recipe's own may be one of the others
    asked = recipe.eval.rungs or ()
    named = [_find(name, rungs) for name in asked if isinstance(name, str)]
    chosen = (named or rungs) + [_further(more) for more in asked if not isinstance(more, str)]
    missing = sorted({FLOOR, TEXT, RAW} - {rung.name for rung in chosen})
    if missing:
        raise RecipeError(
            f"eval.rungs: expected the rungs '{FLOOR}', '{TEXT}' and '{RAW}', which all others are measured against, got"
            f" none named {', '.join(missing)}"
        )
    return chosen


def vector_bytes(spec: Spec, reader: Reader) -> float:
    """Bytes of one code on the wire."""
    width = build(METHODS, {**spec, "name": "per_token"}).code_width(reader)  # type: ignore[attr-defined]
    return float(2 * width if spec.get("wire_dtype") == "fp16" else width + INT8_SCALE_BYTES)


def _per_token(own: Spec, corpus: Corpus) -> list[Rung]:
    """What stands beside a per-token method: text at its prices, other compressors and decoders, and itself."""
    text_width = max(1, round(_text_bytes_per_token(corpus)) - INT8_SCALE_BYTES)
    size = f"{own['compression']:g}x" if own["width"] is None else f"d={own['width']}"
    pca = {**own, "compressor": "pca"}
    narrowest = {**pca, "decoder": "linear", "width": text_width, "wire_dtype": "int8"}
    return [
        Rung(TEXT_EQUAL_BYTES, {"name": "truncated", "unit": "bytes", "per_token": vector_bytes(own, corpus.reader)}),
        Rung(TEXT_EQUAL_POSITIONS, {"name": "truncated", "unit": "positions", "per_token": 1.0}),
        Rung("pca at the text's bytes, linear", narrowest),
        Rung(f"random {size}, linear", {**own, "compressor": "random", "decoder": "linear"}),
        Rung(f"pca {size}, linear", {**pca, "decoder": "linear"}),
        Rung(f"pca {size}, codebook_soft", {**pca, "decoder": "codebook_soft"}),
        Rung(f"pca {size}, codebook_hard", {**pca, "decoder": "codebook_hard"}),
        Rung(f"{own['compressor']} {size}, {own['decoder']}", own, OWN),
    ]


def _shorter(own: Spec, readers: Sequence[str], earlier: str | None) -> Iterator[Rung]:
    """What stands beside a method that shortens the sequence: others as short, each plain and tuned to the task, and itself.

    With `earlier`, the wire that it starts from, the words that this keeps stand there as text too.

    Tuned rungs have as many task tokens as the method itself, so that both take the same reader positions; plain rungs
    may spend those positions on text.
    """
    size, task_tokens = own["compression"], own["task_tokens"]
    counted_by = own["encoder"] or readers[0]  # a latent stands for the encoder's tokens, whoever reads it
    cut = {"name": "truncated", "unit": "positions", "per_token": 1 / size, "counted_by": counted_by}
    drawn = {"name": "random_tokens", "compression": float(size), "counted_by": counted_by}
    scored = {"name": "surprising_tokens", "compression": float(size), "scorer": counted_by}
    pooled = {"name": "pooled", "compression": size, "counted_by": counted_by}
    yield _tuned(FLOOR, {"name": "no_context"}, task_tokens)
    yield _tuned(TEXT, {"name": "full_text"}, task_tokens)
    texts = {"text cut": cut, "random tokens": drawn, "surprising tokens": scored}
    if earlier is not None:
        texts["kept words"] = {"name": "surprising_tokens", "compression": float(size), "wire": _wire_in(earlier)}
    for name, spec in texts.items():
        yield Rung(f"{name} {size}x", {**spec, "more": task_tokens})
        yield _tuned(f"{name} {size}x", spec, task_tokens)
    for writer in readers:
        name = f"summary {size}x by {writer.rsplit('/', 1)[-1]}"
        summary = {"name": "relay", "writer": writer, "compression": float(size), "counted_by": counted_by}
        yield Rung(name, {**summary, "more": task_tokens})
        yield _tuned(name, summary, task_tokens)
    yield Rung(f"mean-pooled {size}x", pooled)
    yield _tuned(f"mean-pooled {size}x", pooled, task_tokens)
    for other in sorted(own["compressions"], key=lambda other: (other != size, other)):  # its own first: that is judged
        yield Rung(f"{own['name']} {other}x", {**own, "compression": other}, OWN)
    yield Rung(f"{own['name']} {size}x, one of four latents", {"name": "among", "of": own}, OWN)
    for kind in ("shuffled", "zero"):
        yield Rung(f"{own['name']} {size}x, {kind}", {"name": "control", "of": own, "kind": kind}, OWN)
    if own["pooling"] == "spans" and own["latents_from"] is None:
        yield Rung(f"learned queries {size}x", {**own, "pooling": "queries"}, _folder(f"learned queries {size}x"))


def _wire_in(folder: str) -> str:
    """The wire's own folder, where that of a run is given."""
    inside = Path(folder) / IN_RUN
    return str(inside) if inside.is_dir() else folder


def _tuned(name: str, spec: Spec, task_tokens: int) -> Rung:
    """A rung behind learned task tokens, as many as the method itself has."""
    return Rung(f"{name}, tuned", {"name": "tuned", "task_tokens": task_tokens, "of": spec}, _folder(name))


def _further(more: MoreRung) -> Rung:
    """A rung that only this recipe has; it is trained where its method is `tuned`."""
    return Rung(more.name, more.of, _folder(more.name) if more.of.get("name") == "tuned" else None)


def _folder(name: str) -> str:
    """Where the weights of a tuned rung are, below the run's own."""
    return "tuned/" + "".join(letter if letter.isalnum() else "-" for letter in name.removesuffix(", tuned").lower())


def _find(name: str, rungs: Sequence[Rung]) -> Rung:
    for rung in rungs:
        if rung.name == name or (rung.weights == OWN and name == TRAINED):
            return rung
    raise RecipeError(f"eval.rungs: unknown rung '{name}': {nearest(name, [TRAINED, *(rung.name for rung in rungs)])}")


def _text_bytes_per_token(corpus: Corpus) -> float:
    return sum(len(prompt.slot.text.encode()) for prompt in corpus.prompts) / corpus.num_tokens
