"""Summaries that one model writes and another reads."""

import math

import pytest

from latentwire.codecs import transmit
from latentwire.data import DATASETS
from latentwire.methods.relay import Relay
from tiny import FAMILIES, save_tiny, tiny_reader

EXAMPLES = DATASETS["facts"]().examples("train", 0, 4)


@pytest.mark.parametrize("scope", ["context", "prompt"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_summary_is_what_the_writer_answers_cut_to_the_readers_budget(family, scope):
    reader = tiny_reader(family)
    slots = [reader.prompt(example, scope).slot for example in EXAMPLES]
    for slot, latent in zip(slots, Relay(compression=8, more=3).encode(slots, reader), strict=True):
        text = transmit(latent)[0].payload.tobytes().decode(errors="replace")
        (alone,) = Relay(compression=8, more=3).encode([slot], reader)
        longer = alone.payload.tobytes().decode(errors="replace")
        assert text.startswith(longer[:-4]) or longer.startswith(text[:-4])  # a token may end within a character
        assert slot.context not in text
        assert latent.source_tokens == len(slot.ids)
        if scope == "context":
            assert 0 < len(reader.prompter.slot(text).ids) <= math.ceil(len(slot.ids) / 8) + 3


def test_the_writer_may_be_another_model_than_the_reader(tmp_path):
    reader, folder = tiny_reader("llama"), save_tiny(tmp_path / "tiny-gemma", "gemma3")
    slots = [reader.prompt(example, "context").slot for example in EXAMPLES]
    own = Relay().encode(slots, reader)
    other = Relay(writer=str(folder)).encode(slots, reader)
    assert [latent.payload.tobytes() for latent in own] != [latent.payload.tobytes() for latent in other]
