"""`Encoder`: a frozen causal LM whose hidden states a wire is made of. Text goes in by windows, features come out.

text ─▶ token ids ─▶ windows of at most W tokens ─ frozen LM ─▶ hidden states of K layers ─ mean of r tokens ─▶ features

Windows do not see one another: a text may be of any length, and text appended to it at a border adds windows and changes
none.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from latentwire.errors import MethodError
from latentwire.reader import Reader
from latentwire.reader.inputs import positions

Window = tuple[int, ...]
MAX_LAYERS = 6


@dataclass(frozen=True, eq=False)
class Encoder:
    """The frozen model, and what is kept of it.

    Attributes:
        reader: A reader, of which only tokenizer, embeddings and layers serve here.
        layers: Hidden states that are kept, at most six: 0 are the input embeddings, `L` is the last of `L` layers.
        pool: `r`, how many neighbouring tokens are averaged into one feature.
        window: `W`, how many tokens the model reads at once; a multiple of 16, so that every compression fits.

    Raises:
        MethodError: Layers that the model has not, or a window or pool of the wrong size.
    """

    reader: Reader
    layers: tuple[int, ...]
    pool: int = 4
    window: int = 512

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

    @property
    def identity(self) -> str:
        """What features depend on beside the text: model, layers, pool and dtype."""
        layers = ".".join(map(str, self.layers))
        dtype = str(self.reader.dtype).removeprefix("torch.")
        return f"{self.reader.fingerprint}-layers{layers}-pool{self.pool}-{dtype}"

    @property
    def feature_bytes(self) -> int:
        """Bytes of the features of one block: `K * D` values in bf16."""
        return 2 * len(self.layers) * self.reader.width

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
    def features(self, windows: Sequence[Window]) -> list[Tensor]:
        """Features `[ceil(n / r), K, D]` bf16 of each window of `n` tokens, on the CPU; read in one batch."""
        begin = [] if self.reader.tokenizer.bos_token_id is None else [self.reader.tokenizer.bos_token_id]
        longest = len(begin) + max(map(len, windows))
        ids = torch.zeros(len(windows), longest, dtype=torch.long)
        mask = torch.zeros(len(windows), longest, dtype=torch.bool)
        for row, window in enumerate(windows):
            size = len(begin) + len(window)
            ids[row, :size] = torch.tensor([*begin, *window])
            mask[row, :size] = True
        states = self._states(ids, mask)
        return [self._pooled(states[row, len(begin) :][: len(window)]) for row, window in enumerate(windows)]

    def _states(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Hidden states `[B, T, K, D]` of the kept layers; padding is on the right, where a causal model cannot see it."""
        mask = mask.to(self.reader.device)
        out = self.reader.model.get_decoder()(
            inputs_embeds=self.reader.embed(ids),
            attention_mask=mask.long(),
            position_ids=positions(mask),
            output_hidden_states=True,
            use_cache=False,
        )
        return torch.stack([out.hidden_states[layer].to(mask.device) for layer in self.layers], dim=2)

    def _pooled(self, states: Tensor) -> Tensor:
        means = [block.float().mean(dim=0) for block in states.split(self.pool)]
        return torch.stack(means).to(torch.bfloat16).cpu()


def spaced_layers(reader: Reader) -> tuple[int, ...]:
    """As many hidden states of a model as are kept, evenly spaced from its input embeddings to its last layer."""
    last = reader.model.config.num_hidden_layers
    spaced = np.linspace(0, last, min(MAX_LAYERS, last + 1)).round().astype(int)
    return tuple(int(layer) for layer in spaced)
