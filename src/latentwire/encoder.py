"""`Encoder`: a frozen causal LM whose hidden states a wire is made of. Text goes in by windows, spans of its tokens come out.

    text ─▶ token ids ─▶ windows of at most W tokens ─ frozen LM ─▶ hidden states of K layers, and how surprising each token was
                                                                                     │
    [ span: tokens up to one that is kept ][ span ][ span: ... and the rest ]  ◀─ how much each word counts
                                                                                  one token of r is kept

The words that are most likely to be asked for are kept, with all their tokens (`keeper.py`); before that has been learnt, those that
the model did not see coming (`surprise.py`). A span is as long as it takes to the next kept token, r tokens on average.

The model is run up to the last layer that is kept. One that stops before its own last layer foresees no token: rare tokens surprise it.

Windows do not see one another: a text may be of any length, and text appended to it at a border adds windows and changes
none.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from latentwire.errors import MethodError
from latentwire.keeper import Keeper
from latentwire.reader import Reader
from latentwire.reader.precision import dtype_name
from latentwire.remembered import recall
from latentwire.surprise import first_to_keep, rarity_of, surprise_of, word_surprise, words_of

Window = tuple[int, ...]
MAX_LAYERS = 6
WINDOWS_AT_ONCE = 8  # that are read in one batch


@dataclass(frozen=True, slots=True, eq=False)
class Spans:
    """A window of `length` tokens as `m` contiguous spans, each ending at a kept token; the last goes on to the window's end.

    Attributes:
        kept: `[m]`, places of the kept tokens in the window, rising.
        rank: `[m]`, 0 for the first to be kept.
        states: `[m, 2 K, D]` bf16: hidden states of K layers at the kept token, then their means over the span.
        length: Tokens of the window.
    """

    kept: Tensor
    rank: Tensor
    states: Tensor
    length: int

    @property
    def sizes(self) -> Tensor:
        """Tokens in each span `[m]`."""
        ends = torch.cat([self.kept[:-1] + 1, self.kept.new_tensor([self.length])])
        return torch.diff(ends, prepend=ends.new_zeros(1))

    def coarser(self, count: int) -> "Spans":
        """The same window as `count` spans, at the first of the kept tokens by rank."""
        if count >= len(self.kept):
            return self
        chosen = (self.rank < count).nonzero()[:, 0]
        owner = torch.searchsorted(chosen, torch.arange(len(self.kept))).clamp(max=len(chosen) - 1)
        sizes, layers = self.sizes.float(), self.states.shape[1] // 2
        sums = torch.zeros(len(chosen), layers, self.states.shape[2])
        sums.index_add_(0, owner, self.states[:, layers:].float() * sizes[:, None, None])
        means = sums / torch.zeros(len(chosen)).index_add_(0, owner, sizes)[:, None, None]
        states = torch.cat([self.states[chosen, :layers], means.to(self.states.dtype)], dim=1)
        return Spans(self.kept[chosen], self.rank[chosen], states, self.length)


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """What the model sees in a window of `n` tokens: hidden states `[n, K, D]`, how surprising each token was `[n]` (how rare it is,
    where the model stops early), and the number of its word `[n]`."""

    states: Tensor
    surprise: Tensor
    word: Tensor


@dataclass(frozen=True, eq=False)
class Encoder:
    """The frozen model, and what is kept of it.

    Attributes:
        reader: A reader, of which only tokenizer, embeddings and layers serve here.
        layers: Hidden states that are kept, at most six: 0 are the input embeddings, `L` is the last of `L` layers.
        pool: `r`, one of how many tokens is kept.
        window: `W`, how many tokens the model reads at once; a multiple of 16, so that every compression fits.
        rounded: What the model's weights are rounded to, where it computes in a wider dtype than that.

    Raises:
        MethodError: Layers that the model has not, or a window or pool of the wrong size.
    """

    reader: Reader
    layers: tuple[int, ...]
    pool: int = 4
    window: int = 512
    rounded: torch.dtype | None = None

    def __post_init__(self) -> None:
        last = self.reader.model.config.num_hidden_layers
        if not 1 <= len(set(self.layers)) == len(self.layers) <= MAX_LAYERS or not set(self.layers) <= set(
            range(last + 1)
        ):
            raise MethodError(
                f"encoder '{self.reader.name}': expected 1 to {MAX_LAYERS} different layers from 0 to {last}, got"
                f" {list(self.layers)}; change the method's layers"
            )
        if self.pool < 1 or self.window < 1 or self.window % 16 or self.window % self.pool:
            raise MethodError(
                f"encoder: expected a window that is a multiple of 16 and of pool, got window {self.window} and pool"
                f" {self.pool}; change them"
            )

    @cached_property
    def keeper(self) -> Keeper:
        """What knows which words count; until it has learnt, those count that surprise."""
        return Keeper(self.reader.width, len(self.layers))

    @property
    def features(self) -> str:
        """What features depend on beside the text: identity, what it computes in, and which words are kept."""
        wider = self.rounded not in (None, self.reader.dtype)
        computed = f"-in-{dtype_name(self.reader.dtype)}" if wider else ""
        return self.identity + computed + (f"-{self.keeper.digest}" if self.keeper.learnt else "")

    @property
    def identity(self) -> str:
        """Model, layers, pool and dtype of its weights: what a wire must find again."""
        layers = ".".join(map(str, self.layers))
        kept = "rare" if self.stops else "words"
        return f"{self.reader.fingerprint}-layers{layers}-{kept}{self.pool}-{self.dtype}"

    @property
    def stops(self) -> bool:
        """Whether the model is left before its last layer."""
        return max(self.layers) < int(self.reader.model.config.num_hidden_layers)

    @property
    def dtype(self) -> str:
        """Of the model's weights, whatever it computes in."""
        return dtype_name(self.rounded or self.reader.dtype)

    def windows(self, text: str) -> list[Window]:
        """The text's token ids in windows of at most `W`; one empty window for an empty text never occurs: it is refused.

        Raises:
            MethodError: The text is empty.
        """
        ids = self.reader.prompter.slot(text).ids
        if not ids:
            raise MethodError("expected text to encode, got an empty one; leave it out")
        return [ids[start : start + self.window] for start in range(0, len(ids), self.window)]

    @torch.no_grad()
    def spans(self, windows: Sequence[Window]) -> list[Spans]:
        """Spans of each window of `n` tokens, `ceil(n / r)` of them, on the CPU; read in one batch."""
        return [self._spans(seen.states, first_to_keep(self._scores(seen), seen.word)) for seen in self.read(windows)]

    @torch.no_grad()
    def scores(self, windows: Sequence[Window]) -> list[Tensor]:
        """How much each token's word counts, `[n]` for each window: the higher, the sooner it is kept."""
        return [self._scores(seen)[seen.word] for seen in self.read(windows)]

    def _scores(self, seen: Seen) -> Tensor:
        if not self.keeper.learnt:
            return word_surprise(seen.surprise, seen.word)
        device = self.keeper.weight.device
        features = self.keeper.features(seen.states.to(device), seen.surprise.to(device), seen.word.to(device))
        found: Tensor = self.keeper(features)
        return found.cpu()

    def read(self, windows: Sequence[Window]) -> list[Seen]:
        """What the model sees in each window; read in one batch."""
        return recall((self.identity, tuple(windows)), lambda: self._read(windows), _size)

    @torch.no_grad()
    def _read(self, windows: Sequence[Window]) -> list[Seen]:
        begin = [] if self.reader.tokenizer.bos_token_id is None else [self.reader.tokenizer.bos_token_id]
        longest = len(begin) + max(map(len, windows))
        ids = torch.zeros(len(windows), longest, dtype=torch.long)
        for row, window in enumerate(windows):
            ids[row, : len(begin) + len(window)] = torch.tensor([*begin, *window])
        states, last = self._states(ids)
        found = []
        for row, window in enumerate(windows):
            own = slice(len(begin), len(begin) + len(window))
            seen = ids[row, : own.stop]
            surprise = rarity_of(seen) if self.stops else surprise_of(self.reader, last[row, : own.stop], seen)
            found.append(Seen(states[row, own], surprise[-len(window) :], words_of(self.reader, list(window))))
        return found

    def _states(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Hidden states `[B, T, K, D]` of the kept layers and last ones `[B, T, D]`; padding is on the right, where a causal
        model cannot see it, and takes no mask."""
        embeds = self.reader.embed(ids)
        out = self._decoder(inputs_embeds=embeds, output_hidden_states=True, use_cache=False)
        states = [embeds, *(out.hidden_states or ())[1:]]
        return torch.stack([states[layer].to(embeds.device) for layer in self.layers], dim=2), out.last_hidden_state

    @cached_property
    def _decoder(self) -> Any:
        """The model's layers up to the last that is kept, which they share with the model itself."""
        decoder: Any = self.reader.model.get_decoder()
        if self.stops:
            # A first call lets transformers install what captures states: in each layer once, for the copy too.
            decoder(inputs_embeds=self.reader.embed(torch.zeros(1, 1, dtype=torch.long)), output_hidden_states=True)
            decoder = copy.copy(decoder)
            decoder._modules = {**decoder._modules, "norm": nn.Identity()}  # what comes out is a hidden state
            decoder.config = copy.copy(decoder.config)
            decoder.config.num_hidden_layers = max(self.layers)
        return decoder

    def _spans(self, states: Tensor, order: Tensor) -> Spans:
        length = len(order)
        kept = order[: -(-length // self.pool)]
        rank = torch.empty(length, dtype=torch.long)
        rank[kept] = torch.arange(len(kept))
        kept = kept.sort().values
        states = states.float().cpu()
        blank = Spans(kept, rank[kept], states, length)
        owner = torch.arange(len(kept)).repeat_interleave(blank.sizes)
        sums = torch.zeros(len(kept), *states.shape[1:]).index_add_(0, owner, states)
        means = sums / blank.sizes[:, None, None]
        return replace(blank, states=torch.cat([states[kept], means], dim=1).to(torch.bfloat16))


def _size(seen: Sequence[Seen]) -> int:
    return sum(part.nbytes for one in seen for part in (one.states, one.surprise, one.word))


def spaced_layers(reader: Reader) -> tuple[int, ...]:
    """As many hidden states of a model as are kept, evenly spaced from its input embeddings to its last layer."""
    last = reader.model.config.num_hidden_layers
    spaced = np.linspace(0, last, min(MAX_LAYERS, last + 1)).round().astype(int)
    return tuple(int(layer) for layer in spaced)
