"""`resolve`: every `auto` of a recipe, settled once before the first step and written into the resolved recipe."""

from collections.abc import Sequence

import torch
from accelerate.utils import find_executable_batch_size

from latentwire.config import ObjectiveSpec, ReaderSpec, Recipe, TrainSpec
from latentwire.corpus import Corpus
from latentwire.objectives import OBJECTIVES
from latentwire.reader import Prefix, Reader
from latentwire.reader.precision import dtype_name
from latentwire.schedule import planned_steps
from latentwire.team import team


def resolve(recipe: Recipe, corpora: Sequence[Corpus]) -> Recipe:
    """The recipe with every `auto` replaced by what was found; the readers of `corpora` are the recipe's."""
    first, *further = (_found(spec, corpus.reader) for spec, corpus in zip(recipe.readers, corpora, strict=True))
    train = settle(recipe.train, recipe.objective, corpora)
    return recipe.model_copy(update={"train": train, "reader": first, "further_readers": tuple(further)})


def _found(spec: ReaderSpec, reader: Reader) -> ReaderSpec:
    found = {"dtype": dtype_name(reader.dtype)}
    if spec.device_map is None:
        found["device"] = str(reader.device)
    return spec.model_copy(update=found)


def settle(spec: TrainSpec, objective: ObjectiveSpec, corpora: Sequence[Corpus]) -> TrainSpec:
    """The training's settings with precision, micro-batch and number of steps decided: what serves every reader."""
    found: dict[str, str | int] = {"steps": planned_steps(corpora[0], objective, spec)}
    if spec.precision == "auto":
        half = all(corpus.reader.dtype == torch.bfloat16 for corpus in corpora)
        found["precision"] = "bf16" if half else "fp32"
    if spec.micro_examples == "auto":
        largest = min(largest_micro_batch(corpus, objective, spec) for corpus in corpora)
        found["micro_examples"] = team().least(largest)
    if team().size > 1:  # a step's micro-batches are shared out
        found["micro_examples"] = min(
            int(found.get("micro_examples", spec.micro)), -(-spec.batch_examples // team().size)
        )
    return spec.model_copy(update=found)


def largest_micro_batch(corpus: Corpus, objective: ObjectiveSpec, spec: TrainSpec) -> int:
    """The most examples whose pass through the reader fits in memory, forward and backward: `batch_examples`, or fewer.

    Tried on the longest prompts of the corpus. The effective batch stays the same, by accumulation.
    """
    longest = sorted(corpus.prompts, key=lambda prompt: len(prompt.ids))[-spec.batch_examples :]
    if not any(OBJECTIVES[name].through_reader for name in objective.weights):
        return spec.batch_examples

    reader = corpus.reader

    def attempt(size: int) -> int:
        rows = [reader.embed(torch.tensor(prompt.slot.ids)) for prompt in longest[:size]]
        prefix = Prefix.stack(rows)
        inputs = reader.lay_in(longest[:size], Prefix(prefix.embeds.requires_grad_(), prefix.mask))
        reader.hidden_states(inputs).sum().backward()
        return size

    found: int = find_executable_batch_size(attempt, starting_batch_size=spec.batch_examples)()
    return found
