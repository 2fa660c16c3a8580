"""What every method must do, whoever wrote it: run over the whole registry and every reader family."""

import hashlib

import numpy as np
import pytest
import torch

from latentwire.codecs import CODECS, transmit
from latentwire.corpus import Corpus
from latentwire.data import DATASETS
from latentwire.methods import METHODS
from tiny import FAMILIES, tiny_reader

EXAMPLES = DATASETS["facts"]().examples("train", 0, 5)
SCOPES = ("prompt", "context")


@pytest.fixture(params=FAMILIES, scope="module")
def reader(request):
    return tiny_reader(request.param)


@pytest.fixture(params=list(METHODS), scope="module")
def method(request, reader):
    made = METHODS[request.param]()
    made.prepare(reader, Corpus(reader, EXAMPLES, "prompt", 0).counts)
    return made


def slots_of(reader, scope):
    return [reader.prompt(example, scope).slot for example in EXAMPLES]


def weights_hash(reader):
    digest = hashlib.sha256()
    for parameter in reader.model.parameters():
        digest.update(parameter.detach().numpy().tobytes())
    return digest.hexdigest()


@pytest.mark.parametrize("scope", SCOPES)
def test_each_slot_becomes_one_latent_that_knows_its_source(method, reader, scope):
    slots = slots_of(reader, scope)
    latents = method.encode(slots, reader)
    assert [latent.source_tokens for latent in latents] == [len(slot.ids) for slot in slots]
    assert len({latent.space for latent in latents}) == 1


@pytest.mark.parametrize("scope", SCOPES)
def test_bytes_on_the_wire_are_those_of_the_codec(method, reader, scope):
    for latent in method.encode(slots_of(reader, scope), reader):
        received, count = transmit(latent)
        assert count == len(CODECS[latent.codec].encode(latent.payload))
        assert received.payload.shape == latent.payload.shape
        assert received.space == latent.space


@pytest.mark.parametrize("scope", SCOPES)
def test_prefix_has_the_readers_width_and_a_true_mask(method, reader, scope):
    latents = [transmit(latent)[0] for latent in method.encode(slots_of(reader, scope), reader)]
    prefix = method.prefix(latents, reader)
    assert prefix.embeds.shape[::2] == (len(latents), reader.width)
    assert prefix.mask.shape == prefix.embeds.shape[:2]
    assert prefix.mask.any(dim=1).tolist() == [row.shape[0] > 0 for row in prefix.rows()]
    assert torch.isfinite(prefix.embeds).all()


def test_prefix_of_a_batch_equals_one_by_one(method, reader):
    latents = [transmit(latent)[0] for latent in method.encode(slots_of(reader, "prompt"), reader)]
    for row, latent in zip(method.prefix(latents, reader).rows(), latents, strict=True):
        torch.testing.assert_close(row, method.prefix([latent], reader).rows()[0], atol=1e-5, rtol=1e-5)


def test_saved_and_loaded_method_gives_identical_prefixes(method, reader):
    loaded = type(method)()
    loaded.load({name: tensor.clone() for name, tensor in method.tensors().items()}, reader)
    slots = slots_of(reader, "prompt")
    latents, again = method.encode(slots, reader), loaded.encode(slots, reader)
    for one, other in zip(latents, again, strict=True):
        np.testing.assert_array_equal(one.payload, other.payload)
    assert torch.equal(method.prefix(latents, reader).embeds, loaded.prefix(again, reader).embeds)


def test_reader_weights_never_move(method, reader):
    before = weights_hash(reader)
    latents = [transmit(latent)[0] for latent in method.encode(slots_of(reader, "prompt"), reader)]
    prompts = [reader.prompt(example, "prompt") for example in EXAMPLES]
    inputs = reader.lay_in(prompts, method.prefix(latents, reader))
    if any(parameter.requires_grad for parameter in method.module().parameters()):
        reader.hidden_states(inputs).square().mean().backward()
        assert all(parameter.grad is None for parameter in reader.model.parameters())
    reader.generate(reader.prefill(inputs), 2)
    assert weights_hash(reader) == before
