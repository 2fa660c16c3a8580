"""Estimates of memory before anything is loaded: what a parameter takes, what a backward pass keeps."""

import torch

from latentwire.config import ReaderSpec, Recipe
from latentwire.objectives import OBJECTIVES

BYTES = {"auto": 2, "bfloat16": 2, "float16": 2, "float32": 4}


def activations(recipe: Recipe, model: torch.nn.Module, tokens_per_example: float) -> float:
    """Bytes kept for the backward pass through the reader: about 34 values of width D a token and layer.

    Source: Korthikanti et al. 2022 (arXiv 2205.05198, equation 2), without the attention matrix, which is not kept.
    """
    if not any(OBJECTIVES[name].through_reader for name in recipe.objective.weights):
        return 0.0
    config = model.config
    micro = recipe.train.micro_examples
    rows = micro if isinstance(micro, int) else recipe.train.batch_examples
    layers, wide = int(config.num_hidden_layers), int(config.hidden_size)  # type: ignore[union-attr,arg-type]
    return 34.0 * rows * tokens_per_example * layers * wide * BYTES[recipe.reader.dtype] / 2


def bytes_per_parameter(spec: ReaderSpec) -> float:
    """Bytes of a frozen weight as the reader is loaded."""
    quantization = spec.quantization or {}
    if quantization.get("load_in_4bit"):
        return 0.5
    return 1.0 if quantization.get("load_in_8bit") else float(BYTES[spec.dtype])


def gib(size: float) -> str:
    """Bytes in words."""
    return f"{size / 2**30:.2f} GiB"
