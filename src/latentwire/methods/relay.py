"""One model writes a summary, another reads it: what passing text between models costs and keeps.

context ─ the writer's greedy summary, as many tokens as a latent has vectors ─▶ text ─ wire ─▶ the reader's tokens
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from latentwire.latent import Latent
from latentwire.methods import METHODS, Method, id_tensor
from latentwire.methods.text import text_latent, text_prefix, tokens_of, with_context
from latentwire.reader import Prefix, Prompt, Reader, Slot
from latentwire.reader.load import open_reader
from latentwire.remembered import recall

ASKED = "Summarise the passage in a few sentences. Keep its names and numbers."
_MARK = "\u241epassage\u241e"


@dataclass(frozen=True, slots=True)
class _Work:
    """A context and the most tokens of the reader that its summary may take."""

    slot: Slot
    budget: int


@METHODS.register("relay")
@dataclass
class Relay(Method):
    """A summary of the context in its place. Its writing counts as encoding.

    Attributes:
        writer: The model that writes, named as readers are; the reader itself if None.
        compression: How many times fewer tokens than the context the summary has.
        more: Tokens that it may have beside those.
        counted_by: Name of the reader whose tokens of the context are counted; the reader itself if None.
    """

    writer: str | None = None
    compression: float = 4.0
    more: int = 0
    counted_by: str | None = None

    def __post_init__(self) -> None:
        self._writers: dict[str, Reader] = {}

    def encode(self, slots: Sequence[Slot], reader: Reader) -> list[Latent]:
        """Text of each slot with a summary as its context, at most `ceil(S / compression) + more` of the reader's tokens."""
        sizes = [tokens_of(slot, reader, self.counted_by) for slot in slots]
        works = [
            _Work(slot, math.ceil(size / self.compression) + self.more) for slot, size in zip(slots, sizes, strict=True)
        ]
        texts = tuple(dict.fromkeys(slot.context for slot in slots))
        written = dict(zip(texts, self._written(texts, reader, max(work.budget for work in works)), strict=True))
        return [text_latent(self._fitting(work, written[work.slot.context], reader), work.slot) for work in works]

    def prefix(self, latents: Sequence[Latent], reader: Reader) -> Prefix:
        """Embedded tokens of the summaries."""
        return text_prefix(latents, reader)

    def _written(self, texts: tuple[str, ...], reader: Reader, most: int) -> list[str]:
        writer = self._writer(reader)
        key = ("summary", writer.fingerprint, str(writer.dtype), texts, most)
        return recall(key, lambda: _summaries(texts, writer, most), lambda found: sum(map(len, found)))

    def _writer(self, reader: Reader) -> Reader:
        if self.writer in (None, reader.source):
            return reader
        if self.writer not in self._writers:
            self._writers[str(self.writer)] = open_reader(str(self.writer))
        return self._writers[str(self.writer)]

    def _fitting(self, work: _Work, summary: str, reader: Reader) -> Slot:
        """The slot with as much of the summary as its budget holds."""
        text, _ = reader.prompter.shorten(reader.prompter.slot(summary).ids, work.budget)
        return with_context(work.slot, text, reader)


@torch.no_grad()
def _summaries(texts: Sequence[str], writer: Reader, most: int) -> list[str]:
    before, after = _asked(writer)
    prompts = []
    for text in texts:
        prompts.append(Prompt("", (), Slot((text,), (*before, *writer.prompter.slot(text).ids, *after)), ()))
    prefix = Prefix.stack([writer.embed(id_tensor(prompt.slot.ids)) for prompt in prompts])
    state = writer.prefill(writer.lay_in(prompts, prefix), most)
    return [" ".join(answer.text.split()) for answer in writer.generate(state, most, one_line=False)]


def _asked(writer: Reader) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Token ids before and after the passage: a turn of the writer's chat template where it has one, else plain text."""
    tokenizer = writer.tokenizer
    text = f"{tokenizer.bos_token or ''}{_MARK}\n\n{ASKED}\nSummary:"
    if getattr(tokenizer, "chat_template", None):
        turn = [{"role": "user", "content": f"{ASKED}\n\n{_MARK}"}]
        text = str(tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True))
    before, after = (tokenizer(part, add_special_tokens=False)["input_ids"] for part in text.split(_MARK))
    return tuple(before), tuple(after)
