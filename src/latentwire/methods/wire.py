"""The full system as a method: text encoded once into fewer vectors, read by several frozen readers through adapters.

context ─ encoder's windows ─▶ features ─ Latents ─▶ latents [M, d] ─ wire ─▶ latents ─ the reader's Adapter ─▶ prefix
                                                                                     behind its task tokens
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from latentwire.codecs import transmit
from latentwire.encoder import MAX_LAYERS, Encoder, Window
from latentwire.errors import MethodError
from latentwire.features import FeatureStore
from latentwire.latent import Latent, expect_space
from latentwire.methods import METHODS, Counts, Method, Progress, Weights
from latentwire.methods.adapter import Adapter, start_adapter
from latentwire.methods.latents import Latents, in_blocks
from latentwire.reader import Prefix, Reader, Slot
from latentwire.reader.load import load_reader

WINDOWS_AT_ONCE = 8


@METHODS.register("wire")
@dataclass
class Wire(Method):
    """A shorter sequence for several readers.

    Attributes:
        encoder: The frozen model whose features latents are made of, named as readers are; the first reader's own if None.
        layers: Hidden states that are kept; six of them, evenly spaced, if None.
        compressions: Tokens per latent that the wire serves, each twice the one before; one is drawn for each training step.
        compression: The one that `encode` uses.
        task_tokens: Learned vectors before the latents, for each reader.
        hidden: Units of the hidden layers.
        wire_dtype: "fp16" or "int8", applied for real in training too.
    """

    encoder: str | None = None
    layers: tuple[int, ...] | None = None
    compressions: tuple[int, ...] = (4, 8, 16)
    compression: int = 4
    task_tokens: int = 8
    hidden: int = 576
    wire_dtype: Literal["int8", "fp16"] = "fp16"

    def __post_init__(self) -> None:
        first = self.compressions[0] if self.compressions else 0
        if first < 1 or list(self.compressions) != [first * 2**place for place in range(len(self.compressions))]:
            raise MethodError(
                f"wire: expected compressions that double from one to the next, got {list(self.compressions)}; e.g. [4, 8, 16]"
            )
        if self.compression not in self.compressions:
            raise MethodError(
                f"wire: expected a compression of {', '.join(map(str, self.compressions))}, got {self.compression};"
                " choose one of those, or train a wire for it"
            )
        self._drawn = self.compression
        self._adapters = nn.ModuleDict()
        self._store: FeatureStore | None = None

    def prepare(self, reader: Reader, counts: Counts, weights: Weights | None = None) -> None:
        """Start the latents, if this is the first reader, and the reader's adapter."""
        self._open(reader)
        self._adapters[reader.fingerprint] = start_adapter(self._source.reader, reader, self.task_tokens, self.hidden)

    def encode(self, slots: Sequence[Slot], reader: Reader) -> list[Latent]:
        """Latents `[M, d]` of each slot's text; the reader does not matter."""
        with torch.no_grad():
            rows = self._latents(slots, self.compression)
        space = self._space()
        return [
            Latent(row.cpu().numpy(), self.wire_dtype, space, len(slot.ids))
            for row, slot in zip(rows, slots, strict=True)
        ]

    def prefix(self, latents: Sequence[Latent], reader: Reader) -> Prefix:
        """The reader's task tokens and the latents as its embeddings; differentiable in the adapter."""
        expect_space(list(latents), self._space())
        return self._adapted([torch.from_numpy(latent.payload) for latent in latents], reader)

    def training_prefix(self, slots: Sequence[Slot], reader: Reader) -> Prefix:
        """The same, differentiable in everything: the wire's rounding is there, and gradients pass it unchanged.

        Source: Bengio et al. 2013, straight-through (arXiv 1308.3432, section 4).
        """
        rows = self._latents(slots, self._drawn)
        return self._adapted([row + (self._rounded(row) - row).detach() for row in rows], reader)

    def draw(self, seed: int, step: int) -> None:
        """Choose the step's compression."""
        self._drawn = self.compressions[np.random.default_rng([seed, 8, step]).integers(len(self.compressions))]

    def gather(self, slots: Sequence[Slot], folder: Path, limit_bytes: int, progress: Progress) -> None:
        """Compute the features of all slots once, and keep them below `folder`."""
        windows = [window for text in {slot.text for slot in slots} for window in self._source.windows(text)]
        self._store = FeatureStore(folder / self._source.identity, self._source, limit_bytes)
        self._store.fill(windows, progress)

    def module(self) -> nn.Module:
        """Latents and adapters."""
        self._require_prepared()
        return self._trained

    def load(self, tensors: Mapping[str, Tensor], reader: Reader) -> None:
        """Restore the latents and the adapters of all readers."""
        self._open(reader)
        prefix = "adapters."
        for name in dict.fromkeys(key.split(".")[1] for key in tensors if key.startswith(prefix)):
            own = {key.removeprefix(f"{prefix}{name}."): value for key, value in tensors.items() if f".{name}." in key}
            self._adapters[name] = Adapter(own["weight"], own["bias"], own["task_tokens"], len(own["mix.bias"]))
        self._trained.load_state_dict(dict(tensors))
        self._trained.to(reader.device)

    def _open(self, reader: Reader) -> None:
        """Find the encoder and make the latents' part, once."""
        if hasattr(self, "_source"):
            return
        model = reader if self.encoder in (None, reader.name) else load_reader(str(self.encoder))
        last = model.model.config.num_hidden_layers
        spaced = np.linspace(0, last, min(MAX_LAYERS, last + 1)).round().astype(int)
        layers = tuple(int(layer) for layer in spaced) if self.layers is None else self.layers
        self._source = Encoder(model, layers, self.compressions[0])
        latents = Latents(model.width, len(layers), self.compressions[0], len(self.compressions) - 1, self.hidden)
        self._trained = nn.ModuleDict({"latents": latents.to(model.device), "adapters": self._adapters})

    def _latents(self, slots: Sequence[Slot], compression: int) -> list[Tensor]:
        """Latents `[M, d]` of each slot, window by window."""
        parts = [self._source.windows(slot.text) for slot in slots]
        distinct = list(dict.fromkeys(window for windows in parts for window in windows))
        features = dict(zip(distinct, self._features(distinct), strict=True))
        made = self._made(features, self.compressions.index(compression))
        return [torch.cat([made[window] for window in windows]) for windows in parts]

    def _made(self, features: Mapping[Window, Tensor], merges: int) -> dict[Window, Tensor]:
        """Latents of each distinct window, so that a context that occurs twice is encoded once."""
        embed, device = self._source.reader.embed, self._source.reader.device
        latents: nn.Module = self._trained["latents"]
        found = {}
        for window, states in features.items():
            blocks = in_blocks(embed(torch.tensor(window)).float(), self._source.pool)
            found[window] = latents(blocks, states.to(device).float(), merges)
        return found

    def _features(self, windows: Sequence[Window]) -> list[Tensor]:
        if self._store is not None and not self._store.missing(windows):
            return [self._store.features(window) for window in windows]
        parts = [windows[first : first + WINDOWS_AT_ONCE] for first in range(0, len(windows), WINDOWS_AT_ONCE)]
        return [features for part in parts for features in self._source.features(part)]

    def _adapted(self, rows: Sequence[Tensor], reader: Reader) -> Prefix:
        adapter = self._adapter(reader)
        moved = adapter(torch.cat(list(rows)).to(reader.device)).split([len(row) for row in rows])
        return Prefix.stack([torch.cat([adapter.task_tokens, row.float()]) for row in moved])

    def _rounded(self, row: Tensor) -> Tensor:
        """A row of latents as it comes off the wire."""
        latent = Latent(row.detach().cpu().numpy(), self.wire_dtype, "", len(row))
        return torch.from_numpy(transmit(latent)[0].payload).to(row.device)

    def _adapter(self, reader: Reader) -> Adapter:
        self._require_prepared()
        if reader.fingerprint not in self._adapters:
            raise MethodError(
                f"expected an adapter for reader '{reader.name}' in the wire, got those of {len(self._adapters)} others;"
                " attach the reader first"
            )
        adapter = self._adapters[reader.fingerprint]
        assert isinstance(adapter, Adapter)
        return adapter

    def _space(self) -> str:
        """Encoder and latents' weights decide what a latent means; adapters do not."""
        self._require_prepared()
        digest = hashlib.sha256(self._source.identity.encode())
        for parameter in self._trained["latents"].state_dict().values():
            digest.update(parameter.cpu().numpy().tobytes())
        return f"wire-{digest.hexdigest()[:16]}"

    def _require_prepared(self) -> None:
        if not hasattr(self, "_source"):
            raise MethodError("expected a prepared wire, got one without an encoder; call prepare or load first")
