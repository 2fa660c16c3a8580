"""The few calls that a Python user starts with: load a reader, fit a method, answer from compressed prompts."""

from collections.abc import Sequence
from typing import Any

import torch

from latentwire.codecs import transmit
from latentwire.config import ObjectiveSpec, TrainSpec, check
from latentwire.corpus import Corpus
from latentwire.data import Example
from latentwire.errors import RecipeError
from latentwire.latent import Latent
from latentwire.methods import Method, decoder_parameters
from latentwire.reader import Reader, Scope, Slot
from latentwire.resolve import settle
from latentwire.train import Hooks, start
from latentwire.train import fit as fit_loop


def fit(
    method: Method, reader: Reader, examples: Sequence[Example], objective: dict[str, float] | None = None, **train: Any
) -> Method:
    """Prepare a method on the examples' prompts and train what it has to train; keywords are the recipe's `train` fields.

    Returns:
        The same method, trained in place.

    Raises:
        RecipeError: An unknown keyword or a wrong value.
    """
    goal = check(ObjectiveSpec, {"weights": objective or {"reconstruct": 1.0}}, "objective")
    asked = check(TrainSpec, train, "fit")
    if asked.start_from is not None:
        raise RecipeError("fit: start_from is for recipes; call method.load with the weights and then train")
    corpus = Corpus(reader, examples, "prompt", asked.seed)
    method.prepare(reader, corpus.counts)
    if decoder_parameters(method):
        spec = settle(asked, goal, [corpus])
        start(method, [corpus], spec, Hooks())
        fit_loop(method, [corpus], goal, spec)
    return method


def compress(method: Method, reader: Reader, example: Example, scope: Scope = "prompt") -> tuple[Latent, int]:
    """The example's slot as its receiver gets it, and the payload bytes that crossed the wire."""
    slot: Slot = reader.prompt(example, scope).slot
    return transmit(method.encode([slot], reader)[0])


@torch.no_grad()
def answer(
    method: Method, reader: Reader, example: Example, latent: Latent, scope: Scope = "prompt", max_new_tokens: int = 32
) -> str:
    """The reader's greedy answer from a latent and, in scope "context", the question as text."""
    prompt = reader.prompt(example, scope)
    state = reader.prefill(reader.lay_in([prompt], method.prefix([latent], reader)), max_new_tokens)
    return reader.generate(state, max_new_tokens)[0].text
