"""`Adapter`: the receiver's trained half of a wire: latents as one reader's embeddings, behind its task tokens.

latents [M, d] ─┬─ linear, and one hidden layer ──────▶ + ──▶ [M, D] x the reader's scale, behind task tokens [T, D]
                └─ another family's: the token itself ▶ ┘

All that is trained is in units of the reader's own embeddings, so that one learning rate serves readers whose embeddings differ
many times over in size.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentwire.methods import id_tensor
from latentwire.reader import Reader
from latentwire.reader.prompts import INSTRUCTION


class Adapter(nn.Module):
    """One reader's own part of a wire.

    Args:
        weight: `[d, D]`, where the linear map starts.
        bias: `[D]`, the same.
        task_tokens: `[T, D]`, where the task tokens start.
        hidden: Units of the hidden layer.
        scale: Root mean square of the reader's embeddings, in which the others are measured.
    """

    scale: Tensor

    def __init__(self, weight: Tensor, bias: Tensor, task_tokens: Tensor, hidden: int, scale: float | Tensor) -> None:
        super().__init__()
        width, out = weight.shape
        self.register_buffer("scale", torch.as_tensor(scale, dtype=torch.float32))
        self.weight, self.bias = nn.Parameter(weight.clone()), nn.Parameter(bias.clone())
        self.task_tokens = nn.Parameter(task_tokens.clone())
        self.mix = nn.Linear(width, hidden)
        self.residual = nn.Linear(hidden, out)
        nn.init.zeros_(self.residual.weight)
        nn.init.zeros_(self.residual.bias)

    def forward(self, latents: Tensor, told: Tensor | None = None) -> Tensor:
        """Embeddings `[M, D]` of latents `[M, d]`, without the task tokens; beside those `[M, D]`, in the reader's units, that a reader
        of another family is told."""
        moved: Tensor = latents @ self.weight + self.bias + self.residual(F.gelu(self.mix(latents)))
        return self.scale * (moved if told is None else moved + told)

    def leading(self) -> Tensor:
        """Embeddings `[T, D]` of the task tokens."""
        return self.scale * self.task_tokens


@torch.no_grad()
def start_adapter(width: int, reader: Reader, told: bool, task_tokens: int, hidden: int) -> Adapter:
    """An adapter that starts where a latent of `width` itself did, at a token's embedding: the latent is that, or the reader is told it."""
    weight = torch.zeros(width, reader.width) if told else torch.eye(width, reader.width)
    ids = reader.prompter.slot(INSTRUCTION).ids
    started = reader.embed(id_tensor((ids * -(-task_tokens // len(ids)))[:task_tokens])).float()
    return Adapter(weight, torch.zeros(reader.width), started / reader.rms, hidden, reader.rms).to(reader.device)
