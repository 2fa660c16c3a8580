"""`Dictionary`: the encoder's tokens as another model spells them, for latents that start as embeddings of tokens.

latents [M, d] ─ nearest of the encoder's embeddings ─▶ tokens ─▶ the reader's embeddings of the same text [M, D]

A latent stays nearest to the token that it started from (99.9 % of them, LOG.md). So a reader of another family is given that token as it
knows it itself, whichever texts the wire was trained on, and only what the latent says beyond it is left to be learnt.
"""

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from latentwire.errors import MethodError
from latentwire.methods import id_tensor
from latentwire.reader import Reader

LATENTS_AT_ONCE = 512  # each is compared with every token of the encoder
SCORES_AT_ONCE = 8  # latents whose scores of all tokens stay in a core's cache
FEWEST = 10  # one of so many tokens must be the reader's too
ABSENT = -1  # in place of a token, where a text is spelt by fewer than the longest


class Dictionary:
    """Every token of the encoder with a text of its own, and the reader's tokens that spell it.

    Args:
        encoder: The model whose embeddings latents start from, in units of their root mean square.
        reader: The model that reads them.

    Raises:
        MethodError: The reader has a token of its own for too few of them.
    """

    @torch.no_grad()
    def __init__(self, encoder: Reader, reader: Reader) -> None:
        theirs = {text: token for token, text in _texts(reader).items()}
        ours = _texts(encoder)
        spelt = {
            token: (theirs[text],) if text in theirs else reader.prompter.slot(text).ids for token, text in ours.items()
        }
        parts = [id_tensor(spelt.get(token, ())) for token in range(encoder.vocab_size)]
        self.parts = pad_sequence(parts, batch_first=True, padding_value=ABSENT)
        sizes = (self.parts != ABSENT).sum(dim=1)
        shared = int((sizes == 1).sum())
        if shared <= len(ours) // FEWEST:
            raise MethodError(
                f"expected a token of '{reader.name}' for more than one in {FEWEST} of the {len(ours)} of '{encoder.name}',"
                f" got {shared}; choose a reader with a vocabulary of the same script"
            )
        self.weight = encoder.model.get_input_embeddings().weight  # not a copy: it may be large
        some = id_tensor(list(spelt))[:1]
        scale = float(encoder.embed(some).norm() / self.weight[some].norm())  # some models scale what they look up
        lengths = torch.cat([rows.square().sum(dim=1) for _, rows in encoder.table()]) / encoder.rms**2
        halves = lengths / 2 * encoder.rms / scale  # as products are: of latents in units, and embeddings that are not
        self.halves = torch.where(sizes.to(lengths.device) > 0, halves, torch.inf)

    @torch.no_grad()
    def spell(self, latents: Tensor, reader: Reader) -> Tensor:
        """The reader's embeddings `[M, D]` of the texts that latents `[M, d]` are nearest to (the mean, where several tokens spell one), in
        units of the reader's root mean square; no gradient passes."""
        found = torch.cat([self._nearest(some) for some in latents.to(self.weight.device).split(LATENTS_AT_ONCE)])
        parts = self.parts[found.cpu()].to(reader.device)
        there = parts != ABSENT
        whose = there.nonzero()[:, 0]
        sums = torch.zeros(len(parts), reader.width, device=parts.device)
        sums.index_add_(0, whose, reader.embed(parts[there]).float())
        return sums / there.sum(dim=1, keepdim=True) / reader.rms

    def _nearest(self, latents: Tensor) -> Tensor:
        """The token that each latent is nearest to, `[M]`: the largest product, less half of the squared length."""
        products = latents.to(self.weight.dtype) @ self.weight.T
        few = products.split(SCORES_AT_ONCE)
        return torch.cat([some.float().sub_(self.halves).argmax(dim=1) for some in few])


def _texts(reader: Reader) -> dict[int, str]:
    """Text of each token that has one of its own."""
    special = set(reader.tokenizer.all_special_ids)
    ids = [token for token in range(min(reader.vocab_size, len(reader.tokenizer))) if token not in special]
    found = dict(zip(ids, reader.tokenizer.batch_decode([[token] for token in ids]), strict=True))
    return {token: text for token, text in found.items() if text and "\ufffd" not in text}
