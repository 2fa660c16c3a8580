"""What each codec costs a trained wire: results/<dataset>/wire--codecs.json.

    python runs/codecs.py WIRE RECIPE [key=value ...] --readers NAME [...] --questions N [--dtype float32] --command "..."

WIRE is a wire's folder; the recipe names the evaluation data and the texts that codebooks are learnt from (its training contexts). For
each reader, compression and codec one row: F1, answer NLL, how much of it is lost against fp16 (paired, over contexts, as a share of
fp16's) and how many answers are the same, beside the bytes of a context. Text stands there in its own codec. What was measured is kept in
out/codecs-<dataset>.jsonl: run again, it goes on from there. Readers that round to bfloat16 answer otherwise now and then for no fault of a
codec's: with --dtype float32 the file is results/<dataset>/wire--codecs-float32.json.
"""

import argparse
import hashlib
import io
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from collect import ROOT, portable, rounded
from rich.console import Console

from latentwire import Wire
from latentwire.atomic import atomic_write
from latentwire.bars import Bars
from latentwire.codebooks import CODEC, Codebooks, learn
from latentwire.config import dump, load_recipe
from latentwire.data import context_hash
from latentwire.documents import latent_vectors
from latentwire.evaluate import Evaluator, RungResult, shown
from latentwire.latent import FloatArray, Latent
from latentwire.methods import METHODS, Method
from latentwire.metrics import PairedBootstrap
from latentwire.pipeline import evaluation_examples, training_examples
from latentwire.runs import provenance

REFERENCE = "fp16"
SIZES = (144, 72, 48)  # bytes a vector of product quantisation
SAME = 0.98  # answers that int8 must share with fp16
LOSS = 0.02  # of fp16's NLL that the default codec may lose, at its interval's upper end


@dataclass
class Coded(Method):
    """A wire's latents of one compression in one codec. `made` holds what was encoded before: all codecs send the same."""

    wire: Wire
    compression: int
    codec: str
    made: dict[str, Latent]
    books: Codebooks | None = None

    def encode(self, slots, reader):
        """As the wire encodes, in the codec."""
        new = list(dict.fromkeys(slot.text for slot in slots if slot.text not in self.made))
        if new:
            self.made |= dict(zip(new, self.wire.encode(new, self.compression, "fp32"), strict=True))
        found = [self.made[slot.text] for slot in slots]
        return [self.books.coded(one) if self.books else replace(one, codec=self.codec) for one in found]

    def prefix(self, latents, reader):
        """As the wire reads."""
        restored = [self.books.restored(one) if self.books else one for one in latents]
        return self.wire.method.prefix(restored, reader)


@dataclass
class Kept:
    """Results in a file, by what they are of."""

    path: Path
    identity: str

    def found(self) -> dict[str, RungResult]:
        """Those of this wire and recipe."""
        kept = [json.loads(line) for line in self._text().split("\n")[:-1]]
        return {one["key"]: RungResult.from_dict(one["result"]) for one in kept if one["identity"] == self.identity}

    def add(self, key: str, result: RungResult) -> None:
        """One more."""
        line = json.dumps({"identity": self.identity, "key": key, "result": result.to_dict()})
        text = f"{self._text()}{line}\n"
        self.path.parent.mkdir(exist_ok=True)
        atomic_write(self.path, lambda partial: partial.write_text(text))

    def _text(self) -> str:
        return self.path.read_text() if self.path.exists() else ""


def vectors_of(wire: Wire, texts: list[str], progress: Callable[[float, str], None]) -> FloatArray:
    """The vectors of the texts' latents, kept in a file."""
    name = hashlib.sha256("\0".join([wire.method.space, *texts]).encode()).hexdigest()[:16]
    path = ROOT / "out" / f"codecs-{name}.npy"
    if not path.exists():
        found = latent_vectors(wire, texts, progress)
        buffer = io.BytesIO()
        np.save(buffer, found)
        path.parent.mkdir(exist_ok=True)
        atomic_write(path, lambda partial: partial.write_bytes(buffer.getvalue()))
    return np.load(path)  # type: ignore[no-any-return]


