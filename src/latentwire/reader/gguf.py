"""GGUF files as Hugging Face folders: dequantised once to fp32, cached with checksums, rebuilt when broken.

    GgufFile ──converted──▶ cache_dir()/models/<sha256 of the file>-<format>/ {config, tokenizer, safetensors, manifest}

Weights are kept in fp32 because dequantised values cannot be written in bf16 without loss.
"""

import hashlib
import io
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from gguf import GGUFReader
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from latentwire.errors import ReaderError
from latentwire.reader.checkpoint import LOADING, Refusing, causal_config, no_progress_bars

SUPPORTED = ("gemma3", "llama", "qwen2")
FORMAT_VERSION = 1
MANIFEST = "manifest.json"

log = logging.getLogger("latentwire")


@dataclass(frozen=True, slots=True)
class GgufFile:
    """A GGUF file that may still lie in parts.

    Attributes:
        name: How messages call it.
        sha256: Checksum of the whole file, in hex.
        whole: Gives the path of the whole file; may write it into the scratch folder it is handed.
    """

    name: str
    sha256: str
    whole: Callable[[Path], Path]


def cache_dir() -> Path:
    """Where converted models and measurements are kept: `$LATENTWIRE_CACHE`, or `~/.cache/latentwire`."""
    chosen = os.environ.get("LATENTWIRE_CACHE")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "latentwire"


def gguf_file(path: Path) -> GgufFile:
    """The GGUF file at `path`."""
    with Refusing(f"{path}: expected a GGUF file that can be read"):
        return GgufFile(str(path), sha256(path), lambda scratch: path)


def sha256(path: Path) -> str:
    """Checksum of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_converted(sha: str) -> bool:
    """Whether a GGUF file with this checksum has been converted. The copy is verified when it is loaded, not here."""
    return (_home(sha) / MANIFEST).exists()


def converted(source: GgufFile) -> Path:
    """The file as a Hugging Face folder: from the cache when it is there and whole, else converted now.

    Raises:
        ReaderError: The file is corrupt, of an unsupported architecture, or the cache cannot be written.
    """
    home = _home(source.sha256)
    try:
        home.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(home.with_name(f"{home.name}.lock")):
            damage = _damage(home)
            if damage is None:
                return home
            if home.exists():
                log.warning("cached copy of %s is damaged (%s); converting it again", source.name, damage)
            for leftover in home.parent.glob(f".{home.name}-*"):
                shutil.rmtree(leftover)
            log.info("converting %s, once, about a minute", source.name)
            with tempfile.TemporaryDirectory(prefix=f".{home.name}-", dir=home.parent) as scratch:
                folder = _convert(source, Path(scratch))
                shutil.rmtree(home, ignore_errors=True)
                folder.replace(home)
    except (OSError, SafetensorError) as error:
        raise ReaderError(f"cannot write the model cache {home.parent}: {error}; set LATENTWIRE_CACHE") from error
    return home


def config_of(source: GgufFile) -> Any:
    """The configuration in the file's header, as transformers reads it; nothing is converted."""
    if is_converted(source.sha256):
        return causal_config(_home(source.sha256), source.name)
    with tempfile.TemporaryDirectory() as scratch:
        path = source.whole(Path(scratch))
        check_architecture(path, source.name)
        with Refusing(f"{source.name}: expected a GGUF model that transformers can read"):
            return AutoConfig.from_pretrained(path.parent, gguf_file=path.name)


def check_architecture(path: Path, name: str) -> str:
    """The architecture that the header names.

    Raises:
        ReaderError: It is not one of `SUPPORTED`, or the file is not a whole GGUF file.
    """
    with Refusing(f"{name}: expected a whole GGUF file (this one is truncated or corrupt; fetch it again)"):
        field = _Header(path).get_field("general.architecture")
    found = str(field.contents()) if field is not None else "none"
    if found not in SUPPORTED:
        raise ReaderError(
            f"{name}: expected a GGUF file of architecture {', '.join(SUPPORTED)}, got '{found}';"
            " convert it to a Hugging Face folder with other tools and give that folder"
        )
    return found


class _Header(GGUFReader):  # type: ignore[misc]
    """Stops at the end of the file; gguf itself reads on there, for ever where a corrupt array length says 2^60."""

    def _get(self, offset: int, dtype: Any, count: int = 1, override_order: Any = None) -> Any:
        found = super()._get(offset, dtype, count, override_order)
        if len(found) < count:
            raise ValueError("the file ends early")
        return found


def _home(sha: str) -> Path:
    return cache_dir() / "models" / f"{sha[:16]}-{FORMAT_VERSION}"


def _damage(home: Path) -> str | None:
    """What is wrong with a cached folder; None when every file is as it was written."""
    try:
        files = json.loads((home / MANIFEST).read_text())["files"]
        for name, (size, checksum) in files.items():
            path = home / name
            if path.stat().st_size != size:
                return f"{name} has {path.stat().st_size} bytes instead of {size}"
            if sha256(path) != checksum:
                return f"{name} has another checksum"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"no usable manifest or file: {type(error).__name__}"
    return None


def _convert(source: GgufFile, scratch: Path) -> Path:
    path = source.whole(scratch)
    check_architecture(path, source.name)
    folder = scratch / "folder"
    # The bar that transformers draws while it dequantises has no switch.
    readable = Refusing(f"{source.name}: expected a GGUF model that transformers can read")
    with LOADING, readable, no_progress_bars(), redirect_stderr(io.StringIO()):
        tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
        model, report = AutoModelForCausalLM.from_pretrained(
            path.parent, gguf_file=path.name, dtype=torch.float32, output_loading_info=True
        )
    if report["missing_keys"]:
        raise ReaderError(
            f"{source.name}: expected all weights, got none for {', '.join(sorted(report['missing_keys'])[:3])}"
        )
    # Saved as plain fp32: transformers would otherwise refuse to write what it has just dequantised.
    delattr(model.config, "quantization_config")
    model.hf_quantizer = None
    model.is_quantized = False
    with no_progress_bars():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    files = {path.name: (path.stat().st_size, sha256(path)) for path in sorted(folder.iterdir())}
    manifest = {"format": FORMAT_VERSION, "gguf": source.name, "sha256": source.sha256, "files": files}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1))
    return folder
