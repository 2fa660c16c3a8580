"""The full system as a method: text encoded once into fewer vectors, read by several frozen readers through adapters.

context ─ encoder's windows ─▶ features ─ Latents ─▶ latents [M, d] ─ wire ─▶ latents ─ the reader's Adapter ─▶ prefix
                                                                             and Dictionary, behind its task tokens
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from latentwire.asked import teach
from latentwire.encoder import WINDOWS_AT_ONCE, Encoder, Spans, Window, spaced_layers
from latentwire.errors import MethodError, WireError
from latentwire.features import FeatureStore
from latentwire.latent import Latent, expect_space
from latentwire.methods import METHODS, AnswersByText, Counts, Method, Progress, Weights, id_tensor
from latentwire.methods.adapter import Adapter, start_adapter
from latentwire.methods.company import Step, companions
from latentwire.methods.dictionary import Dictionary
from latentwire.methods.latents import Standard, as_received, space_of, start_latents
from latentwire.reader import Prefix, Reader, Slot
from latentwire.reader.load import open_encoder
from latentwire.reader.precision import dtype_name
from latentwire.wire_folder import WireFiles, WireReader, read_latents, read_wire, shortened, write_wire

MEASURED = 256  # windows whose features' mean and deviation are taken


@METHODS.register("wire")
@dataclass
class Wire(Method):
    """A shorter sequence for several readers.

    Attributes:
        encoder: The frozen model whose features latents are made of, named as readers are; the first reader itself if None.
        encoder_dtype: What it computes in, where it is not the first reader.
        layers: Hidden states that are kept; six of them, evenly spaced, if None.
        compressions: Tokens per latent that the wire serves, each twice the one before; one is drawn for each training
            step, a finer one more often.
        compression: The one that `encode` uses.
        task_tokens: Learned vectors before the latents, for each reader.
        hidden: Units of the hidden layers.
        wire_dtype: "fp16" or "int8", applied for real in training too.
        company: Share of training contexts that stand among one to three others of their step, in random order.
        pooling: "spans" makes a latent of each span of neighbouring tokens, "queries" asks learned queries.
        latents_from: Folder of a trained wire whose encoder and latents stay as they are: only adapters are trained.
    """

    encoder: str | None = None
    encoder_dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    layers: tuple[int, ...] | None = None
    compressions: tuple[int, ...] = (4, 8, 16)
    compression: int = 4
    task_tokens: int = 8
    hidden: int = 576
    wire_dtype: Literal["int8", "fp16"] = "fp16"
    company: float = 0.0
    pooling: Literal["spans", "queries"] = "spans"
    latents_from: str | None = None

    def __post_init__(self) -> None:
        first = self.compressions[0] if self.compressions else 0
        if first < 1 or list(self.compressions) != [first * 2**place for place in range(len(self.compressions))]:
            raise MethodError(
                f"wire: expected compressions that double from one to the next, got {list(self.compressions)}; e.g. [4, 8, 16]"
            )
        self.expect_served(self.compression)
        self._drawn = self.compression
        self._step = Step()
        self._adapters = nn.ModuleDict()
        self._store: FeatureStore | None = None
        self._dictionaries: dict[str, Dictionary] = {}  # of readers of other families
        self._hashed = ""

    def prepare(self, reader: Reader, counts: Counts, weights: Weights | None = None) -> None:
        """Start the latents, if this is the first reader, and the reader's adapter."""
        self._open(reader)
        width, told = self.source.reader.width, self.dictionary(reader) is not None
        self._adapters[reader.fingerprint] = start_adapter(width, reader, told, self.task_tokens, self.hidden)

    def encode(self, slots: Sequence[Slot], reader: Reader) -> list[Latent]:
        """Latents `[M, d]` of each slot's text; the reader does not matter."""
        windows = [self.source.windows(slot.text) for slot in slots]
        found = self.encode_windows(windows, self.compression)
        return [replace(latent, source_tokens=len(slot.ids)) for latent, slot in zip(found, slots, strict=True)]

    @torch.no_grad()
    def encode_windows(self, texts: Sequence[Sequence[Window]], compression: int) -> list[Latent]:
        """Latents `[M, d]` of texts, each given by its windows (`source.windows`).

        Raises:
            MethodError: A compression that the wire does not serve.
        """
        self.expect_served(compression)
        space = self.space
        return [
            Latent(row.cpu().numpy(), self.wire_dtype, space, sum(map(len, windows)))
            for row, windows in zip(self._latents(texts, compression), texts, strict=True)
        ]

    def prefix(self, latents: Sequence[Latent], reader: Reader) -> Prefix:
        """The reader's task tokens and the latents as its embeddings; differentiable in the adapter."""
        expect_space(list(latents), self.space, self.source.reader.width)
        adapter = self.adapter(reader)
        rows = self._moved([torch.from_numpy(latent.payload) for latent in latents], reader)
        return Prefix.stack([torch.cat([adapter.leading(), row]) for row in rows])

    def join(self, pieces: Sequence[Latent | str], reader: Reader) -> Prefix:
        """One prompt's prefix of latents and pieces of text, in order, behind the reader's task tokens once."""
        rows: list[Tensor] = [self.adapter(reader).leading()]
        for piece in pieces:
            if isinstance(piece, str):
                rows.append(reader.embed(id_tensor(reader.prompter.slot(piece).ids)).float())
            else:
                expect_space([piece], self.space, self.source.reader.width)
                rows += self._moved([torch.from_numpy(piece.payload)], reader)
        return Prefix.stack([torch.cat(rows)])

    def training_prefix(self, slots: Sequence[Slot], reader: Reader) -> Prefix:
        """The same, differentiable in everything: the wire's rounding is there, and gradients pass it unchanged."""
        among = {slot.text: companions(slot.text, self._step, self.company) for slot in slots}
        texts = list(dict.fromkeys(text for group in among.values() for text in group))
        made = self._latents([self.source.windows(text) for text in texts], self._drawn)
        rows = self._moved([as_received(row, self.wire_dtype) for row in made], reader)
        parts, leading = dict(zip(texts, rows, strict=True)), self.adapter(reader).leading()
        joined = {text: torch.cat([leading, *(parts[one] for one in group)]) for text, group in among.items()}
        return Prefix.stack([joined[slot.text] for slot in slots])

    def draw(self, seed: int, step: int, slots: Sequence[Slot]) -> None:
        """Choose the step's compression. How a context's latents stand in the prompt is drawn by step and text."""
        self._hashed = ""  # the latents are about to change
        self._step = Step(seed, step, tuple(dict.fromkeys(slot.text for slot in slots)))
        draw = np.random.default_rng([seed, 8, step])
        odds = 1 / np.array(self.compressions)
        self._drawn = self.compressions[draw.choice(len(self.compressions), p=odds / odds.sum())]

    def gather(self, asked: AnswersByText, folder: Path, limit_bytes: int, progress: Progress) -> None:
        """Learn which words are asked for, compute the features of all texts once, and keep both below `folder`."""
        if self.latents_from is None:
            teach(self.source, asked, folder, progress)
            self._hashed = ""
        windows = [window for text in asked for window in self.source.windows(text)]
        self._store = FeatureStore(folder / self.source.features, self.source, limit_bytes)
        self._store.fill(windows, progress)
        if self._fresh:
            standard = self._trained["latents"].get_submodule("standard")
            assert isinstance(standard, Standard)
            standard.measure(torch.cat([spans.states for spans in self._spans(windows[:MEASURED])]))

    def publish(self, folder: Path, readers: Sequence[Reader]) -> bool:
        """Write the wire's folder, rounded: the one that `latents_from` names with the readers added, or a new one."""
        with torch.no_grad():
            for name, tensor in self._trained.state_dict().items():
                tensor.copy_(shortened(name, tensor))
        self._hashed = ""
        fields = asdict(self) | {"encoder": self.source.reader.source, "encoder_dtype": self.source.dtype}
        fields |= {"layers": self.source.layers, "latents_from": None}
        known, tensors = {}, self.tensors()
        if self.latents_from is not None:
            earlier = read_wire(Path(self.latents_from))
            known, tensors = dict(earlier.readers), {**earlier.tensors, **tensors}
        for reader in readers:
            layout = reader.prompter.layout
            known[reader.fingerprint] = WireReader(reader.name, layout.style, layout.shots)
        write_wire(folder, WireFiles(fields, self.source.identity, self.space, known, tensors))
        return True

    def module(self) -> nn.Module:
        """Latents and adapters."""
        self._require_prepared()
        return self._trained

    def load(self, tensors: Mapping[str, Tensor], reader: Reader | None) -> None:
        """Restore the latents and the adapters of all readers; without a reader at hand the encoder must have a name."""
        self._open(reader)
        prefix = "adapters."
        for name in dict.fromkeys(key.split(".")[1] for key in tensors if key.startswith(prefix)):
            own = {key.removeprefix(f"{prefix}{name}."): value for key, value in tensors.items() if f".{name}." in key}
            self._adapters[name] = Adapter(
                own["weight"], own["bias"], own["task_tokens"], len(own["mix.bias"]), own["scale"]
            )
        self._trained.load_state_dict(dict(tensors))
        self._fresh, self._hashed = False, ""
        self._trained["latents"].to(self.source.reader.device)
        if reader is not None and reader.fingerprint in self._adapters:
            self._adapters[reader.fingerprint].to(reader.device)

    def expect_served(self, compression: int) -> None:
        """Raise `MethodError` unless the wire serves a compression."""
        if compression not in self.compressions:
            raise MethodError(
                f"wire: expected a compression of {', '.join(map(str, self.compressions))}, got {compression}; choose one of"
                " those, or train a wire for it"
            )

    def _open(self, reader: Reader | None) -> None:
        """Find the encoder and make the latents' part, once. The encoder is `reader` itself where that is the one named."""
        if hasattr(self, "source"):
            return
        if reader is None and self.encoder is None:
            raise MethodError("expected a wire that names its encoder, got none; give a reader, or set method.encoder")
        if reader is not None and self._is_encoder(reader):
            model, rounded = reader, reader.dtype
        else:
            model, rounded = open_encoder(str(self.encoder), self.encoder_dtype)
        layers = spaced_layers(model) if self.layers is None else self.layers
        self.source = Encoder(model, layers, self.compressions[0], rounded=rounded)
        latents = start_latents(self.source, self.hidden, self.pooling == "queries")
        latents.add_module("keeper", self.source.keeper)  # the sender's part: a latent means what was kept
        self._trained = nn.ModuleDict({"latents": latents.to(model.device), "adapters": self._adapters})
        self._fresh = self.latents_from is None
        if self.latents_from is not None:
            self._take_latents(read_latents(Path(self.latents_from), self.source.identity))

    def _is_encoder(self, reader: Reader) -> bool:
        """Whether a reader is the encoder that the fields name, in what that computes in: else it is opened once more."""
        dtype = dtype_name(reader.dtype)
        return self.encoder is None or (self.encoder == reader.source and self.encoder_dtype in ("auto", dtype))

    def _take_latents(self, own: Mapping[str, Tensor]) -> None:
        """Another wire's latents in place of new ones, never to be trained."""
        try:
            self._trained["latents"].load_state_dict(own)
        except RuntimeError as error:
            raise WireError(
                f"expected latents as the method describes them in {self.latents_from}, got others"
                f" ({str(error).splitlines()[-1].strip()}); use its compressions and hidden"
            ) from None
        self._trained["latents"].requires_grad_(False)

    def _latents(self, parts: Sequence[Sequence[Window]], compression: int) -> list[Tensor]:
        """Latents `[M, d]` of each text, window by window."""
        distinct = list(dict.fromkeys(window for windows in parts for window in windows))
        made = dict(zip(distinct, self._made(distinct, self._spans(distinct), compression), strict=True))
        return [torch.cat([made[window] for window in windows]) for windows in parts]

    def _made(self, windows: Sequence[Window], found: Sequence[Spans], compression: int) -> list[Tensor]:
        """Latents `[ceil(n / compression), d]` of each window, all at once."""
        reader, counts = self.source.reader, [-(-len(window) // compression) for window in windows]
        if self.pooling == "spans":
            found = [spans.coarser(count) for spans, count in zip(found, counts, strict=True)]
        ids = torch.cat([torch.tensor(window)[spans.kept] for window, spans in zip(windows, found, strict=True)])
        embeds = reader.embed(ids).float() / reader.rms
        states = torch.cat([spans.states for spans in found]).to(reader.device).float()
        sizes = torch.cat([spans.sizes for spans in found]).to(reader.device)
        latents: Tensor = self._trained["latents"](embeds, states, sizes, [len(spans.kept) for spans in found], counts)
        return list(latents.split(counts))

    def _spans(self, windows: Sequence[Window]) -> list[Spans]:
        if self._store is not None and not self._store.missing(windows):
            return [self._store.spans(window) for window in windows]
        parts = [windows[first : first + WINDOWS_AT_ONCE] for first in range(0, len(windows), WINDOWS_AT_ONCE)]
        return [spans for part in parts for spans in self.source.spans(part)]

    def _moved(self, rows: Sequence[Tensor], reader: Reader) -> list[Tensor]:
        """Latents `[M, d]` as the reader's embeddings `[M, D]`."""
        latents = torch.cat(list(rows)).to(reader.device)
        dictionary = self.dictionary(reader)
        told = None if dictionary is None else dictionary.spell(latents, reader)
        moved: Tensor = self.adapter(reader)(latents, told).float()
        return list(moved.split([len(row) for row in rows]))

    def dictionary(self, reader: Reader) -> Dictionary | None:
        """What tells a reader of another family which token a latent started from; None where latents are of no tokens, and for the
        encoder's own model, whose tokens they are."""
        encoder, name = self.source.reader, reader.fingerprint
        if name == encoder.fingerprint or self.pooling == "queries":
            return None
        if name not in self._dictionaries:
            self._dictionaries[name] = Dictionary(encoder, reader)
        return self._dictionaries[name]

    def adapter(self, reader: Reader) -> Adapter:
        """The reader's own part; `MethodError` where there is none."""
        self._require_prepared()
        if reader.fingerprint not in self._adapters:
            raise MethodError(
                f"expected an adapter for reader '{reader.name}' in the wire, got those of {len(self._adapters)} others;"
                " attach the reader first"
            )
        adapter = self._adapters[reader.fingerprint]
        assert isinstance(adapter, Adapter)
        return adapter

    @property
    def space(self) -> str:
        """Fingerprint of the latent space: encoder and latents' weights decide what a latent means; adapters do not."""
        self._require_prepared()
        if not self._hashed:
            self._hashed = space_of(self.source.identity, self._trained["latents"])
        return self._hashed

    def _require_prepared(self) -> None:
        if not hasattr(self, "source"):
            raise MethodError("expected a prepared wire, got one without an encoder; call prepare or load first")