def row_of(result: RungResult, reference: RungResult, bootstrap: PairedBootstrap) -> dict[str, Any]:
    """What was measured of one codec."""
    nll, base = (np.array([out.answer_nll for out in one.outcomes]) for one in (result, reference))
    lost, f1 = bootstrap.ratio(nll - base, base), bootstrap.mean(np.array(result.f1))
    same = np.mean([a.answer == b.answer for a, b in zip(result.outcomes, reference.outcomes, strict=True)])
    return {
        "comparison": f"{result.reader}, {result.rung}",
        "n": len(result.f1),
        "bytes_on_wire": float(np.mean(result.bytes_on_wire)),
        "f1": f1.value,
        "f1_low": f1.low,
        "f1_high": f1.high,
        "answer_nll": float(nll.mean()),
        "nll_lost": lost.value,
        "nll_lost_low": lost.low,
        "nll_lost_high": lost.high,
        "same_answers_as_fp16": float(same),
    }


def main() -> None:
    """Read the arguments, measure, write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wire", type=Path)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--readers", nargs="+", required=True)
    parser.add_argument("--questions", type=int, required=True)
    parser.add_argument("--dtype", default="auto", help="what the readers compute in")
    parser.add_argument("--command", required=True)
    parser.add_argument("--results", type=Path, default=ROOT / "results")
    given = parser.parse_args()
    recipe = load_recipe(given.recipe, [*given.overrides, f"data.eval_limit={given.questions}"])
    wire, examples = Wire.load(given.wire), evaluation_examples(recipe)
    texts = list(dict.fromkeys(example.context for example in training_examples(recipe)))
    bootstrap = PairedBootstrap([context_hash(example.context) for example in examples], 10_000)
    dataset = Path(str(recipe.data.eval.get("path", recipe.data.eval["name"]))).stem
    identity = f"{wire.method.space} {given.dtype} {json.dumps(dump(recipe), sort_keys=True)}"
    kept = Kept(ROOT / "out" / f"codecs-{dataset}.jsonl", identity)
    found, rows = kept.found(), []
    made: dict[int, dict[str, Latent]] = {compression: {} for compression in wire.method.compressions[:2]}
    with (bars := Bars(Console(stderr=True))).bars:
        vectors = vectors_of(wire, texts, bars.task("encoding what codebooks are learnt from"))
        books = [learn(vectors, size) for size in SIZES]
        for name in given.readers:
            reader = wire.open_reader(name, given.dtype)
            evaluator = Evaluator(reader, examples, recipe.eval.batch, recipe.eval.max_new_tokens)

            def measure(called: str, method: Method, evaluator: Evaluator = evaluator) -> RungResult:
                key = f"{evaluator.reader.name}, {called}"
                if key not in found:
                    evaluator.progress = shown(bars.task(key))
                    found[key] = evaluator.run(called, method, "context")
                    kept.add(key, found[key])
                return found[key]

            for compression, latents in made.items():
                codecs = [(codec, codec, None) for codec in (REFERENCE, "fp32", "int8", "int4")]
                codecs += [(f"{CODEC} {len(one.words)}", CODEC, one) for one in books]
                results = [
                    measure(f"{called} {compression}x", Coded(wire, compression, codec, latents, own))
                    for called, codec, own in codecs
                ]
                rows += [row_of(result, results[0], bootstrap) for result in results]
            rows.append(row_of(measure("utf8", METHODS["full_text"]()), results[0], bootstrap))
    facts = provenance()
    result = {
        "run": {"command": given.command, "seed": recipe.train.seed, **facts},
        "train": None,
        "meta": {
            "what": "codecs of one trained wire: NLL lost and same answers are against fp16 at the same compression",
            "peer": "fp16",
            "reader_dtype": given.dtype,
            "recipe": portable(dump(recipe)),
            "wire": wire.method.space,
            "codebooks": f"learnt from {len(texts)} training contexts, 4x, 8x and 16x together",
            "int8_agrees": all(row["same_answers_as_fp16"] >= SAME for row in rows if ", int8 " in row["comparison"]),
            "below_2_percent": [row["comparison"] for row in rows if row["nll_lost_high"] < LOSS],
        },
        "rows": rows,
    }
    variant = "codecs" if given.dtype == "auto" else f"codecs-{given.dtype}"
    path = given.results / dataset / f"wire--{variant}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rounded(result), indent=1, sort_keys=True, ensure_ascii=False) + "\n")
    print(path)


if __name__ == "__main__":
    main()
