"""The command `serve`: a wire, its readers and a store behind OpenAI's routes."""

from pathlib import Path
from typing import Annotated

import typer
import uvicorn

from latentwire.cli_wire import Key, read_key
from latentwire.errors import DataError, ReaderError
from latentwire.printing import err
from latentwire.reader.gguf import cache_dir
from latentwire.serve.app import Server, Settings, build_app
from latentwire.store import Store
from latentwire.wire import Wire
from latentwire.wire_header import Limits

MIB = 2**20


def serve(
    wire: Annotated[Path, typer.Option(help="The folder of a trained wire.")],
    reader: Annotated[
        list[str], typer.Option(help="A reader that the wire has an adapter for; give several for several.")
    ],
    store: Annotated[Path | None, typer.Option(help="The file that keeps latents; in the cache if not given.")] = None,
    host: Annotated[str, typer.Option(help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Where to listen.")] = 8000,
    api_keys: Annotated[
        Path | None, typer.Option(help="A file with an API key in each line; anyone is let in if not given.")
    ] = None,
    key: Key = None,
    body_mib: Annotated[int, typer.Option(help="The most that a request's body may be, in MiB.")] = 16,
    vectors: Annotated[int, typer.Option(help="The most vectors that a latent may have.")] = 65_536,
    running: Annotated[int, typer.Option(help="Answers that a reader makes at a time.")] = 16,
    waiting: Annotated[int, typer.Option(help="Requests that wait before one more is refused with 429.")] = 64,
    drain_seconds: Annotated[float, typer.Option(help="How long a shutdown waits for what runs.")] = 60.0,
) -> None:
    """Serve latents and answers as OpenAI's clients ask for them; /playground shows it."""
    settings = Settings(
        body_bytes=body_mib * MIB,
        limits=Limits(message_bytes=body_mib * MIB, vectors=vectors),
        keys=_api_keys(api_keys),
        secret=read_key(key),
        most_running=running,
        most_waiting=waiting,
        drain_seconds=drain_seconds,
    )
    kept = Store(store or cache_dir() / "latents.db", settings.limits)
    opened = Wire.from_pretrained(str(wire))
    readers = {}
    for name in reader:
        loaded = opened.open_reader(name)
        if loaded.name in readers:
            raise ReaderError(f"expected readers of different names, got '{loaded.name}' twice; leave one out")
        readers[loaded.name] = loaded
    app = build_app(Server(opened, readers, kept, settings))
    err.print(
        f"serving {', '.join(readers)} at http://{host}:{port}/v1, to be tried at http://{host}:{port}/playground",
        soft_wrap=True,
    )
    uvicorn.run(app, host=host, port=port, log_level="warning", timeout_graceful_shutdown=int(drain_seconds))


def _api_keys(path: Path | None) -> tuple[str, ...]:
    if path is None:
        return ()
    try:
        keys = tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"expected API keys in {path}, one in each line, got: {error}; give another --api-keys"
        ) from None
    if not keys:
        raise DataError(f"expected API keys in {path}, one in each line, got none; write one, or leave --api-keys out")
    return keys
