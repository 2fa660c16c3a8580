"""`Adapter`: the receiver's trained half of a wire: latents as one reader's embeddings, behind its task tokens.

latents [M, d] ── linear, and one hidden layer that starts at zero ──▶ [M, D] x the reader's scale, behind task tokens [T, D]

All that is trained is in units of the reader's own embeddings, so that one learning rate serves readers whose embeddings differ
many times over in size.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentwire.errors import MethodError
from latentwire.methods import id_tensor
from latentwire.reader import Reader
from latentwire.reader.prompts import INSTRUCTION

ROWS_AT_ONCE = 8192


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
        moved: Tensor = latents @ self.weight + self.bias + self.residual(F.gelu(self.mix(latents)))
        return self.scale * moved

    def leading(self) -> Tensor:
        """Embeddings `[T, D]` of the task tokens."""
        return self.scale * self.task_tokens


@torch.no_grad()
def start_adapter(encoder: Reader, reader: Reader, task_tokens: int, hidden: int) -> Adapter:
    """An adapter that starts where latents are the encoder's embeddings: the identity for the encoder's own model, else the map
    between the two tables that least squares finds over the tokens whose strings both have.

    Source: Mikolov et al. 2013, Exploiting Similarities among Languages for Machine Translation (arXiv 1309.4168, section 4).

    Raises:
        MethodError: The two vocabularies share too few tokens for a map.
    """
    if encoder.fingerprint == reader.fingerprint:
        weight, bias = torch.eye(encoder.width), torch.zeros(encoder.width)
    else:
        weight, bias = _table_map(encoder, reader)
    ids = reader.prompter.slot(INSTRUCTION).ids
    started = reader.embed(id_tensor((ids * -(-task_tokens // len(ids)))[:task_tokens])).float()
    unit = encoder.rms / reader.rms
    return Adapter(unit * weight, bias / reader.rms, started / reader.rms, hidden, reader.rms).to(reader.device)


def shared_tokens(encoder: Reader, reader: Reader) -> tuple[Tensor, Tensor]:
    """Ids `[N]` in either vocabulary of the tokens that decode to the same text."""
    theirs = {text: token for token, text in _texts(reader).items()}
    pairs = [(token, theirs[text]) for token, text in _texts(encoder).items() if text in theirs]
    both = torch.tensor(pairs, dtype=torch.long).view(-1, 2)
    return both[:, 0], both[:, 1]


def _texts(reader: Reader) -> dict[int, str]:
    """Text of each token that has one of its own."""
    special = set(reader.tokenizer.all_special_ids)
    ids = [token for token in range(min(reader.vocab_size, len(reader.tokenizer))) if token not in special]
    found = dict(zip(ids, reader.tokenizer.batch_decode([[token] for token in ids]), strict=True))
    return {token: text for token, text in found.items() if text and "\ufffd" not in text}


def _table_map(encoder: Reader, reader: Reader) -> tuple[Tensor, Tensor]:
    """Least squares with a constant, by normal equations in fp64 over chunks of the tables."""
    ours, theirs = shared_tokens(encoder, reader)
    if len(ours) <= encoder.width:
        raise MethodError(
            f"expected more than {encoder.width} tokens that '{encoder.name}' and '{reader.name}' both have, got"
            f" {len(ours)}; choose a reader with a vocabulary of the same script"
        )
    size = encoder.width + 1
    gram, cross = torch.zeros(size, size, dtype=torch.float64), torch.zeros(size, reader.width, dtype=torch.float64)
    for left, right in zip(ours.split(ROWS_AT_ONCE), theirs.split(ROWS_AT_ONCE), strict=True):
        rows = encoder.embed(left).double().cpu()
        rows = torch.cat([rows, torch.ones(len(rows), 1, dtype=torch.float64)], dim=1)
        gram += rows.T @ rows
        cross += rows.T @ reader.embed(right).double().cpu()
    ridge = 1e-6 * gram.diagonal().mean() * torch.eye(size, dtype=torch.float64)
    solved = torch.linalg.solve(gram + ridge, cross).float()
    return solved[:-1], solved[-1]
