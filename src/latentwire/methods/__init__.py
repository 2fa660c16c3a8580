"""`Method`: everything that can stand between a context and the model that answers. A baseline is a method too.

    slot ── encode (sender) ──▶ Latent ── wire ──▶ Latent ── prefix (receiver) ──▶ Prefix

To add one, write `methods/<name>.py` with a dataclass whose fields are its configuration,
`@METHODS.register("<name>")`, and import it at the end of this file; `tests/test_contracts.py` then finds it.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from latentwire.codecs import transmit
from latentwire.errors import MethodError
from latentwire.latent import Latent
from latentwire.reader import Prefix, Reader, Slot
from latentwire.registry import Registry

Counts = npt.NDArray[np.int64]
Weights = npt.NDArray[np.float64]
AnswersByText = Mapping[str, Sequence[str]]
Progress = Callable[[float, str], None]
TASK_TOKENS = "task_tokens"  # how names of parameters end that are task tokens: they learn at `train.tuned_lr`


class Method(ABC):
    """One way to carry a slot to a reader. Subclasses are dataclasses; their fields are their configuration."""

    def prepare(self, reader: Reader, counts: Counts, weights: Weights | None = None) -> None:  # noqa: B027
        """Fit in closed form what the method needs, from `counts [V]`, how often each token occurs in the corpus.

        `weights [V]` says how much each token will count in training, where that is more than the corpus.
        Called once before the first `encode` of a method that was not loaded. Most methods need nothing.
        """

    @abstractmethod
    def encode(self, slots: Sequence[Slot], reader: Reader) -> list[Latent]:
        """One latent per slot (sender's side)."""

    @abstractmethod
    def prefix(self, latents: Sequence[Latent], reader: Reader) -> Prefix:
        """The reader's prefix from latents as they came off the wire (receiver's side); differentiable."""

    def training_prefix(self, slots: Sequence[Slot], reader: Reader) -> Prefix:
        """What training reads: the ladder's own way from slot to prefix, differentiable in all that is trained.

        As it stands, gradients end at the wire; a method that trains its encoder overrides it.
        """
        return self.prefix([transmit(latent)[0] for latent in self.encode(slots, reader)], reader)

    def draw(self, seed: int, step: int, slots: Sequence[Slot]) -> None:  # noqa: B027
        """Called before each training step with all of its slots, for methods that train for several settings in turn."""

    def gather(self, asked: AnswersByText, folder: Path, limit_bytes: int, progress: Progress) -> None:  # noqa: B027
        """Called once before training, with the text of each slot and the answers to what is asked about it: learn and compute what
        `encode` needs of them but training does not change."""

    def publish(self, folder: Path, readers: Sequence[Reader]) -> bool:
        """Called once after training, before weights are saved: write into `folder` what others load, true where there is such
        a thing. What is written is what the method computes with from then on."""
        return False

    def cut(self, slots: Sequence[Slot], latents: Sequence[Latent]) -> list[bool] | None:
        """For methods that shorten text: whether each slot lost any. None for methods that never do."""
        return None

    @property
    def total_variance(self) -> float:
        """Variance of the corpus' embeddings; only per-token methods know it."""
        raise MethodError(f"method {type(self).__name__} knows no variance of embeddings; use objectives on examples")

    def restore(self, ids: Tensor, reader: Reader) -> Tensor:
        """Embeddings `[N, D]` float32 of tokens `[N]` after encoding and decoding; only per-token methods can."""
        raise MethodError(
            f"method {type(self).__name__} has no per-token decoder, but an objective of it needs token batches; use"
            " objectives on examples"
        )

    def module(self) -> nn.Module:
        """What training moves: the parameters that require a gradient."""
        return nn.Module()

    def tensors(self) -> dict[str, Tensor]:
        """All that `load` needs to bring a prepared or trained method back."""
        return dict(self.module().state_dict())

    def load(self, tensors: Mapping[str, Tensor], reader: Reader) -> None:
        """Restore what `tensors` gave, for the same reader."""
        self.module().load_state_dict(dict(tensors))


METHODS: Registry[type[Method]] = Registry("method", group="latentwire.methods")


def decoder_parameters(method: Method) -> int:
    """How many trainable parameters stand between latent and prefix."""
    return sum(parameter.numel() for parameter in method.module().parameters() if parameter.requires_grad)


def id_tensor(ids: Sequence[int]) -> Tensor:
    """Token ids `[S]` as an int64 tensor."""
    return torch.tensor(ids, dtype=torch.long)


from latentwire.methods import (  # noqa: E402, F401
    among,
    control,
    embeddings,
    mlp,
    per_token,
    pooled,
    relay,
    rewritten,
    surprising,
    text,
    tuned,
    wire,
)
