"""The words that a model did not see coming, and none of the others: what choosing well buys without any training.

context ─ scorer: how unlikely was each word? ─▶ the most unlikely, in their order, as text ─ wire ─▶ the reader's tokens
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from latentwire.latent import Latent
from latentwire.methods import METHODS, Method
from latentwire.methods.text import text_latent, text_prefix, tokens_of, with_context
from latentwire.reader import Prefix, Reader, Slot
from latentwire.reader.inputs import pad_left
from latentwire.reader.load import open_reader
from latentwire.surprise import by_surprise, surprise_of

WINDOW = 512  # tokens that the scorer reads at once


@METHODS.register("surprising_tokens")
@dataclass
class SurprisingTokens(Method):
    """Words kept by their self-information (`surprise.py`).

    Source: Li et al. 2023, Selective Context (arXiv 2310.06201, section 3.1).

    Attributes:
        scorer: The model that scores, named as readers are; the reader itself if None.
        compression: One of so many tokens is kept, rounded up.
        more: Tokens that are kept beside those.
    """

    scorer: str | None = None
    compression: float = 4.0
    more: int = 0

    def __post_init__(self) -> None:
        self._known: dict[tuple[str, str], Slot] = {}

    def encode(self, slots: Sequence[Slot], reader: Reader) -> list[Latent]:
        """Text of each slot with what is kept of its context, at most `ceil(S / compression) + more` of the reader's tokens."""
        scorer = reader if self.scorer in (None, reader.source) else open_reader(str(self.scorer))
        for slot in slots:
            if (slot.text, reader.fingerprint) not in self._known:
                self._known[slot.text, reader.fingerprint] = self._kept(slot, scorer, reader)
        return [text_latent(self._known[slot.text, reader.fingerprint], slot) for slot in slots]

    def prefix(self, latents: Sequence[Latent], reader: Reader) -> Prefix:
        """Embedded tokens of the text."""
        return text_prefix(latents, reader)

    @torch.no_grad()
    def _kept(self, slot: Slot, scorer: Reader, reader: Reader) -> Slot:
        ids = torch.tensor(scorer.prompter.slot(slot.context).ids, dtype=torch.long)
        budget = math.ceil(tokens_of(slot, reader, scorer.source) / self.compression) + self.more
        scores = [_scores(scorer, window) for window in ids.split(WINDOW)]
        kept = by_surprise(scorer, ids, torch.cat(scores))[:budget].sort().values
        text = str(scorer.tokenizer.decode(ids[kept].tolist(), clean_up_tokenization_spaces=False))
        text, _ = reader.prompter.shorten(reader.prompter.slot(text).ids, budget)
        return with_context(slot, text, reader)


def _scores(scorer: Reader, ids: torch.Tensor) -> torch.Tensor:
    begin = [] if scorer.tokenizer.bos_token_id is None else [scorer.tokenizer.bos_token_id]
    ids = torch.cat([torch.tensor(begin, dtype=torch.long), ids])
    inputs = pad_left([scorer.embed(ids)])
    return surprise_of(scorer, scorer.hidden_states(inputs)[0], ids)[len(begin) :]
