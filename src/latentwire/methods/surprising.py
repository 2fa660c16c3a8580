"""The words that count most, and none of the others: what choosing well buys without any training.

context ─ encoder: how much does each word count? ─▶ those that count most, in their order, as text ─ wire ─▶ the reader's tokens
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from latentwire.encoder import Encoder, spaced_layers
from latentwire.latent import Latent
from latentwire.methods import METHODS, Method
from latentwire.methods.text import text_latent, text_prefix, tokens_of, with_context
from latentwire.methods.wire import Wire
from latentwire.reader import Prefix, Reader, Slot
from latentwire.reader.load import open_reader
from latentwire.wire_folder import read_wire


@METHODS.register("surprising_tokens")
@dataclass
class SurprisingTokens(Method):
    """Words kept by their self-information (`surprise.py`), or as a trained wire keeps them (`keeper.py`).

    Source: Li et al. 2023, Selective Context (arXiv 2310.06201, section 3.1).

    Attributes:
        scorer: The model that scores, named as readers are; the reader itself if None.
        compression: One of so many tokens is kept, rounded up.
        more: Tokens that are kept beside those.
        wire: Folder of a trained wire whose encoder scores, by what it has learnt: what the wire's latents start from, as text.
    """

    scorer: str | None = None
    compression: float = 4.0
    more: int = 0
    wire: str | None = None

    def __post_init__(self) -> None:
        self._known: dict[tuple[str, str], Slot] = {}
        self._encoder: Encoder | None = None

    def encode(self, slots: Sequence[Slot], reader: Reader) -> list[Latent]:
        """Text of each slot with what is kept of its context, at most `ceil(S / compression) + more` of the reader's tokens."""
        encoder = self._scores_with(reader)
        for slot in slots:
            if (slot.text, reader.fingerprint) not in self._known:
                self._known[slot.text, reader.fingerprint] = self._kept(slot, encoder, reader)
        return [text_latent(self._known[slot.text, reader.fingerprint], slot) for slot in slots]

    def prefix(self, latents: Sequence[Latent], reader: Reader) -> Prefix:
        """Embedded tokens of the text."""
        return text_prefix(latents, reader)

    def _scores_with(self, reader: Reader) -> Encoder:
        if self._encoder is not None and (self.wire, self.scorer) != (None, None):
            return self._encoder
        if self.wire is not None:
            files = read_wire(Path(self.wire))
            trained = Wire(**files.fields())
            trained.load(files.tensors, None)
            self._encoder = trained.source
        else:
            scorer = reader if self.scorer in (None, reader.source) else open_reader(str(self.scorer))
            self._encoder = Encoder(scorer, spaced_layers(scorer))
        return self._encoder

    def _kept(self, slot: Slot, encoder: Encoder, reader: Reader) -> Slot:
        windows = encoder.windows(slot.context)
        ids = torch.tensor([token for window in windows for token in window])
        budget = math.ceil(tokens_of(slot, reader, encoder.reader.source) / self.compression) + self.more
        scores = torch.cat([one for window in windows for one in encoder.scores([window])])
        kept = scores.argsort(descending=True, stable=True)[:budget].sort().values
        text = str(encoder.reader.tokenizer.decode(ids[kept].tolist(), clean_up_tokenization_spaces=False))
        text, _ = reader.prompter.shorten(reader.prompter.slot(text).ids, budget)
        return with_context(slot, text, reader)
