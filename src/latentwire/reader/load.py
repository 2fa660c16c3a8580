"""From a name to a frozen causal LM: packaged reader, `.gguf` file, Hugging Face folder or hub id, tried in this order.

    name ──▶ folder with config, tokenizer, safetensors ──▶ checks ──▶ dtype ──▶ Loaded

A tokenizer without a pad token uses EOS as pad; padding is masked everywhere, so its id changes no number.
"""

import importlib.util
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import torch
from huggingface_hub import snapshot_download
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from latentwire.errors import ReaderError
from latentwire.reader import Layout, Reader
from latentwire.reader.checkpoint import (
    Refusing,
    causal_config,
    fingerprint_of,
    first_line,
    load_tokenizer,
    load_weights,
    no_progress_bars,
)
from latentwire.reader.gguf import config_of, converted, gguf_file
from latentwire.reader.packaged import PACKAGED, ModelInfo, list_models
from latentwire.reader.precision import choose_dtype, dtype_name
from latentwire.reader.prompts import Style
from latentwire.registry import nearest

__all__ = ["Loaded", "ModelInfo", "list_models", "load_model", "load_reader", "meta_model"]

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
HUB_FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]
HUB_EXTRAS = ["original/*", "consolidated*"]


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """A frozen causal LM and where it came from.

    Attributes:
        model: In evaluation mode, no parameter requires a gradient.
        tokenizer: Has EOS and pad.
        source: The folder that was read.
        fingerprint: 16 hex digits, the same for the same weights whatever the dtype.
        dtype_reason: Why the model computes in its dtype, in words.
    """

    model: Any
    tokenizer: Any
    source: str
    fingerprint: str
    dtype_reason: str


def load_reader(name: str, style: Style = "plain", shots: int = 2, dtype: str = "auto") -> Reader:
    """A frozen reader by packaged name, hub id, folder or `.gguf` path.

    Raises:
        ReaderError: It cannot be found or does not behave as a frozen causal LM must.
    """
    loaded = load_model(name, dtype=dtype)
    return Reader(loaded.model, loaded.tokenizer, name, Layout(style, shots), loaded.fingerprint)


_OPEN: WeakValueDictionary[str, Reader] = WeakValueDictionary()


def remember(reader: Reader) -> Reader:
    """Let `open_reader` find this reader by the name that it was loaded by."""
    _OPEN[reader.source] = reader
    return reader


def open_reader(name: str) -> Reader:
    """A reader that this process holds already under that name (`remember`), else a new one."""
    return _OPEN.get(name) or load_reader(name)


def open_encoder(name: str, dtype: str = "auto") -> tuple[Reader, torch.dtype]:
    """A reader to encode with, and the dtype that its weights are rounded to: one that this process holds already, if it has that.

    A new one computes in single precision with the rounded weights on a CPU that is not faster in half precision: many
    take several times as long for the same sums, and what it sees differs by no more than such sums do from CPU to CPU.
    """
    held = _OPEN.get(name)
    if held is not None and dtype in ("auto", dtype_name(held.dtype)):
        return held, held.dtype
    loaded = load_model(name, dtype=dtype)
    rounded, device = loaded.model.dtype, loaded.model.device
    if rounded != torch.float32:
        faster, _ = choose_dtype(
            lambda one: load_model(name, dtype=dtype_name(one)).model, loaded.fingerprint, str(device)
        )
        loaded.model.to(torch.float32 if faster == torch.float32 else rounded)
    return Reader(loaded.model, loaded.tokenizer, name, Layout("plain", 0), loaded.fingerprint), rounded


