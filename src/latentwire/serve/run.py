"""From options to a server that listens: wire, readers, store and engine, opened in that order, and closed by a signal."""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import uvicorn

from latentwire.errors import ReaderError, ServerError
from latentwire.printing import err
from latentwire.reader import Reader
from latentwire.serve.app import Server, Settings, build_app
from latentwire.serve.work import Working
from latentwire.store import Store
from latentwire.wire import Wire


def run(
    wire: Path, readers: Sequence[str], store: Path, settings: Settings, vllm: Sequence[str], host: str, port: int
) -> None:
    """Serve until a signal comes, then finish what runs.

    Args:
        wire: A wire's folder.
        readers: Readers by name, path or hub id.
        store: The file that keeps latents.
        settings: What the operator decides.
        vllm: A vLLM server for each reader, in their order; this process answers where there are none.
        host: Where to listen.
        port: Where to listen.

    Raises:
        WireError, ReaderError, StoreError, ServerError: As opening those does.
    """
    kept = Store(store, settings.limits)
    opened = Wire.from_pretrained(str(wire))
    loaded = _loaded(opened, readers)
    server = Server(opened, loaded, kept, settings, _engine(loaded, vllm, settings))
    here = f"http://{host}:{port}"
    err.print(f"serving {', '.join(loaded)} at {here}/v1, to be tried at {here}/playground", soft_wrap=True)
    patience = int(settings.drain_seconds)
    with contextlib.suppress(KeyboardInterrupt):  # how uvicorn hands Ctrl-C on, once all is finished
        uvicorn.run(build_app(server), host=host, port=port, log_level="warning", timeout_graceful_shutdown=patience)


def _loaded(wire: Wire, names: Sequence[str]) -> dict[str, Reader]:
    readers: dict[str, Reader] = {}
    for name in names:
        reader = wire.open_reader(name)
        called = Path(reader.name).name  # a folder is called by its last part
        if called in readers:
            raise ReaderError(f"expected readers of different names, got '{called}' twice; leave one out")
        readers[called] = reader
    return readers


def _engine(readers: Mapping[str, Reader], urls: Sequence[str], settings: Settings) -> Working | None:
    """The engine that vLLM servers make up; none where there are none, for then the server makes its own."""
    if not urls:
        return None
    from latentwire.serve.vllm import VllmEngine  # needs httpx, which no other engine does

    if len(urls) != len(readers):
        raise ServerError(
            f"expected a --vllm-url for each --reader, got {len(urls)} for {len(readers)}; give them in the same order"
        )
    return VllmEngine(readers, dict(zip(readers, urls, strict=True)), settings.most_running, settings.most_waiting)
