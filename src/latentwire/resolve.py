"""`resolve`: every `auto` of a recipe, settled once before the first step and written into the resolved recipe."""

import torch
from accelerate.utils import find_executable_batch_size

from latentwire.config import ObjectiveSpec, Recipe, TrainSpec
from latentwire.corpus import Corpus
from latentwire.objectives import OBJECTIVES
from latentwire.reader import Prefix, Reader
from latentwire.schedule import planned_steps


def resolve(recipe: Recipe, reader: Reader, corpus: Corpus) -> Recipe:
    """The recipe with every `auto` replaced by what was found."""
    found = {"dtype": str(reader.dtype).removeprefix("torch.")}
    if recipe.reader.device_map is None:
        found["device"] = str(reader.device)
    train = settle(recipe.train, recipe.objective, reader, corpus)
    return recipe.model_copy(update={"train": train, "reader": recipe.reader.model_copy(update=found)})


def settle(spec: TrainSpec, objective: ObjectiveSpec, reader: Reader, corpus: Corpus) -> TrainSpec:
    """The training's settings with precision, micro-batch and number of steps decided."""
    found: dict[str, str | int] = {"steps": planned_steps(corpus, objective, spec)}
    if spec.precision == "auto":
        found["precision"] = "bf16" if reader.dtype == torch.bfloat16 else "fp32"
    if spec.micro_examples == "auto":
        found["micro_examples"] = largest_micro_batch(reader, corpus, objective, spec)
    return spec.model_copy(update=found)


def largest_micro_batch(reader: Reader, corpus: Corpus, objective: ObjectiveSpec, spec: TrainSpec) -> int:
    """The most examples whose pass through the reader fits in memory, forward and backward: `batch_examples`, or fewer.

    Tried on the longest prompts of the corpus. The effective batch stays the same, by accumulation.
    """
    longest = sorted(corpus.prompts, key=lambda prompt: len(prompt.ids))[-spec.batch_examples :]
    if not any(OBJECTIVES[name].through_reader for name in objective.weights):
        return spec.batch_examples

    def attempt(size: int) -> int:
        rows = [reader.embed(torch.tensor(prompt.slot.ids)) for prompt in longest[:size]]
        prefix = Prefix.stack(rows)
        inputs = reader.lay_in(longest[:size], Prefix(prefix.embeds.requires_grad_(), prefix.mask))
        reader.hidden_states(inputs).sum().backward()
        return size

    found: int = find_executable_batch_size(attempt, starting_batch_size=spec.batch_examples)()
    return found