def load_model(
    name: str,
    *,
    dtype: str = "auto",
    device: str = "auto",
    device_map: str | None = None,
    quantization: dict[str, object] | None = None,
) -> Loaded:
    """A frozen causal LM by packaged name, `.gguf` path, Hugging Face folder or hub id.

    Args:
        name: Which model.
        dtype: "float32", "bfloat16", "float16", or "auto": bfloat16 on a GPU that has it, the faster one on a CPU.
        device: A torch device, or "auto": the GPU when there is one.
        device_map: Passed to transformers; places the model instead of `device`.
        quantization: Fields of `BitsAndBytesConfig`, such as `{"load_in_8bit": True}`.

    Raises:
        ReaderError: Nothing is found under the name, or it is not a complete causal LM with an EOS token.
    """
    place = _device(device)
    options: dict[str, Any] = {}
    if quantization is not None:
        options["quantization_config"] = _quantization(quantization)
    if device_map is not None or quantization is not None:
        options["device_map"] = device_map or {"": place}
    folder = _folder(name)
    config = causal_config(folder, name)
    tokenizer = load_tokenizer(folder, name)
    fingerprint = fingerprint_of(folder, name, config, quantization)

    def load(choice: torch.dtype) -> Any:
        model = load_weights(folder, name, choice, options)
        return (model if options else model.to(place)).eval().requires_grad_(False)

    if dtype != "auto":
        if dtype not in DTYPES:
            raise ReaderError(f"expected dtype auto, {', '.join(DTYPES)}, got '{dtype}'")
        chosen, reason = DTYPES[dtype], "asked for"
    elif options and place == "cpu":
        chosen, reason = torch.float32, "auto: float32, because nothing is measured with device_map or quantization"
    else:
        chosen, reason = choose_dtype(load, fingerprint, place)
    return Loaded(load(chosen), tokenizer, str(folder), fingerprint, reason)


@cache
def token_counter(name: str) -> Callable[[str], int]:
    """How many tokens a reader's tokenizer makes of a text, without the reader.

    Raises:
        ReaderError: It cannot be found.
    """
    tokenizer = load_tokenizer(_folder(name), name)
    return lambda text: len(
        tokenizer(text, add_special_tokens=False, verbose=False, split_special_tokens=True)["input_ids"]
    )


def meta_model(path_or_id: str) -> Any:
    """The model without weights, on the meta device: real shapes and parameter counts from the configuration alone.

    Args:
        path_or_id: As for `load_model`, or the path of a `config.json`.
    """
    path = _path(path_or_id)
    if path_or_id in PACKAGED:
        config = config_of(PACKAGED[path_or_id].file())
    elif path.suffix.lower() == ".gguf" and path.is_file():
        config = config_of(gguf_file(path))
    elif path.is_file():
        config = causal_config(path, path_or_id)
    else:
        config = causal_config(_folder(path_or_id, ["config.json"]), path_or_id)
    expected = f"reader '{path_or_id}': expected a configuration that transformers can build a model from"
    with Refusing(expected), torch.device("meta"):
        return AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)


def _device(device: str) -> str:
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ReaderError(
            f"expected a device that this machine has, got '{device}': {first_line(error)}; use auto"
        ) from error
    return device


def _quantization(fields: dict[str, object]) -> Any:
    known = [name for name in inspect.signature(BitsAndBytesConfig).parameters if name != "kwargs"]
    unknown = [name for name in fields if name not in known]
    if unknown:
        raise ReaderError(f"unknown quantization field '{unknown[0]}': {nearest(unknown[0], known)}")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ReaderError("quantization needs a package that is not installed; run: pip install bitsandbytes")
    try:
        return BitsAndBytesConfig(**fields)
    except (TypeError, ValueError) as error:
        raise ReaderError(f"expected fields of BitsAndBytesConfig, got {fields}: {first_line(error)}") from error


def _path(name: str) -> Path:
    with Refusing(f"expected a reader's name or the path of one in '{name[:60]}'"):
        path = Path(name).expanduser()
        path.exists()  # raises where the name is too long for a path
        return path


def _folder(name: str, hub_files: list[str] = HUB_FILES) -> Path:
    path = _path(name)
    if name in PACKAGED:
        return converted(PACKAGED[name].file())
    if path.suffix.lower() == ".gguf" and path.is_file():
        return converted(gguf_file(path))
    if path.is_dir():
        return path
    advice = f"give the path of a .gguf file or of a Hugging Face folder, or a packaged name ({nearest(name, list(PACKAGED))})"
    if path.exists() or path.is_absolute() or path.suffix.lower() == ".gguf":
        raise ReaderError(f"expected a reader at '{name}', got no folder and no .gguf file there; {advice}")
    try:
        with no_progress_bars():
            return Path(snapshot_download(name, allow_patterns=hub_files, ignore_patterns=HUB_EXTRAS))
    except (OSError, ValueError) as error:
        raise ReaderError(
            f"reader '{name}' not found here, and not fetched from the hub ({first_line(error)}); {advice}"
        ) from error
