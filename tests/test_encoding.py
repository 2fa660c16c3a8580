"""Texts that wait to be encoded: together, each as alone, and nobody at another's cost."""

import asyncio
import threading

import numpy as np
import pytest

import latentwire as lw
from latentwire.errors import BusyError, MethodError
from latentwire.methods.wire import Wire as WireMethod
from latentwire.serve.encoding import MOST_CHARACTERS, Encodings
from latentwire.serve.engine import Engine
from latentwire.serve.work import Job

TEXTS = [f"The {name} lighthouse was built in {year}." for year, name in enumerate(("Velden", "Tarn", "Ostra"), 1870)]


@pytest.fixture(scope="module")
def wire(trained):
    return lw.Wire.load(trained)


@pytest.fixture
def read(monkeypatch):
    """How many texts each encoding took."""
    counts, encode = [], WireMethod.encode_windows

    def spy(self, texts, compression):
        counts.append(len(texts))
        return encode(self, texts, compression)

    monkeypatch.setattr(WireMethod, "encode_windows", spy)
    return counts


def encoded(wire, wanted, most_waiting=64, leave=()):
    """What becomes of `(text, compression, codec)` that are asked for while the engine is busy; those of `leave` go before it is not."""
    engine, held = Engine({}, most_waiting=most_waiting), threading.Event()
    begun = threading.Event()

    def hold():
        begun.set()
        return held.wait(30)

    async def ask():
        engine.submit(Job(hold))
        assert await asyncio.to_thread(begun.wait, 30)
        encodings = Encodings(wire, engine)
        tasks = [asyncio.create_task(encodings.latent(*one)) for one in wanted]
        await asyncio.sleep(0.05)  # all are in line
        for place in leave:
            tasks[place].cancel()
        await asyncio.sleep(0)
        held.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    try:
        return asyncio.run(ask())
    finally:
        assert engine.close()


def same(wire, latent, text, compression=None, codec=None):
    alone = wire.encode([text], compression, codec)[0]
    assert (latent.codec, latent.space, latent.source_tokens) == (alone.codec, alone.space, alone.source_tokens)
    np.testing.assert_allclose(latent.payload, alone.payload, atol=1e-2)  # features are bf16, and batches round apart


def test_texts_in_line_are_encoded_together_and_each_is_what_it_is_alone(wire, read):
    found = encoded(wire, [(text, 4, "fp32") for text in TEXTS])
    assert read == [len(TEXTS)]
    for latent, text in zip(found, TEXTS, strict=True):
        same(wire, latent, text, 4, "fp32")


def test_another_compression_or_codec_is_an_encoding_of_its_own(wire, read):
    wanted = [(TEXTS[0], 4, "fp32"), (TEXTS[1], 8, "fp32"), (TEXTS[2], 4, "fp32"), (TEXTS[0], 4, "int8")]
    found = encoded(wire, wanted)
    assert read == [2, 1, 1]
    for latent, one in zip(found, wanted, strict=True):
        same(wire, latent, *one)


def test_long_texts_are_not_made_to_wait_for_one_another(wire, read):
    long = " ".join(TEXTS * (MOST_CHARACTERS // len(" ".join(TEXTS))))
    found = encoded(wire, [(long, 16, "fp32"), (f"{long} It is.", 16, "fp32")])
    assert read == [1, 1]
    assert all(isinstance(one, lw.Latent) for one in found)


def test_a_text_that_is_refused_costs_the_others_nothing(wire):
    good, bad, other = encoded(wire, [(TEXTS[0], 4, "fp32"), ("", 4, "fp32"), (TEXTS[1], 4, "fp32")])
    assert isinstance(bad, MethodError)
    assert "expected text to encode" in str(bad)
    same(wire, good, TEXTS[0], 4, "fp32")
    same(wire, other, TEXTS[1], 4, "fp32")


def test_whoever_leaves_is_not_encoded_for_and_a_full_line_is_refused(wire, read):
    found = encoded(wire, [(text, 4, "fp32") for text in (*TEXTS, "More.")], most_waiting=3, leave=[1])
    assert [type(one) for one in found] == [lw.Latent, asyncio.CancelledError, lw.Latent, BusyError]
    assert read == [2]
