"""LatentWire: compress a context once, send it as bytes, let frozen language models answer from it.

The package itself, codecs and the byte format need numpy and xxhash only; what needs torch is imported on first use.
"""

from importlib import import_module
from typing import Any

from latentwire.errors import LatentWireError
from latentwire.latent import Latent

__version__ = "0.1.0"
__all__ = [
    "DATASETS",
    "METHODS",
    "Client",
    "Example",
    "Latent",
    "LatentWireError",
    "Limits",
    "Message",
    "Reader",
    "Store",
    "Wire",
    "answer",
    "compress",
    "fit",
    "load_reader",
    "pack",
    "unpack",
    "unpack_all",
]

_LAZY = {
    "Client": "latentwire.client",
    "DATASETS": "latentwire.data",
    "METHODS": "latentwire.methods",
    "Example": "latentwire.data",
    "Limits": "latentwire.wire_header",
    "Message": "latentwire.wire_format",
    "Reader": "latentwire.reader",
    "Store": "latentwire.store",
    "Wire": "latentwire.wire",
    "answer": "latentwire.api",
    "compress": "latentwire.api",
    "fit": "latentwire.api",
    "load_reader": "latentwire.reader.load",
    "pack": "latentwire.wire_format",
    "unpack": "latentwire.wire_format",
    "unpack_all": "latentwire.wire_format",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'latentwire' has no attribute '{name}'")
    return getattr(import_module(_LAZY[name]), name)
