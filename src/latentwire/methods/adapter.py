"""`Adapter`: the receiver's trained half of a wire: latents as one reader's embeddings, behind its task tokens.

latents [M, d] ── linear, and one hidden layer ──▶ [M, D] x the reader's scale, behind task tokens [T, D]

All that is trained is in units of the reader's own embeddings, so that one learning rate serves readers whose embeddings differ
many times over in size.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentwire.methods import Counts, Progress, id_tensor
from latentwire.methods.tables import Pairs, linear_map
from latentwire.reader import Reader
from latentwire.reader.prompts import INSTRUCTION

TABLE_STEPS = 500  # of fitting a hidden layer to two tables of embeddings
TABLE_ROWS = 2048  # of them in each
TABLE_LR = 2e-3


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

    def forward(self, latents: Tensor) -> Tensor:
        """Embeddings `[M, D]` of latents `[M, d]`, without the task tokens."""
        moved: Tensor = latents @ self.weight + self.bias + self.bent(latents)
        return self.scale * moved

    def bent(self, latents: Tensor) -> Tensor:
        """What the hidden layer adds to the linear map, `[M, D]` in the reader's units."""
        added: Tensor = self.residual(F.gelu(self.mix(latents)))
        return added

    def leading(self) -> Tensor:
        """Embeddings `[T, D]` of the task tokens."""
        return self.scale * self.task_tokens


@torch.no_grad()
def start_adapter(encoder: Reader, reader: Reader, pairs: Pairs | None, task_tokens: int, hidden: int) -> Adapter:
    """An adapter that starts where latents are the encoder's embeddings: the identity for the encoder's own model, else the linear map
    between the two tables, in which all tokens count alike."""
    if pairs is None:
        weight, bias = torch.eye(encoder.width), torch.zeros(encoder.width)
    else:
        weight, bias = linear_map(pairs, torch.ones(len(pairs.ids)))
    ids = reader.prompter.slot(INSTRUCTION).ids
    started = reader.embed(id_tensor((ids * -(-task_tokens // len(ids)))[:task_tokens])).float()
    return Adapter(weight, bias, started / reader.rms, hidden, reader.rms).to(reader.device)


def fit_tables(adapter: Adapter, pairs: Pairs, counts: Counts, progress: Progress) -> None:
    """Fit an adapter, in place, to make the encoder's embeddings the reader's: its linear map by least squares, then its hidden layer by
    Adam at a rate that falls to zero. Tokens count by how often texts hold them, `counts [V]`.

    Where all tokens count alike, a linear map leaves two fifths of the variance of what texts are made of (LOG.md).
    """
    weights, device = pairs.weights(counts), adapter.weight.device
    weight, bias = linear_map(pairs, weights)
    left = (pairs.targets - pairs.rows @ weight - bias).to(device)
    with torch.no_grad():
        adapter.weight.copy_(weight)
        adapter.bias.copy_(bias)
    rows, draws = pairs.rows.to(device), torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam([*adapter.mix.parameters(), *adapter.residual.parameters()], TABLE_LR, fused=True)
    for step in range(TABLE_STEPS):
        for group in optimizer.param_groups:
            group["lr"] = TABLE_LR * (1 - step / TABLE_STEPS)
        drawn = torch.multinomial(weights, TABLE_ROWS, replacement=True, generator=draws).to(device)
        loss = F.mse_loss(adapter.bent(rows[drawn]), left[drawn])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        progress(step / TABLE_STEPS, "from one model's embeddings to another's")
