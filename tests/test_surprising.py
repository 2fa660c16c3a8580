"""Words kept by their self-information: the right ones, in their order, within the budget."""

import math

import pytest
import torch
import torch.nn.functional as F

from latentwire.data import DATASETS
from latentwire.methods.surprising import SurprisingTokens
from latentwire.reader.load import load_reader
from latentwire.surprise import by_surprise
from tiny import FAMILIES, save_tiny, tiny_reader

EXAMPLES = DATASETS["facts"]().examples("train", 0, 4)


def kept_texts(method, reader, scope="context"):
    slots = [reader.prompt(example, scope).slot for example in EXAMPLES]
    latents = method.encode(slots, reader)
    texts = [latent.payload.tobytes().decode(errors="replace") for latent in latents]
    return slots, texts, method.prefix(latents, reader).rows()


@pytest.mark.parametrize("compression", [2, 4, 16])
def test_the_least_likely_words_are_kept_in_their_order(compression):
    reader = tiny_reader("llama")
    slots, texts, rows = kept_texts(SurprisingTokens(compression=compression), reader)
    for slot, text, row in zip(slots, texts, rows, strict=True):
        ids = torch.tensor(slot.ids)
        logits = reader.model(torch.tensor([[reader.tokenizer.bos_token_id, *slot.ids]])).logits[0, :-1].float()
        surprise = F.cross_entropy(logits, ids, reduction="none")
        budget = math.ceil(len(ids) / compression)
        expected = reader.tokenizer.decode(ids[by_surprise(reader, ids, surprise)[:budget].sort().values].tolist())
        assert expected.startswith(text)
        assert 0 < len(row) <= budget


@pytest.mark.parametrize("family", FAMILIES)
def test_another_readers_scores_count_its_tokens_and_the_readers_positions_stay_within(family, tmp_path):
    reader, scorer = tiny_reader(family), load_reader(str(save_tiny(tmp_path / "scorer", "llama")), dtype="float32")
    method = SurprisingTokens(scorer=scorer.source, compression=4, more=3)
    slots, _, rows = kept_texts(method, reader)
    for slot, row in zip(slots, rows, strict=True):
        assert len(row) <= math.ceil(len(scorer.prompter.slot(slot.context).ids) / 4) + 3


def test_the_rest_of_a_prompt_stays_as_it_was():
    reader = tiny_reader("llama")
    slots, texts, _ = kept_texts(SurprisingTokens(), reader, "prompt")
    for slot, text in zip(slots, texts, strict=True):
        assert text.startswith(slot.pieces[0])
        assert text.endswith(slot.pieces[2])
