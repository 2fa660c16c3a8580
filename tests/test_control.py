"""Latents that are the wrong ones."""

import numpy as np
import pytest
import torch

from latentwire.data import DATASETS
from latentwire.errors import MethodError
from latentwire.methods import METHODS
from latentwire.methods.among import Among
from latentwire.methods.control import Control
from tiny import tiny_reader

EXAMPLES = DATASETS["facts"](questions_per_passage=2).examples("train", 0, 8)


def slots_of(reader, scope="context"):
    return [reader.prompt(example, scope).slot for example in EXAMPLES]


@pytest.mark.parametrize("scope", ["context", "prompt"])
def test_every_shuffled_latent_is_that_of_another_context(scope):
    reader = tiny_reader("llama")
    slots = slots_of(reader, scope)
    own = METHODS["pooled"]().encode(slots, reader)
    found = Control().encode(slots, reader)
    for place, (latent, slot) in enumerate(zip(found, slots, strict=True)):
        source = [
            other
            for other, one in zip(slots, own, strict=True)
            if one.payload.shape == latent.payload.shape and np.array_equal(one.payload, latent.payload)
        ]
        assert source, f"latent {place} is that of no slot"
        assert all(other.context != slot.context for other in source)
        assert latent.source_tokens == len(slot.ids)


def test_one_context_alone_takes_an_earlier_one_and_is_refused_without():
    reader = tiny_reader("llama")
    slots = slots_of(reader)
    control = Control()
    with pytest.raises(MethodError, match="two contexts"):
        control.encode(slots[:2], reader)
    control.encode(slots[:4], reader)
    (latent,) = control.encode(slots[6:7], reader)
    assert not np.array_equal(latent.payload, METHODS["pooled"]().encode(slots[6:7], reader)[0].payload)


def test_zero_latents_are_as_many_as_the_own_ones():
    reader = tiny_reader("llama")
    slots = slots_of(reader)
    control = Control(of={"name": "pooled", "compression": 8}, kind="zero")
    for latent, own in zip(control.encode(slots, reader), METHODS["pooled"](8).encode(slots, reader), strict=True):
        assert latent.payload.shape == own.payload.shape
        assert not latent.payload.any()


def test_a_control_reads_with_the_weights_of_what_it_controls():
    reader = tiny_reader("llama")
    spec = {"name": "wire", "hidden": 8, "task_tokens": 1}
    wire = METHODS["wire"](hidden=8, task_tokens=1)
    wire.prepare(reader, np.ones(reader.vocab_size, dtype=np.int64))
    with torch.no_grad():
        for parameter in wire.module().parameters():
            parameter += 0.1
    control = Control(of=spec)
    control.load(wire.tensors(), reader)
    slots = slots_of(reader)
    latents = control.encode(slots, reader)
    assert torch.equal(control.prefix(latents, reader).embeds, wire.prefix(latents, reader).embeds)


def test_a_latent_among_four_is_there_once_with_three_others():
    reader = tiny_reader("llama")
    slots = slots_of(reader)
    contexts = {
        slot.context: latent for slot, latent in zip(slots, METHODS["pooled"]().encode(slots, reader), strict=True)
    }
    places = set()
    for slot, latent in zip(slots, Among().encode(slots, reader), strict=True):
        rest, order = latent.payload, []
        while len(rest):
            (context,) = [
                name for name, one in contexts.items() if np.array_equal(rest[: len(one.payload)], one.payload)
            ]
            order.append(context)
            rest = rest[len(contexts[context].payload) :]
        assert len(order) == len(set(order)) == 4
        places.add(order.index(slot.context))
    assert len(places) > 1
    with pytest.raises(MethodError, match=r"raise eval\.batch"):
        Among().encode(slots[:2], reader)
    among = Among()
    whole = among.encode(slots, reader)[0].payload.shape
    (last,) = among.encode(slots[:1], reader)
    assert last.payload.shape[1] == whole[1]
    assert len(last.payload) > len(contexts[slots[0].context].payload)
