"""The commands that use a trained wire: `ask`, and `encode`, `inspect` and `answer`, between which latents are a file."""

import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from latentwire.bars import Bars
from latentwire.errors import DataError, LatentError
from latentwire.latent_files import latents_of, read_messages
from latentwire.options import Force, Json, Resume, WireFolder
from latentwire.printing import err, say, show_asked, table

LatentFile = Annotated[Path, typer.Argument(help="A file of latents, such as out.lw.", show_default=False)]
Key = Annotated[Path | None, typer.Option("--key", help="A file with the key that signs latents.")]


def ask_question(
    wire: WireFolder,
    reader: Annotated[str, typer.Option(help="A reader that the wire has an adapter for.")],
    context: Annotated[list[Path], typer.Option(help="A text file; give several for several latents.")],
    question: Annotated[str, typer.Option("--question", "-q", help="What to ask.")],
    compression: Annotated[int | None, typer.Option(help="One that the wire serves; its own if not given.")] = None,
    as_json: Json = False,
) -> None:
    """Answer a question from latents, and from the text beside it."""
    from latentwire.wire import Wire
    from latentwire.wired import ask, read_contexts

    texts = read_contexts(context)
    opened = Wire.from_pretrained(str(wire))
    answers = ask(opened, opened.open_reader(reader), texts, question, compression)
    show_asked(question, answers, as_json)


def encode(
    wire: WireFolder,
    files: Annotated[list[Path], typer.Argument(help="Text files, one document each.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="The file of latents to write.")],
    compression: Annotated[int | None, typer.Option(help="One that the wire serves; its own if not given.")] = None,
    codec: Annotated[str | None, typer.Option(help="fp32, fp16, int8, int4 (if not given), or pq.")] = None,
    key: Key = None,
    force: Force = False,
    resume: Resume = False,
    as_json: Json = False,
) -> None:
    """Encode documents into a file of latents; a bad one is left out and listed."""
    from latentwire.documents import encode_documents
    from latentwire.wire import Wire

    if force:
        out.unlink(missing_ok=True)
        out.with_name(out.name + ".partial").unlink(missing_ok=True)
    secret, opened = read_key(key), Wire.from_pretrained(str(wire))
    with (bars := Bars(err)).bars:
        done = encode_documents(opened, files, out, compression, bars.task("encoding"), resume, secret, codec)
    before = f", {done.earlier} of them before" if done.earlier else ""
    sentence = (
        f"{out}: {done.documents} documents{before}, {done.source_tokens:,} tokens as {done.vectors:,} vectors,"
        f" {done.file_bytes:,} bytes"
    )
    say(asdict(done), sentence, as_json)
    if done.failed:
        for one in done.failed:
            err.print(f"left out: {one.reason}", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(2)


def codebooks(
    wire: WireFolder,
    files: Annotated[list[Path], typer.Argument(help="Text files to learn from.", show_default=False)],
    vector_bytes: Annotated[int, typer.Option(help="Bytes that a vector becomes; they divide its width.")] = 72,
    seed: Annotated[int, typer.Option(help="Of the learning.")] = 0,
    force: Force = False,
) -> None:
    """Learn codebooks for the codec pq from texts, and keep them in the wire's folder."""
    from latentwire.codebooks import learn
    from latentwire.documents import latent_vectors
    from latentwire.wire import Wire
    from latentwire.wire_folder import CODEBOOKS, write_codebooks
    from latentwire.wired import read_contexts

    opened = Wire.load(wire)
    if opened.codebooks is not None and not force:
        raise DataError(f"{wire} has codebooks already; add --force to replace them: what was sent in pq is then lost")
    with (bars := Bars(err)).bars:
        vectors = latent_vectors(opened, read_contexts(files), bars.task("encoding"))
    learnt = learn(vectors, vector_bytes, seed)
    write_codebooks(wire, learnt)
    say({"id": learnt.id, "bytes": vector_bytes}, f"{wire / CODEBOOKS}: {vector_bytes} bytes a vector", False)


def inspect(file: LatentFile, key: Key = None, as_json: Json = False) -> None:
    """List the latents of a file and check each."""
    rows, wrong = [], None
    try:
        for message in read_messages(file, read_key(key)):
            header = message.header
            rows.append(
                {
                    "document": message.name,
                    "tokens": header.source_tokens,
                    "vectors": header.vectors,
                    "width": header.width,
                    "codec": header.codec,
                    "bytes": header.length,
                    "space": header.space,
                    "signed": (header.signed and ("by this key" if key else "yes")) or "no",
                }
            )
    except LatentError as error:
        wrong = error
    if as_json:
        say(rows, "", True)
    elif rows:
        table(f"{file}: {len(rows)} latents", [{name: _shown(value) for name, value in row.items()} for row in rows])
    if wrong is not None:
        raise type(wrong)(f"after {len(rows)} latents of {file}: {wrong}")
    if not rows:
        raise DataError(f"expected latents in {file}, got an empty file")


def answer(
    file: LatentFile,
    reader: Annotated[str, typer.Option(help="A reader that the wire has an adapter for.")],
    question: Annotated[str, typer.Option("--question", "-q", help="What to ask.")],
    document: Annotated[
        list[str] | None, typer.Option(help="A document of the file; all, up to four, if not given.")
    ] = None,
    wire: Annotated[Path | None, typer.Option(help="The wire; the one that encoded here if not given.")] = None,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Answer a question from latents in a file: no text is read."""
    latents = latents_of(file, document or [], read_key(key))
    from latentwire.documents import wire_of
    from latentwire.wire import Wire

    opened = Wire.from_pretrained(str(wire)) if wire else wire_of(latents[0].space)
    loaded = opened.open_reader(reader)
    prefix = opened.prefix(latents, loaded)
    begin = time.perf_counter()
    text = loaded.answer(prefix, question).text
    positions, seconds = int(prefix.mask.sum()), time.perf_counter() - begin
    say(
        {"answer": text, "positions": positions, "answer_seconds": seconds}, f"{text}  [{positions} positions]", as_json
    )


def read_key(path: Path | None) -> bytes | None:
    """The key in a file, without white space around it; None where none is given."""
    if path is None:
        return None
    try:
        key = path.read_bytes().strip()
    except OSError as error:
        raise DataError(f"expected a key in {path}, got: {error}; give another --key") from None
    if len(key) < 16:
        raise DataError(
            f"expected a key of at least 16 bytes in {path}, got {len(key)}; make one with: openssl rand -hex 32"
        )
    return key


def _shown(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)
