"""What one does with a trained wire from the command line: attach a reader to it, ask a question through it."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from latentwire.card import write_card
from latentwire.config import Recipe, expand, make_recipe, override
from latentwire.errors import DataError, WireError
from latentwire.joint import TOGETHER
from latentwire.methods.text import FullText
from latentwire.reader import Generation, Prefix, Reader
from latentwire.report.folder import read_rows
from latentwire.wire import Wire
from latentwire.wire_folder import IN_RUN, RECIPE, ROWS, read_wire, write_wire


@dataclass(frozen=True)
class Asked:
    """One way to an answer: what it was, and what it took."""

    context: str
    answer: str
    positions: int
    encode_seconds: float
    answer_seconds: float


def attach_recipe(folder: Path, reader: str, overrides: Sequence[str]) -> Recipe:
    """The recipe that trained a wire, made over to train one more reader's adapter and nothing else.

    Raises:
        WireError: There is no wire, or none that knows its recipe.
        RecipeError: An override that is none, or data below a `$NAME` that the environment does not set.
    """
    files, path = read_wire(folder), folder / RECIPE
    if not path.exists():
        raise WireError(f"expected the recipe that trained the wire at {path}, found none; fetch the wire anew")
    raw: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    short = Path(reader).name
    raw |= {"name": f"{folder.resolve().name}-with-{short}", "further_readers": []}
    raw["reader"] = {**raw["reader"], "name": reader, "dtype": "auto", "device": "auto"}
    raw["method"] = {"name": "wire", **files.method, "latents_from": str(folder)}
    raw["train"] = {**raw["train"], "start_from": None}
    for one in overrides:
        override(raw, one)
    return make_recipe(expand(raw), str(path))


def take_reader(wire: Path, run: Path) -> None:
    """Add to a wire the reader that a run of `attach_recipe` trained an adapter for, and what it measured; rows that another adapter of
    this reader had a part in go."""
    rows = read_rows(run / ROWS)
    earlier = read_rows(wire / ROWS) if (wire / ROWS).exists() else ()
    kept = [row for row in earlier if not {new.reader for new in rows} & set(row.reader.split(TOGETHER))]
    write_wire(wire, read_wire(run / IN_RUN))
    write_card(wire, [*kept, *rows], yaml.safe_load((wire / RECIPE).read_text(encoding="utf-8"))["name"])


def read_contexts(paths: Sequence[Path]) -> list[str]:
    """The texts of files.

    Raises:
        DataError: A file is missing, empty or no UTF-8 text.
    """
    texts = []
    for path in paths:
        try:
            text = path.read_text(encoding="utf-8-sig").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"expected a UTF-8 text file at {path}, got: {error}; give another --context") from None
        if not text:
            raise DataError(f"expected text in {path}, got an empty file; leave it out")
        texts.append(text)
    return texts


def ask(wire: Wire, reader: Reader, contexts: Sequence[str], question: str, compression: int | None) -> list[Asked]:
    """The answer from latents and, beside it, the answer from the text itself.

    Raises:
        MethodError: A compression that the wire does not serve.
        PromptError: The contexts do not fit the reader.
    """
    reader.answer(wire.prefix(wire.encode(contexts[:1], compression), reader), question, 1)  # warms up
    begin = time.perf_counter()
    latents = wire.encode(contexts, compression)
    encode_seconds = time.perf_counter() - begin
    size = compression or wire.method.compression
    text = reader.prompter.slot("\n\n".join(contexts))
    return [
        _timed(f"latents, {size}x", reader, wire.prefix(latents, reader), question, encode_seconds),
        _timed("text", reader, FullText().prefix(FullText().encode([text], reader), reader), question, 0.0),
    ]


def _timed(context: str, reader: Reader, prefix: Prefix, question: str, encode_seconds: float) -> Asked:
    begin = time.perf_counter()
    answer: Generation = reader.answer(prefix, question)
    return Asked(context, answer.text, int(prefix.mask.sum()), encode_seconds, time.perf_counter() - begin)
