"""Which tokens texts like the corpus may hold, by the frozen reader's own expectation: odds over the vocabulary, `[V]`.

An evaluation holds tokens that no training text does, names above all. The reader has read far more than the corpus and
knows which of its tokens such texts may bring: Gemma's table has 262,144 rows, and most are of other languages.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from latentwire.corpus import Corpus
from latentwire.reader import Prefix, Reader

EXAMPLES = 32
POSITIONS = 32


@torch.no_grad()
def expected_odds(
    reader: Reader, corpus: Corpus, batch: int, progress: Callable[[float, str], None] = lambda done, remark: None
) -> npt.NDArray[np.float64]:
    """Odds `[V]`, which sum to 1: the root of the reader's mean next-token distribution.

    The root lies between drawing every row alike, which spends most draws on rows that no text needs, and drawing by
    probability, which spends them on words that the corpus is full of (the 0.75 of Mikolov et al. 2013, arXiv 1310.4546,
    section 2.2, in the same part; 0.25 and 0.75 were tried here, see LOG.md).

    Args:
        reader: The frozen reader.
        corpus: Prompts; up to 32 of them are read, drawn evenly by the corpus' seed, at 32 positions each.
        batch: Prompts read at once.
        progress: Called with the share done and a remark.
    """
    draw = np.random.default_rng([corpus.seed, 6])
    chosen = corpus.sample(EXAMPLES)
    total = torch.zeros(reader.vocab_size, dtype=torch.float64)
    for start in range(0, len(chosen), batch):
        hidden = _states(reader, corpus, chosen[start : start + batch])
        count = min(len(hidden), POSITIONS * len(chosen[start : start + batch]))
        places = torch.from_numpy(draw.choice(len(hidden), size=count, replace=False))
        for states in hidden[places].split(reader.logits_at_once):
            total += reader.head(states).float().softmax(dim=-1).double().sum(dim=0).cpu()
        progress(min(1.0, (start + batch) / len(chosen)), "")
    odds = total.sqrt().numpy()
    return np.asarray(odds / odds.sum())


def _states(reader: Reader, corpus: Corpus, chosen: list[int]) -> Tensor:
    """Hidden states `[N, D]` at all positions of the prompts."""
    prompts = [corpus.prompts[index] for index in chosen]
    prefix = Prefix.stack([reader.embed(torch.tensor(prompt.slot.ids)) for prompt in prompts])
    inputs = reader.lay_in(prompts, prefix)
    return reader.hidden_states(inputs)[inputs.mask]
