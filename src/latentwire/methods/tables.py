"""Token embeddings of one model and of another: what an adapter starts from that serves a reader of another family.

tokens of the encoder, each as the reader spells it ─ token_pairs ─▶ Pairs ─ weighted least squares ─▶ linear map (adapter.py goes on)
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from latentwire.errors import MethodError
from latentwire.methods import Counts, id_tensor
from latentwire.reader import Reader

ABSENT = 0.01  # weight of a token that the texts do not hold; one that they hold c times has sqrt(c) more


@dataclass(frozen=True)
class Pairs:
    """Tokens of one model and what they are in another.

    Attributes:
        ids: `[N]`, the first model's.
        rows: `[N, d]`, their embeddings, in units of the first model's root mean square.
        targets: `[N, D]`, the other's, in units of its own.
    """

    ids: Tensor
    rows: Tensor
    targets: Tensor

    def weights(self, counts: Counts) -> Tensor:
        """How much each token counts, `[N]`, where texts hold the first model's tokens so often: `counts [V]`."""
        return torch.from_numpy(np.sqrt(counts[self.ids.numpy()])).float() + ABSENT


def token_pairs(encoder: Reader, reader: Reader) -> Pairs:
    """Every token of the encoder with a text of its own, and the mean of the reader's tokens that spell it.

    Raises:
        MethodError: The two vocabularies share too few tokens for a map.
    """
    theirs = {text: token for token, text in _texts(reader).items()}
    ours = _texts(encoder)
    shared = sum(text in theirs for text in ours.values())
    if shared <= encoder.width:
        raise MethodError(
            f"expected more than {encoder.width} tokens that '{encoder.name}' and '{reader.name}' both have, got"
            f" {shared}; choose a reader with a vocabulary of the same script"
        )
    spelt = {
        token: (theirs[text],) if text in theirs else reader.prompter.slot(text).ids for token, text in ours.items()
    }
    spelt = {token: parts for token, parts in spelt.items() if parts}
    sizes = torch.tensor([len(parts) for parts in spelt.values()])
    pieces = reader.embed(id_tensor([part for parts in spelt.values() for part in parts])).float().cpu()
    sums = torch.zeros(len(sizes), reader.width)
    sums.index_add_(0, torch.arange(len(sizes)).repeat_interleave(sizes), pieces)
    ids = torch.tensor(list(spelt))
    rows = encoder.embed(ids).float().cpu()
    return Pairs(ids, rows / encoder.rms, sums / sizes[:, None] / reader.rms)


def linear_map(pairs: Pairs, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Weight `[d, D]` and bias `[D]` by weighted least squares, in fp64.

    Source: Mikolov et al. 2013, Exploiting Similarities among Languages for Machine Translation (arXiv 1309.4168, section 4); weights
    and constant are ours.
    """
    rows = torch.cat([pairs.rows, torch.ones(len(pairs.rows), 1)], dim=1).double()
    weighted = (weights[:, None] * rows).T
    gram = weighted @ rows
    ridge = 1e-6 * gram.diagonal().mean() * torch.eye(len(gram), dtype=torch.float64)
    solved = torch.linalg.solve(gram + ridge, weighted @ pairs.targets.double()).float()
    return solved[:-1], solved[-1]


def _texts(reader: Reader) -> dict[int, str]:
    """Text of each token that has one of its own."""
    special = set(reader.tokenizer.all_special_ids)
    ids = [token for token in range(min(reader.vocab_size, len(reader.tokenizer))) if token not in special]
    found = dict(zip(ids, reader.tokenizer.batch_decode([[token] for token in ids]), strict=True))
    return {token: text for token, text in found.items() if text and "\ufffd" not in text}
