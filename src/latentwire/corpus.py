"""`Corpus`: training examples laid out as prompts, and the batches that each step draws from them.

Every draw is a function of (seed, step) alone, so a resumed training sees what an undisturbed one would have seen.
"""

from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

from latentwire.data import Example
from latentwire.errors import DataError
from latentwire.reader import Prompt, Reader, Scope

Ids = npt.NDArray[np.int64]
Odds = npt.NDArray[np.float64]
BUCKET_BATCHES = 16
ROWS_PER_TOKEN = 2
TOGETHER = 4  # questions about one context in a step; what they share is read once


class Corpus:
    """Prompts of one reader in one scope.

    Args:
        reader: Whose tokenizer and layout make the prompts.
        examples: What is laid out.
        scope: What passes the bottleneck.
        seed: Seed of every draw.
        progress: Called with (share of the prompts laid out, a remark).

    Attributes:
        reader: The reader.
        odds: `[V]`, how likely each vocabulary row is drawn into a step (`expected.py`); None draws all alike.
    """

    def __init__(
        self,
        reader: Reader,
        examples: Sequence[Example],
        scope: Scope,
        seed: int,
        progress: Callable[[float, str], None] = lambda done, remark: None,
    ) -> None:
        if not examples:
            raise DataError("expected at least one training example, got none; raise data.limit")
        self.reader = reader
        self.examples = list(examples)
        self.prompts: list[Prompt] = []
        for number, example in enumerate(self.examples, 1):
            self.prompts.append(reader.prompt(example, scope))
            progress(number / len(self.examples), "")
        self.labels = [reader.prompter.labels(example.answers[0]) for example in examples]
        self.seed = seed
        self.vocab_size = reader.vocab_size
        self.odds: Odds | None = None
        self._lengths = np.array([len(prompt.slot.ids) for prompt in self.prompts])
        self._starts = np.concatenate([[0], np.cumsum(self._lengths)])
        self._stream: Ids = np.fromiter(
            (token for prompt in self.prompts for token in prompt.slot.ids), dtype=np.int64, count=int(self._starts[-1])
        )

    @property
    def num_tokens(self) -> int:
        """Tokens in all slots together."""
        return len(self._stream)

    @cached_property
    def counts(self) -> Ids:
        """How often each token of the vocabulary occurs in the slots, `[V]`."""
        return np.bincount(self._stream, minlength=self.vocab_size)

    def weights(self, vocabulary_share: float) -> npt.NDArray[np.float64]:
        """How much each token counts in training, `[V]`, summing to 1: what the draws of `tokens` come to."""
        expected = np.zeros(self.vocab_size)
        expected[self._common_rows] = 1.0 if self.odds is None else self.odds[self._common_rows]
        seen = self.counts / self.num_tokens
        mixed: npt.NDArray[np.float64] = seen * (1 - vocabulary_share) + expected * (vocabulary_share / expected.sum())
        return mixed

    @cached_property
    def heldout_rows(self) -> Ids:
        """One in fifty of the tokens that never occur in the corpus: never trained on, kept to measure decoders."""
        unseen = np.flatnonzero(self.counts == 0)
        chosen = np.random.default_rng([self.seed, 1]).permutation(unseen)[: max(1, len(unseen) // 50)]
        return np.sort(chosen)

    def token_steps(self, batch_tokens: int) -> int:
        """Steps of one epoch over tokens."""
        return -(-self.num_tokens // batch_tokens)

    def example_steps(self, batch_examples: int) -> int:
        """Steps of one epoch over examples."""
        return -(-len(self.examples) // batch_examples)

    def tokens(self, step: int, batch_tokens: int, vocabulary_share: float) -> tuple[Ids, npt.NDArray[np.float32]]:
        """Distinct tokens `[U]` of step `step` and their weights `[U]`, which sum to 1.

        A share of the weight goes to tokens drawn by `odds` from the whole vocabulary (held-out rows excepted), twice as
        many as there are distinct ones, because an evaluation holds tokens that no training text does.
        """
        epoch, place = divmod(step, self.token_steps(batch_tokens))
        order, starts = self._epoch(epoch)
        first, last = place * batch_tokens, min((place + 1) * batch_tokens, self.num_tokens)
        begin = int(np.searchsorted(starts, first, side="right")) - 1
        end = int(np.searchsorted(starts, last, side="left"))
        run = np.concatenate([self._stream[self._starts[i] : self._starts[i + 1]] for i in order[begin:end]])
        distinct, counts = np.unique(run[first - starts[begin] : last - starts[begin]], return_counts=True)
        weights = counts / counts.sum()
        if vocabulary_share:
            extra = self._vocabulary_rows(step, ROWS_PER_TOKEN * len(distinct))
            even = np.full(len(extra), vocabulary_share / len(extra))
            weights = np.concatenate([weights * (1 - vocabulary_share), even])
            distinct, places = np.unique(np.concatenate([distinct, extra]), return_inverse=True)
            weights = np.bincount(places, weights)
        return distinct, weights.astype(np.float32)

    def batch(self, step: int, batch_examples: int) -> list[int]:
        """Indices of the examples of step `step`: shuffled, neighbours in length and questions about one context together."""
        epoch, place = divmod(step, self.example_steps(batch_examples))
        return self._batches(epoch, batch_examples)[place]

    def sample(self, count: int) -> list[int]:
        """Indices of `count` examples (all, where there are fewer) drawn evenly, in the order of their length."""
        draw = np.random.default_rng([self.seed, 5])
        chosen = draw.choice(len(self.prompts), size=min(count, len(self.prompts)), replace=False)
        return sorted(chosen.tolist(), key=lambda index: int(self._lengths[index]))

    def _vocabulary_rows(self, step: int, count: int) -> Ids:
        rows = self._common_rows
        cumulative = np.cumsum(np.ones(len(rows)) if self.odds is None else self.odds[rows])
        places = np.random.default_rng([self.seed, 2, step]).random(count) * cumulative[-1]
        found: Ids = rows[np.searchsorted(cumulative[:-1], places, side="right")]
        return found

    @cached_property
    def _common_rows(self) -> Ids:
        return np.setdiff1d(np.arange(self.vocab_size), self.heldout_rows)

    def _epoch(self, epoch: int) -> tuple[Ids, Ids]:
        if getattr(self, "_cached_epoch", None) != epoch:
            order = np.random.default_rng([self.seed, 3, epoch]).permutation(len(self.prompts))
            self._cached_order = order, np.concatenate([[0], np.cumsum(self._lengths[order])])
            self._cached_epoch = epoch
        return self._cached_order

    def _batches(self, epoch: int, size: int) -> list[list[int]]:
        if getattr(self, "_cached_batches_of", None) != (epoch, size):
            draw = np.random.default_rng([self.seed, 4, epoch])
            units = self._units(epoch)
            order = [units[place] for place in draw.permutation(len(units))]
            per_bucket = max(1, size * BUCKET_BATCHES * len(units) // len(self.prompts))
            flat: list[int] = []
            for start in range(0, len(order), per_bucket):
                bucket = sorted(order[start : start + per_bucket], key=lambda unit: self._lengths[unit[0]])
                flat += [index for unit in bucket for index in unit]
            cut = [flat[first : first + size] for first in range(0, len(flat), size)]
            batches: list[list[int]] = []
            for start in range(0, len(cut), BUCKET_BATCHES):
                part = cut[start : start + BUCKET_BATCHES]
                batches += [part[place] for place in draw.permutation(len(part))]
            self._cached_batches = batches
            self._cached_batches_of = (epoch, size)
        return self._cached_batches

    def _units(self, epoch: int) -> list[list[int]]:
        """Examples that stay side by side in an epoch: up to `TOGETHER` with the same slot, drawn anew each epoch."""
        draw = np.random.default_rng([self.seed, 6, epoch])
        found: list[list[int]] = []
        for group in self._alike:
            order = [group[place] for place in draw.permutation(len(group))] if len(group) > 1 else group
            found += [order[first : first + TOGETHER] for first in range(0, len(order), TOGETHER)]
        return found

    @cached_property
    def _alike(self) -> list[list[int]]:
        """Examples grouped by their slot."""
        groups: dict[tuple[int, ...], list[int]] = {}
        for index, prompt in enumerate(self.prompts):
            groups.setdefault(prompt.slot.ids, []).append(index)
        return list(groups.values())
