"""A few short questions of different lengths, and what the tests on methods and readers make of them."""

import hashlib

import numpy as np
import torch

from latentwire.codecs import transmit
from latentwire.data import Example
from latentwire.reader import Inputs, Prefix

QUESTIONS = [
    Example("mill", "The river runs from the old mill to the sea.", "Where does the river run?", ("the sea",)),
    Example(
        "bridge",
        "The bridge was built in 1874 by Ruth, and the museum on its bank is known for paper, glass and salt. Since 1990"
        " it has been the only bridge in the village.",
        "Who built the bridge?",
        ("Ruth",),
    ),
    Example("honey", "Bees feed on lavender in summer.", "What do the bees feed on in summer?", ("lavender",)),
    Example(
        "town",
        "The town of Tarn has a harbour, a lighthouse and a Saturday market for honey.",
        "What is sold?",
        ("honey", "the honey"),
    ),
]


def counts_of(reader, scope="prompt", examples=QUESTIONS):
    """How often each token occurs in the examples' slots, `[V]`."""
    ids = [token for example in examples for token in reader.prompt(example, scope).slot.ids]
    return np.bincount(ids, minlength=reader.vocab_size)


def next_logits(reader, state):
    """Logits `[B, V]` of the token that follows what a state has read."""
    return reader.head(state.hidden)


def scored(reader, state, labels):
    """Logits `[B, A, V]` that predict each label."""
    return reader.head(reader.answer_states(state, labels))


def carried(method, prompts, reader) -> Prefix:
    """The prompts' slots after encoding, wire and decoding."""
    latents = method.encode([prompt.slot for prompt in prompts], reader)
    return method.prefix([transmit(latent)[0] for latent in latents], reader)


def true_inputs(reader, prompts) -> Inputs:
    """The prompts as the reader sees them with nothing compressed."""
    return reader.lay_in(prompts, Prefix.stack([reader.embed(torch.tensor(prompt.slot.ids)) for prompt in prompts]))


def checksum(reader) -> str:
    """Identity of all the reader's weights and buffers."""
    digest = hashlib.sha256()
    for name, tensor in sorted(reader.model.state_dict().items()):
        digest.update(name.encode() + tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
