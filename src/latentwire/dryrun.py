"""What a recipe would do, without weights and without training: shapes from the reader's configuration alone."""

import torch

from latentwire.config import Recipe
from latentwire.data import Example
from latentwire.dryrun_wire import wire_plan
from latentwire.errors import MethodError, RecipeError
from latentwire.memory import BYTES, activations, bytes_per_parameter, gib
from latentwire.methods import METHODS
from latentwire.methods.compressors import Basis
from latentwire.methods.decoders import DECODERS
from latentwire.methods.per_token import PerToken
from latentwire.methods.wire import Wire
from latentwire.pipeline import training_examples
from latentwire.reader.cache import cache_bytes
from latentwire.reader.load import meta_model
from latentwire.reader.prompts import ANCHOR, INSTRUCTION, WORKED_EXAMPLES
from latentwire.schedule import count_steps
from latentwire.specs import build

TEXT_BYTES_PER_TOKEN = 4.0


def plan(recipe: Recipe) -> dict[str, str | int | float]:
    """Parameters, steps and a memory estimate. Tokens are estimated at four bytes each; nothing else is guessed.

    Reads the recipe's training data and the reader's configuration: neither weights nor tokenizer.

    Raises:
        ReaderError: The reader's configuration is neither here nor on the hub.
        DataError: The training data cannot be read.
        RecipeError: Another method than `per_token` and `wire`.
        MethodError: A code as wide as the embedding, or wider.
    """
    method, examples = build(METHODS, recipe.method), training_examples(recipe)
    tokens = estimated_tokens(recipe, examples)
    if isinstance(method, Wire):
        return {**wire_plan(recipe, method, tokens, len(examples)), **_work(recipe, examples, tokens)}
    model = meta_model(recipe.reader.name)
    vocab, wide = model.get_input_embeddings().weight.shape
    reader_parameters = sum(parameter.numel() for parameter in model.parameters())
    narrow, trained = _decoder(recipe, wide, vocab)
    memory = {
        "reader memory": reader_parameters * bytes_per_parameter(recipe.reader),
        "decoder, gradient and optimiser memory": 16.0 * trained,
        "code tables": 2.0 * vocab * narrow * 4,
        "activations of one micro-batch (estimate)": activations(recipe, model, tokens / len(examples)),
        "key-value cache of one evaluation batch (estimate)": _cache(recipe, model, tokens / len(examples)),
    }
    return {
        "reader parameters": reader_parameters,
        "embedding table": f"{vocab} x {wide}",
        "code width d": narrow,
        "compression": round(wide / narrow, 3),
        "trained parameters": trained,
        "trained over table parameters": round(trained / (vocab * wide), 4),
        **_work(recipe, examples, tokens),
        **{name: gib(size) for name, size in memory.items()},
        "all of it at once": gib(sum(memory.values())),
    }


def _work(recipe: Recipe, examples: list[Example], tokens: int) -> dict[str, str | int | float]:
    return {
        "training examples": len(examples),
        "training tokens (estimate)": tokens,
        "steps": planned(recipe, len(examples), tokens),
    }


def estimated_tokens(recipe: Recipe, examples: list[Example]) -> int:
    """Tokens of the slots that training draws from, at four UTF-8 bytes a token: of the prompts, or of the contexts."""
    text = sum(len(example.context.encode()) for example in examples)
    if recipe.eval.scopes[0] == "prompt":
        shots = WORKED_EXAMPLES[: recipe.reader.shots]
        template = f"{INSTRUCTION}{ANCHOR}{''.join(part for shot in shots for part in (*shot, ANCHOR))}"
        text += sum(len(example.question.encode()) + len(template.encode()) for example in examples)
    return round(text / TEXT_BYTES_PER_TOKEN)


def planned(recipe: Recipe, examples: int, tokens: int) -> int | str:
    """Steps of the recipe, or what decides them."""
    if recipe.train.seconds is not None:
        return f"as many as fit in {recipe.train.seconds:g} s"
    return count_steps(tokens, examples, recipe.objective, recipe.train)


def _decoder(recipe: Recipe, wide: int, vocab: int) -> tuple[int, int]:
    method = build(METHODS, recipe.method)
    if not isinstance(method, PerToken):
        raise RecipeError(f"expected method per_token or wire for a dry run, got {recipe.method['name']}")
    narrow = round(wide / method.compression) if method.width is None else method.width
    if not 1 <= narrow < wide:
        raise MethodError(
            f"expected a code narrower than the embedding, 1 <= d < D = {wide}, got d = {narrow}; change"
            " method.compression"
        )
    variances = torch.ones(narrow)  # not on the meta device: some decoders read its values
    with torch.device("meta"):
        basis = Basis(torch.empty(wide), torch.empty(wide, narrow), variances, 1.0)
        decoder = DECODERS[method.decoder](basis, torch.empty(vocab, narrow), None)  # type: ignore[arg-type]
    return narrow, sum(parameter.numel() for parameter in decoder.parameters() if parameter.requires_grad)


def _cache(recipe: Recipe, model: torch.nn.Module, tokens_per_example: float) -> float:
    """Bytes of keys and values of an evaluation batch."""
    positions = tokens_per_example + recipe.eval.max_new_tokens
    return recipe.eval.batch * cache_bytes(model.config, positions, BYTES[recipe.reader.dtype])
