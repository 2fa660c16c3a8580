"""Which tokens are kept first: whole words, the least expected ones."""

import math

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from latentwire.surprise import LONGEST_WORD, by_surprise, words_of
from tiny import FAMILIES, tiny_reader

MARKED = "Zurela| Calane|,| of| Genève|,| opened| her| well|-|known| mill| in| 1894|."  # where words end
SENTENCE = MARKED.replace("|", "")


class Spoken:
    """A reader of which only the tokenizer is there."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer


def sentencepiece():
    """A tokenizer of single letters that marks spaces as SentencePiece does, and loses them where it decodes a token alone."""
    letters = {letter: number for number, letter in enumerate(["<unk>", *sorted(set(SENTENCE) - {" "}), "\u2581"])}
    marked = {f"\u2581{letter}": len(letters) + number for number, letter in enumerate("ZCoGhmi1w")}
    merges = [("\u2581", token[1]) for token in marked]
    whole = Tokenizer(models.BPE(vocab=letters | marked, merges=merges, unk_token="<unk>"))
    whole.pre_tokenizer = pre_tokenizers.Metaspace()
    whole.decoder = decoders.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=whole, unk_token="<unk>")


def ids_of(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def spelt(tokenizer, ids, numbers):
    """The text of each word, by the numbers of its tokens."""
    words = [[] for _ in range(int(numbers[-1]) + 1)]
    for token, number in zip(ids, numbers.tolist(), strict=True):
        words[number].append(token)
    return [tokenizer.decode(word, clean_up_tokenization_spaces=False) for word in words]


@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_belong_to_the_words_that_a_person_sees(family):
    reader = tiny_reader(family)
    ids = ids_of(reader.tokenizer, SENTENCE)
    numbers = words_of(reader, ids)
    assert len(ids) > 1.5 * MARKED.count("|")
    assert "|".join(spelt(reader.tokenizer, ids, numbers)) == MARKED


def test_a_tokenizer_that_marks_spaces_as_sentencepiece_does_shows_them_too():
    tokenizer = sentencepiece()
    ids = ids_of(tokenizer, SENTENCE)
    assert tokenizer.decode(ids[: len("Zurela")]) == "Zurela"
    words = spelt(tokenizer, ids, words_of(Spoken(tokenizer), ids))
    assert [word.strip() for word in words] == [word.strip() for word in MARKED.split("|")]


def test_a_space_that_is_a_token_begins_the_number_after_it():
    reader = tiny_reader("llama")
    ids = [token for part in ("in", " ", "1", "8", ".") for token in ids_of(reader.tokenizer, part)]
    assert spelt(reader.tokenizer, ids, words_of(reader, ids)) == ["in", " 18", "."]


def test_what_has_no_spaces_is_cut_into_words_of_a_few_tokens():
    reader = tiny_reader("llama")
    ids = ids_of(reader.tokenizer, "x" * (2 * LONGEST_WORD + 3))
    assert words_of(reader, ids).bincount().tolist() == [LONGEST_WORD, LONGEST_WORD, len(ids) - 2 * LONGEST_WORD]


def test_words_are_kept_whole_and_in_the_order_of_their_surprise():
    reader = tiny_reader("llama")
    ids = [token for part in (" the", "b", "c", " in", " to", "f") for token in ids_of(reader.tokenizer, part)]
    assert words_of(reader, ids).tolist() == [0, 0, 0, 1, 2, 2]
    order = by_surprise(reader, torch.tensor(ids), torch.tensor([9.0, 0.0, 0.0, 6.0, 5.0, 3.0]))
    assert 9 / math.sqrt(3) < 8 / math.sqrt(2) < 6  # and 9 alone would have been the first
    assert order.tolist() == [3, 4, 5, 0, 1, 2]


def test_an_endless_surprise_comes_first():
    reader = tiny_reader("llama")
    ids = ids_of(reader.tokenizer, SENTENCE)
    surprise = torch.linspace(0.0, 9.0, len(ids))
    surprise[0] = torch.inf
    first = int((words_of(reader, ids) == 0).sum())
    assert by_surprise(reader, torch.tensor(ids), surprise)[:first].tolist() == list(range(first))
