"""Any method with learned task tokens before it: what tuning to the task is worth without any compression.

    [ task tokens ][ the other method's prefix ]

A wire learns the task while it learns to compress. Only beside rungs that learnt the task too can its score be read.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from latentwire.codecs import transmit
from latentwire.errors import MethodError
from latentwire.latent import Latent
from latentwire.methods import METHODS, Counts, Method, Weights, id_tensor
from latentwire.reader import Prefix, Reader, Slot
from latentwire.reader.prompts import INSTRUCTION
from latentwire.specs import Spec, build


@METHODS.register("tuned")
@dataclass
class Tuned(Method):
    """A method without parameters behind learned vectors, one set for each reader, kept in units of its embeddings.

    Source: Lester et al. 2021, prompt tuning (arXiv 2104.08691, section 2); started at the instruction's embeddings.

    Attributes:
        of: The other method, as `{name: ..., fields}`.
        task_tokens: Learned vectors; each takes one reader position.
    """

    of: Spec = field(default_factory=lambda: {"name": "full_text"})
    task_tokens: int = 8

    def __post_init__(self) -> None:
        if self.task_tokens < 1:
            raise MethodError(f"tuned: expected at least 1 in task_tokens, got {self.task_tokens}; change the field")
        self._inner = build(METHODS, self.of)
        self._tokens = nn.ParameterDict()
        self._met: dict[tuple[str, Slot], Latent] = {}

    def prepare(self, reader: Reader, counts: Counts, weights: Weights | None = None) -> None:
        """Prepare the other method, and start the task tokens of this reader."""
        self._inner.prepare(reader, counts, weights)
        if self._inner.tensors():
            raise MethodError(f"tuned: expected a method without tensors of its own, got {self.of}; choose another")
        ids = reader.prompter.slot(INSTRUCTION).ids
        repeated = (ids * -(-self.task_tokens // len(ids)))[: self.task_tokens]
        self._tokens[reader.fingerprint] = nn.Parameter(reader.embed(id_tensor(repeated)).float() / reader.rms)

    def encode(self, slots: Sequence[Slot], reader: Reader) -> list[Latent]:
        """The other method's latents: task tokens stand at the receiver."""
        return self._inner.encode(slots, reader)

    def training_prefix(self, slots: Sequence[Slot], reader: Reader) -> Prefix:
        """The same in training: what a context became at its first step is kept, since nothing of that is trained."""
        due = [slot for slot in dict.fromkeys(slots) if (reader.fingerprint, slot) not in self._met]
        if due:
            latents = [transmit(latent)[0] for latent in self.encode(due, reader)]
            self._met |= {(reader.fingerprint, slot): latent for slot, latent in zip(due, latents, strict=True)}
        return self.prefix([self._met[reader.fingerprint, slot] for slot in slots], reader)

    def prefix(self, latents: Sequence[Latent], reader: Reader) -> Prefix:
        """Task tokens, then the other method's prefix; differentiable in the task tokens."""
        tokens = self._of(reader)
        rows = [torch.cat([tokens, row.to(tokens.dtype)]) for row in self._inner.prefix(latents, reader).rows()]
        return Prefix.stack(rows)

    def cut(self, slots: Sequence[Slot], latents: Sequence[Latent]) -> list[bool] | None:
        """What the other method cuts."""
        return self._inner.cut(slots, latents)

    def module(self) -> nn.Module:
        """The task tokens of all readers."""
        return self._tokens

    def load(self, tensors: Mapping[str, Tensor], reader: Reader) -> None:
        """Restore the task tokens of all readers."""
        for name, tensor in tensors.items():
            self._tokens[name] = nn.Parameter(tensor.to(reader.device))

    def _of(self, reader: Reader) -> Tensor:
        if reader.fingerprint not in self._tokens:
            raise MethodError(
                f"expected task tokens for reader '{reader.name}', got those of {len(self._tokens)} others; train with it"
            )
        tokens: Tensor = reader.rms * self._tokens[reader.fingerprint]
        return tokens
