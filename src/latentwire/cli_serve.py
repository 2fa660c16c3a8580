"""The command `serve`: a wire, its readers and a store behind OpenAI's routes."""

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

import typer

from latentwire.cli_wire import Key, read_key
from latentwire.errors import DataError, ServerError
from latentwire.wire_header import Limits

MIB = 2**20
NEEDED: dict[str, tuple[str, ...]] = {"transformers": ("fastapi", "prometheus_client", "uvicorn")}
NEEDED["vllm"] = (*NEEDED["transformers"], "httpx")


def serve(
    wire: Annotated[Path, typer.Option(help="The folder of a trained wire.")],
    reader: Annotated[
        list[str], typer.Option(help="A reader that the wire has an adapter for; give several for several.")
    ],
    store: Annotated[Path | None, typer.Option(help="The file that keeps latents; in the cache if not given.")] = None,
    engine: Annotated[
        Literal["transformers", "vllm"], typer.Option(help="What computes answers: this process, or vLLM servers.")
    ] = "transformers",
    vllm_url: Annotated[
        list[str] | None, typer.Option(help="A reader's vLLM server; one for each --reader, in their order.")
    ] = None,
    host: Annotated[str, typer.Option(help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Where to listen.")] = 8000,
    api_keys: Annotated[
        Path | None, typer.Option(help="A file with an API key in each line; anyone is let in if not given.")
    ] = None,
    key: Key = None,
    body_mib: Annotated[int, typer.Option(min=1, help="The most that a request's body may be, in MiB.")] = 16,
    vectors: Annotated[int, typer.Option(min=1, help="The most vectors that a latent may have.")] = 65_536,
    latents: Annotated[int, typer.Option(min=1, help="The most latents that a request may bring.")] = 64,
    running: Annotated[int, typer.Option(min=1, help="Answers that a reader makes at a time.")] = 16,
    waiting: Annotated[int, typer.Option(min=1, help="Requests that wait before one more is refused.")] = 64,
    drain_seconds: Annotated[float, typer.Option(min=0, help="How long a shutdown waits for what runs.")] = 60.0,
) -> None:
    """Serve latents and answers as OpenAI's clients ask for them; /playground shows it."""
    _expect_installed(engine)
    if (engine == "vllm") != bool(vllm_url):
        raise ServerError("expected --engine vllm and --vllm-url together, got one without the other; give both")
    from latentwire.reader.gguf import cache_dir
    from latentwire.serve.app import Settings
    from latentwire.serve.run import run

    settings = Settings(
        body_bytes=body_mib * MIB,
        limits=Limits(message_bytes=body_mib * MIB, messages=latents, vectors=vectors),
        keys=_api_keys(api_keys),
        secret=read_key(key),
        most_running=running,
        most_waiting=waiting,
        drain_seconds=drain_seconds,
    )
    run(wire, reader, store or cache_dir() / "latents.db", settings, vllm_url or (), host, port)


def _expect_installed(engine: str) -> None:
    missing = [name for name in NEEDED[engine] if find_spec(name) is None]
    if missing:
        raise ServerError(
            f"expected {', '.join(missing)} to be installed for the server, found none; run: pip install"
            " 'latentwire[models,server]'"
        )


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
