"""Which words of a text a language model did not see coming: names, numbers, what grammar does not fill in.

    token ids ─ frozen LM ─▶ how surprising each token was ─┐
            └── words ──────────────────────────────────────┴─▶ how much each word counts ─▶ all tokens, those to be kept first

Tokens are ranked by their word, not alone. Of a rare name the first token surprises most and the last ones hardly, for a model that reads them
one after the other; of a reader that gets the first alone they are lost, and it skips what lies between two tokens that stand
side by side. Where the model stops too early to foresee a token, how rare the token is takes the place of its surprise.
"""

from functools import lru_cache

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from latentwire.reader import Reader

LONGEST_WORD = 8  # tokens; scripts without spaces are cut there
SENTENCEPIECE_SPACE = "\u2581"
PART_OF_LETTER = "\ufffd"


def by_surprise(reader: Reader, ids: Tensor, surprise: Tensor) -> Tensor:
    """Places `[T]` of the tokens `ids [T]`, the first to be kept first, by the surprise `[T]` of their words."""
    word = words_of(reader, ids.tolist())
    return first_to_keep(word_surprise(surprise, word), word)


def first_to_keep(scores: Tensor, word: Tensor) -> Tensor:
    """Places `[T]` of all tokens, the first to be kept first: word by word as they score `[N]`, each word in its order."""
    return scores[word].argsort(descending=True, stable=True)


def word_surprise(surprise: Tensor, word: Tensor) -> Tensor:
    """How much each word counts, `[N]`: the sum of its n tokens' `surprise [T]`, in nats, divided by the square root of n.

    Source: Li et al. 2023, Selective Context (arXiv 2310.06201, section 3.1), ranks phrases by their mean self-information; the square
    root, between mean and sum, is ours.
    """
    sizes = word.bincount()
    return torch.zeros(len(sizes)).index_add_(0, word, surprise.cpu()) / sizes.sqrt()


def words_of(reader: Reader, ids: list[int]) -> Tensor:
    """The number of each token's word, `[T]`, rising from 0. Numbers are words; a punctuation mark is one of its own."""
    numbers: list[int] = []
    size, before = 0, ""
    for token in ids:
        text, spaced = _shown(reader.tokenizer, token)
        goes_on = not spaced and _in_word(text[:1]) and (_in_word(before[-1:]) or before.isspace())
        size = size + 1 if numbers and goes_on and size < LONGEST_WORD else 1
        numbers.append(numbers[-1] + (size == 1) if numbers else 0)
        before = text
    return torch.tensor(numbers, dtype=torch.long)


def surprise_of(reader: Reader, last: Tensor, ids: Tensor) -> Tensor:
    """How unlikely each of `ids [T]` was after those before it, in nats, by last hidden states `[T, D]`; endless for the first."""
    found = [torch.full((1,), torch.inf)]
    size = reader.logits_at_once
    for start in range(0, len(ids) - 1, size):
        due = ids[1:][start : start + size]
        logits = reader.head(last[:-1][start : start + size]).float().cpu()
        found.append(torch.nn.functional.cross_entropy(logits, due, reduction="none"))
    return torch.cat(found)


def rarity_of(ids: Tensor) -> Tensor:
    """How rare each of `ids [T]` is, in nats up to a constant, where no model says how likely it was: the logarithm of its number.

    Byte-pair merges number tokens as they were found, common ones first, and frequency falls with rank by a power near one (Zipf 1949).
    """
    return ids.float().log1p()


@lru_cache(maxsize=2**18)
def _shown(tokenizer: PreTrainedTokenizerBase, token: int) -> tuple[str, bool]:
    """A token's text, and whether a space comes before what one sees of it."""
    text = str(tokenizer.decode([token]))
    return text, text[:1].isspace() or str(tokenizer.convert_ids_to_tokens(token)).startswith(SENTENCEPIECE_SPACE)


def _in_word(letter: str) -> bool:
    return letter.isalnum() or letter == PART_OF_LETTER
