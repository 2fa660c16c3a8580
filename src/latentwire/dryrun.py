"""What a recipe would do, without weights and without training: shapes from the reader's configuration alone."""

import torch

from latentwire.config import Recipe, build
from latentwire.data import Example
from latentwire.errors import RecipeError
from latentwire.methods import METHODS
from latentwire.methods.compressors import Basis
from latentwire.methods.decoders import DECODERS
from latentwire.methods.per_token import PerToken
from latentwire.objectives import OBJECTIVES
from latentwire.pipeline import training_examples
from latentwire.reader.load import meta_model

BYTES = {"auto": 2, "bfloat16": 2, "float16": 2, "float32": 4}
TEXT_BYTES_PER_TOKEN = 4.0
TEMPLATE_TOKENS = 180


def plan(recipe: Recipe) -> dict[str, str | int | float]:
    """Parameters, steps and a memory estimate. Tokens are estimated at four bytes each; nothing else is guessed."""
    model = meta_model(recipe.reader.name)
    vocab, wide = model.get_input_embeddings().weight.shape
    reader_parameters = sum(parameter.numel() for parameter in model.parameters())
    examples = training_examples(recipe)
    tokens = estimated_tokens(examples)
    narrow, trained = _decoder(recipe, wide)
    reader_bytes = reader_parameters * BYTES[recipe.reader.dtype]
    decoder_bytes = trained * 16
    code_bytes = 2 * vocab * narrow * 4
    return {
        "reader parameters": reader_parameters,
        "embedding table": f"{vocab} x {wide}",
        "code width d": narrow,
        "compression": round(wide / narrow, 3),
        "trained parameters": trained,
        "trained over table parameters": round(trained / (vocab * wide), 4),
        "training examples": len(examples),
        "training tokens (estimate)": tokens,
        "steps": planned(recipe, len(examples), tokens),
        "reader memory": _gib(reader_bytes),
        "decoder, gradient and optimiser memory": _gib(decoder_bytes),
        "code tables": _gib(code_bytes),
        "activations of one micro-batch (estimate)": _gib(_activations(recipe, model, tokens / len(examples))),
    }


def estimated_tokens(examples: list[Example]) -> int:
    """Tokens of the laid-out prompts, at four UTF-8 bytes a token plus the template."""
    text = sum(len(example.context.encode()) + len(example.question.encode()) for example in examples)
    return round(text / TEXT_BYTES_PER_TOKEN) + TEMPLATE_TOKENS * len(examples)


def planned(recipe: Recipe, examples: int, tokens: int) -> int | str:
    """Steps of the recipe, as `train.planned_steps` counts them."""
    spec = recipe.train
    if spec.seconds is not None:
        return f"as many as fit in {spec.seconds:g} s"
    if spec.steps is not None:
        return spec.steps
    by_tokens = all(OBJECTIVES[name].needs == "tokens" for name in recipe.objective.weights)
    epoch = -(-tokens // spec.batch_tokens) if by_tokens else -(-examples // spec.batch_examples)
    return max(1, round(spec.epochs * epoch))


def _decoder(recipe: Recipe, wide: int) -> tuple[int, int]:
    method = build(METHODS, recipe.method)
    if not isinstance(method, PerToken):
        raise RecipeError(f"expected method per_token for a dry run, got {recipe.method['name']}")
    narrow = round(wide / method.compression) if method.width is None else method.width
    with torch.device("meta"):
        basis = Basis(torch.empty(wide), torch.empty(wide, narrow), torch.ones(narrow), 1.0)
        decoder = DECODERS[method.decoder](basis, torch.empty(0, narrow), None)  # type: ignore[arg-type]
    return narrow, sum(parameter.numel() for parameter in decoder.parameters() if parameter.requires_grad)


def _activations(recipe: Recipe, model: torch.nn.Module, tokens_per_example: float) -> float:
    """Bytes kept for the backward pass through the reader: about 34 values of width D a token and layer.

    Source: Korthikanti et al. 2022 (arXiv 2205.05198, equation 2), without the attention matrix, which is not kept.
    """
    if all(OBJECTIVES[name].needs == "tokens" for name in recipe.objective.weights):
        return 0.0
    config = model.config
    micro = recipe.train.micro_examples
    rows = micro if isinstance(micro, int) else recipe.train.batch_examples
    layers, wide = int(config.num_hidden_layers), int(config.hidden_size)  # type: ignore[union-attr,arg-type]
    return 34.0 * rows * tokens_per_example * layers * wide * BYTES[recipe.reader.dtype] / 2


def _gib(size: float) -> str:
    return f"{size / 2**30:.2f} GiB"
