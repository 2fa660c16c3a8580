"""`Feed`: what the training steps of one reader are made of.

corpus ─▶ prompts of step s ─▶ encode ─▶ wire ─▶ prefix ─▶ laid in, beside the true prompts ─▶ batch
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from latentwire.balance import Balance
from latentwire.config import TrainSpec
from latentwire.corpus import Corpus
from latentwire.fisher import fisher_metric
from latentwire.methods import Method
from latentwire.objectives import Batch, ExampleBatch, Objective, TokenBatch
from latentwire.reader import Prefix, Reader, Slot
from latentwire.team import ALONE, Team

ROLLOUT_TOKENS = 16
ROLLOUT_EVERY = 8  # steps


@dataclass
class Feed:
    """Batches of one reader's corpus, each a function of the step.

    Attributes:
        method: What is trained.
        corpus: Prompts of the frozen reader that it is trained for.
        spec: Sizes and precision.
        balance: Combines the gradients of this reader's steps.
        task: Opens a progress bar by its words.
        rollouts: What a compressed prompt led the reader to answer, by the example's index.
    """

    method: Method
    corpus: Corpus
    spec: TrainSpec
    balance: Balance
    task: Callable[[str], Callable[[float, str], None]]
    rollouts: dict[int, tuple[int, ...]] = field(default_factory=dict)

    @property
    def reader(self) -> Reader:
        """The frozen reader."""
        return self.corpus.reader

    def batches(self, goals: Sequence[Objective], step: int, team: Team = ALONE) -> Iterator[tuple[Batch, bool]]:
        """The step's batches for objectives that need the same kind, made one at a time: this process' share of them.

        With each comes whether it counts: where processes must read in step, one that has no further batch reads one again.
        A token batch is one for all, since it holds each token once.
        """
        kind = goals[0].needs
        if kind == "tokens":
            yield self._token_batch(step, any(goal.metric for goal in goals)), True
            return
        chosen = self.corpus.batch(step, self.spec.batch_examples)
        if kind == "rollouts":
            self._refresh_rollouts(step)
        labels = self.rollouts if kind == "rollouts" else self.corpus.labels
        parts = [chosen[start : start + self.spec.micro] for start in range(0, len(chosen), self.spec.micro)]
        own = [(part, True) for part in parts[team.rank :: team.size]]
        if team.shards and len(own) < -(-len(parts) // team.size):
            own.append((parts[0], False))
        for part, counts in own:
            yield self._example_batch(part, labels), counts

    def slots(self, step: int) -> list[Slot]:
        """The slots of the step's examples."""
        return [self.corpus.prompts[index].slot for index in self.corpus.batch(step, self.spec.batch_examples)]

    def names(self, step: int) -> list[str]:
        """Ids of the step's examples."""
        return [self.corpus.examples[index].id for index in self.corpus.batch(step, self.spec.batch_examples)]

    def state(self) -> dict[str, Any]:
        """What `restore` needs to go on as if nothing had happened."""
        return {
            "averages": dict(self.balance.averages),
            "updates": self.balance.updates,
            "rollouts": {index: list(ids) for index, ids in self.rollouts.items()},
            "metric": self.__dict__.get("_metric"),
            "odds": None if self.corpus.odds is None else torch.from_numpy(self.corpus.odds),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from where `state` was taken."""
        self.balance.averages, self.balance.updates = dict(state["averages"]), int(state["updates"])
        self.rollouts = {int(index): tuple(ids) for index, ids in state["rollouts"].items()}
        if state["metric"] is not None:
            self._metric = state["metric"]

    @cached_property
    def _metric(self) -> Tensor:
        """What the reader is sensitive to; measured once, when an objective first asks for it."""
        progress = self.task("measuring what the reader is sensitive to")
        return fisher_metric(self.reader, self.corpus, self.spec.micro, progress)

    def _token_batch(self, step: int, with_metric: bool) -> TokenBatch:
        ids, weights = self.corpus.tokens(step, self.spec.batch_tokens, self.spec.vocabulary_share)
        tokens = torch.from_numpy(ids)
        with self._autocast():
            restored = self.method.restore(tokens, self.reader)
        target = self.reader.embed(tokens).float()
        share = torch.from_numpy(weights).to(target.device)
        metric = self._metric if with_metric else None
        return TokenBatch(restored, target, share, self.method.total_variance, metric)

    def _example_batch(self, chosen: Sequence[int], labels: Any) -> ExampleBatch:
        prompts = [self.corpus.prompts[index] for index in chosen]
        true_rows = [self.reader.embed(torch.tensor(prompt.slot.ids)) for prompt in prompts]
        return ExampleBatch(
            self.reader,
            prompts,
            self.reader.lay_in(prompts, self._compressed(chosen)),
            self.reader.lay_in(prompts, Prefix.stack(true_rows)),
            self.reader.pad_labels([labels[index] for index in chosen]),
        )

    def _compressed(self, chosen: Sequence[int]) -> Prefix:
        with self._autocast():
            return self.method.training_prefix([self.corpus.prompts[index].slot for index in chosen], self.reader)

    @torch.no_grad()
    def _refresh_rollouts(self, step: int) -> None:
        """Every `ROLLOUT_EVERY` steps, answer the coming steps' prompts from their compressed form."""
        coming = range(step, step - step % ROLLOUT_EVERY + ROLLOUT_EVERY)
        due = {index for step in coming for index in self.corpus.batch(step, self.spec.batch_examples)}
        if step % ROLLOUT_EVERY and due <= self.rollouts.keys():
            return
        ordered = sorted(due, key=lambda index: len(self.corpus.prompts[index].slot.ids))
        size = self.spec.batch_examples
        self.rollouts = {}
        for part in (ordered[start : start + size] for start in range(0, len(ordered), size)):
            prompts = [self.corpus.prompts[index] for index in part]
            state = self.reader.prefill(self.reader.lay_in(prompts, self._compressed(part)))
            answers = self.reader.generate(state, ROLLOUT_TOKENS)
            self.rollouts |= {index: answer.ids for index, answer in zip(part, answers, strict=True)}

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.reader.device.type, torch.bfloat16, enabled=self.spec.precision == "bf16")
