"""What a recipe of a wire would do, from the readers' configurations alone: trained parameters, and memory per process."""

from typing import Any

import torch

from latentwire.config import ReaderSpec, Recipe
from latentwire.encoder import MAX_LAYERS
from latentwire.features import span_bytes
from latentwire.memory import BYTES, activations, bytes_per_parameter, gib
from latentwire.methods.adapter import Adapter
from latentwire.methods.latents import Latents
from latentwire.methods.wire import Wire
from latentwire.reader.cache import cache_bytes
from latentwire.reader.load import meta_model

SHARDS = 8


def wire_plan(recipe: Recipe, method: Wire, tokens: int, examples: int) -> dict[str, str | int | float]:
    """Parameters and memory of a wire's training; `tokens` of context in `examples` examples.

    Memory per process is given as each holds everything (DDP), and with the frozen models shared out over `SHARDS` (FSDP2).
    """
    models = {spec.name: (spec, meta_model(spec.name)) for spec in recipe.readers}
    source = method.encoder or recipe.reader.name
    encoder = models[source][1] if source in models else meta_model(source)
    kept = len(method.layers or range(min(MAX_LAYERS, encoder.config.num_hidden_layers + 1)))
    with torch.device("meta"):
        latents = Latents(_width(encoder), 2 * kept, method.hidden)
        adapters = {name: _adapter(encoder, model, method) for name, (_, model) in models.items()}
    trained = {"encoder's latents": _count(latents)} | {
        f"adapter of {name}": _count(one) for name, one in adapters.items()
    }
    weights = {name: _count(model) * bytes_per_parameter(spec) for name, (spec, model) in models.items()}
    if source not in models:
        weights[source] = _count(encoder) * BYTES[recipe.reader.dtype]
    positions = tokens / examples / method.compressions[0] + method.task_tokens
    text = tokens / examples + method.task_tokens  # what the tuned text rungs read
    passing = max(_passing(recipe, spec, model, text) for spec, model in models.values())
    moving = 16.0 * sum(trained.values()) + passing
    layers_of = [_count(model.get_decoder().layers) * bytes_per_parameter(spec) for spec, model in models.values()]
    shared = sum(weights.values()) - sum(layers_of) * (1 - 1 / SHARDS)
    features = tokens / method.compressions[0] * span_bytes(kept, _width(encoder))
    return {
        **{f"parameters of {name}": _count(model) for name, (_, model) in models.items()},
        **{f"trained parameters, {name}": count for name, count in trained.items()},
        "reader positions per context (estimate)": round(positions),
        "features on the disk (estimate, at most)": gib(features),
        **{f"frozen weights of {name}": gib(size) for name, size in weights.items()},
        "trained, gradient, optimiser and activations": gib(moving),
        "memory per process, everything in each (DDP)": gib(sum(weights.values()) + moving),
        f"memory per process, frozen layers over {SHARDS} (FSDP2)": gib(shared + moving),
    }


def _passing(recipe: Recipe, spec: ReaderSpec, model: Any, positions: float) -> float:
    """Activations of a micro-batch of one reader, and the cache of an evaluation batch."""
    cache = cache_bytes(model.config, positions + recipe.eval.max_new_tokens, BYTES[spec.dtype])
    return activations(recipe, model, positions) + recipe.eval.batch * cache


def _adapter(encoder: Any, model: Any, method: Wire) -> Adapter:
    narrow, wide = _width(encoder), _width(model)
    return Adapter(
        torch.empty(narrow, wide), torch.empty(wide), torch.empty(method.task_tokens, wide), method.hidden, 1.0
    )


def _width(model: Any) -> int:
    return int(model.get_input_embeddings().weight.shape[1])


def _count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
