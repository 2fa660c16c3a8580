"""A Hugging Face folder's parts, each checked as it is read: configuration, tokenizer, weights, fingerprint.

Only safetensors are read: a pickle can run code. Weights that a checkpoint lacks are an error, never random values.
"""

import hashlib
import json
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from latentwire.errors import ReaderError

BROKEN_INPUT = (
    ArithmeticError, AttributeError, ImportError, LookupError, MemoryError, OSError, RuntimeError, TypeError, ValueError,
    SafetensorError, StrictDataclassError, struct.error,
)  # fmt: skip
CAUSAL = ("ForCausalLM", "LMHeadModel")
SHAPING = (
    "model_type", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "head_dim", "vocab_size", "rope_parameters", "layer_types", "sliding_window",
    "tie_word_embeddings",
)  # fmt: skip

# transformers swaps class attributes while it loads: two threads at once leave models whose weights are never tied.
LOADING = threading.Lock()


def causal_config(path: Path, name: str) -> Any:
    """The configuration, of a decoder-only causal LM."""
    with Refusing(f"reader '{name}': expected a config.json that transformers knows"):
        config = AutoConfig.from_pretrained(path)
    kinds = list(config.architectures or [])
    if config.is_encoder_decoder:
        raise ReaderError(
            f"reader '{name}': expected a decoder-only causal LM, got the encoder-decoder {config.model_type}"
        )
    if type(config) not in AutoModelForCausalLM._model_mapping or (kinds and not kinds[0].endswith(CAUSAL)):
        raise ReaderError(f"reader '{name}': expected a causal LM, got {', '.join(kinds) or config.model_type}")
    return config


def load_tokenizer(folder: Path, name: str) -> Any:
    """The tokenizer, with EOS and pad (EOS where it has none)."""
    with Refusing(f"reader '{name}': expected a tokenizer next to its weights"):
        tokenizer = AutoTokenizer.from_pretrained(folder)
    if tokenizer.eos_token_id is None:
        raise ReaderError(f"reader '{name}': expected a tokenizer with an EOS token, got none; set eos_token in it")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_weights(folder: Path, name: str, dtype: torch.dtype, options: dict[str, Any]) -> Any:
    """The model in `dtype`, with every weight from the checkpoint; `options` go to transformers."""
    with LOADING, Refusing(f"reader '{name}': expected weights that transformers can load"), no_progress_bars():
        model, report = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, use_safetensors=True, output_loading_info=True, **options
        )
    if report["missing_keys"]:
        missing = ", ".join(sorted(report["missing_keys"])[:3])
        raise ReaderError(f"reader '{name}': expected all weights, got none for {missing}; fetch the model again")
    return model


def fingerprint_of(folder: Path, name: str, config: Any, quantization: dict[str, object] | None) -> str:
    """Identity of the weights: what shapes the model, every tensor's first row, and the embedding table in full."""
    shaping = {key: getattr(config, key, None) for key in SHAPING} | {"quantization": quantization}
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ReaderError(f"reader '{name}': expected safetensors weights in {folder}, got none; convert its weights")
    parts: dict[str, bytes] = {}
    for path in files:
        try:
            with safe_open(path, framework="pt") as tensors:
                for key in tensors.keys():  # noqa: SIM118, not a dict
                    shape = tensors.get_slice(key).get_shape()
                    whole = not shape or shape[0] == config.vocab_size
                    values = tensors.get_tensor(key) if whole else tensors.get_slice(key)[:1]
                    content = values.float().contiguous().numpy().tobytes()
                    parts[f"{key} {shape}"] = hashlib.sha256(content).digest()
        except (OSError, SafetensorError) as error:
            raise ReaderError(
                f"reader '{name}': expected whole safetensors, got a broken {path.name}: {error}"
            ) from error
    digest = hashlib.sha256(json.dumps(shaping, sort_keys=True, default=str).encode())
    for key in sorted(parts):
        digest.update(key.encode() + parts[key])
    return digest.hexdigest()[:16]


class Refusing:
    """Around a call into transformers, gguf or tokenizers: what they raise on broken input becomes a `ReaderError`.

    Args:
        expected: The message up to ", got: ...".
    """

    def __init__(self, expected: str) -> None:
        self.expected = expected

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        # The tokenizers library raises `Exception` itself, which is compared here so that no subclass passes with it.
        if error is not None and (kind is Exception or isinstance(error, BROKEN_INPUT)):
            raise ReaderError(f"{self.expected}, got: {first_line(error)}") from error


def first_line(error: BaseException) -> str:
    """The first line of an error's message with what it announces, or the error's type where it has no message."""
    lines = (str(error).strip() or type(error).__name__).splitlines()
    said = f"{lines[0]} {lines[1].strip()}" if lines[0].endswith(":") and len(lines) > 1 else lines[0]
    return f"unknown {said}" if isinstance(error, KeyError) else said


@contextmanager
def no_progress_bars() -> Iterator[None]:
    """Transformers draws no progress bars inside."""
    drawn = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if drawn:
            transformers_logging.enable_progress_bar()
