"""`Keeper`: which words of a text are worth keeping, as learnt from what was asked about other texts.

    hidden states at a word's last token and at the one after it, and how surprising it was ─ linear ─▶ how likely an answer has it

It never sees the question: it learns what kind of words are asked for, as a frozen language model tells them apart. Until it has
learnt, words count by their surprise alone (`surprise.py`).

Source: LLMLingua-2 (Pan et al. 2024, arXiv 2403.12968, section 4) trains a whole encoder to classify tokens by what a larger model would
keep; a linear classifier on the frozen encoder's states, and gold answers as what to keep, are ours.
"""

import hashlib

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentwire.errors import MethodError
from latentwire.surprise import word_surprise

FARTHEST = 8.0  # deviations
SHRINKAGE = 1.5  # times features over words: the fewer words there are for each feature, the less a weight may differ
ITERATIONS = 100
LAYERS = 2  # of those that the encoder keeps, from a third of them on: neither words alone nor what comes next
COUNTS = 3  # features beside the states


class Keeper(nn.Module):
    """A logistic regression over the words of a text; all of it in half precision's values, so that a wire holds it exactly.

    Args:
        width: `D` of the encoder.
        num_layers: `K`, hidden states that the encoder keeps of each token.
    """

    weight: Tensor
    bias: Tensor
    shift: Tensor
    scale: Tensor

    def __init__(self, width: int, num_layers: int) -> None:
        super().__init__()
        first = num_layers // 3
        self.layers = slice(first, first + LAYERS)
        size = 2 * width * len(range(num_layers)[self.layers]) + COUNTS
        for name in ("weight", "shift"):
            self.register_buffer(name, torch.zeros(size))
        self.register_buffer("scale", torch.ones(size))
        self.register_buffer("bias", torch.zeros(1))

    @property
    def learnt(self) -> bool:
        """Whether it has learnt anything."""
        return bool(self.weight.any())

    @property
    def digest(self) -> str:
        """A short name for what it has learnt."""
        hashed = hashlib.sha256()
        for part in self.state_dict().values():
            hashed.update(part.cpu().numpy().tobytes())
        return f"kept{hashed.hexdigest()[:12]}"

    def features(self, states: Tensor, surprise: Tensor, word: Tensor) -> Tensor:
        """What the words of a window are judged by, `[N, F]`, from `states [T, K, D]`, `surprise [T]` and `word [T]`, the number of
        each token's word."""
        sizes = word.bincount()
        last = sizes.cumsum(0) - 1
        after = (last + 1).clamp(max=len(word) - 1)
        seen = states[:, self.layers].flatten(1).float()
        first = surprise.clamp(max=FARTHEST)[last + 1 - sizes]
        counts = torch.stack([word_surprise(surprise, word).clamp(max=4 * FARTHEST), first, sizes.float()], dim=1)
        return torch.cat([seen[last], seen[after], counts], dim=1)

    def forward(self, features: Tensor) -> Tensor:
        """Log odds `[N]` that a word is asked for, from `features [N, F]`."""
        deviations = ((features - self.shift) / self.scale).clamp(-FARTHEST, FARTHEST)
        return deviations @ self.weight + self.bias

    def learn(self, features: Tensor, asked: Tensor) -> None:
        """Fit by L-BFGS: `features [N, F]` of words, and whether each was `asked [N]` for. What was learnt before is where it starts, and
        what it shrinks to.

        Raises:
            MethodError: All words were asked for, or none: there is nothing to tell apart.
        """
        if not 0 < int(asked.sum()) < len(asked):
            raise MethodError(f"expected words that are asked for and words that are not, got {len(asked)} of one kind")
        if not self.learnt:
            spread, mean = torch.std_mean(features.float(), dim=0)
            self.shift.copy_(mean.half())
            self.scale.copy_(spread.clamp(min=1e-3 * float(spread.mean())).half())
        seen = (features - self.shift).div_(self.scale).clamp_(-FARTHEST, FARTHEST)
        shrinkage = SHRINKAGE * seen.shape[1] / len(seen)
        weight, bias = self.weight.clone().requires_grad_(), self.bias.clone().requires_grad_()
        optimizer = torch.optim.LBFGS([weight, bias], max_iter=ITERATIONS, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            optimizer.zero_grad()
            total = F.binary_cross_entropy_with_logits(seen @ weight + bias, asked.float())
            total = total + shrinkage * (weight - self.weight).square().sum()
            total.backward()
            return total

        optimizer.step(loss)
        self.weight.copy_(weight.detach().half())
        self.bias.copy_(bias.detach().half())
