"""Training objectives: pure functions from a batch to a scalar loss. Each declares the kind of batch that it needs.

    tokens     distinct tokens weighted by how often they occur; never touches the reader's layers while training
    examples   prompts whose slot was compressed and decoded, with the gold answer
    rollouts   the same prompts with the answer that the compressed prompt itself generated

To add one, decorate a function with `@objective(name, needs)`; a recipe gives its weight under `objective.weights`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from latentwire.reader import IGNORE, Inputs, Prompt, Reader
from latentwire.registry import Registry

BatchKind = Literal["tokens", "examples", "rollouts"]
Positions = Literal["answer", "prompt", "both"]


@dataclass(frozen=True, eq=False)
class TokenBatch:
    """Distinct tokens: decoded and true embeddings `[U, D]`, weights `[U]` that sum to 1, the corpus' variance.

    `metric [D, D]` is there for objectives that ask for it: what the reader is sensitive to (`fisher.py`).
    """

    restored: Tensor
    target: Tensor
    weights: Tensor
    total_variance: float
    metric: Tensor | None = None


@dataclass(frozen=True, eq=False)
class ExampleBatch:
    """Prompts as the reader sees them, compressed (`inputs`) and true (`true_inputs`), with labels `[B, A]`."""

    reader: Reader
    prompts: Sequence[Prompt]
    inputs: Inputs
    true_inputs: Inputs
    labels: Tensor

    @cached_property
    def hidden(self) -> Tensor:
        """Hidden states `[B, T + A - 1, D]` over the compressed prompt and the answer, with gradient."""
        return self.reader.forced_states(self.inputs, self.labels)

    @cached_property
    def true_hidden(self) -> Tensor:
        """Hidden states over the true prompt and the answer, without gradient."""
        with torch.no_grad():
            return self.reader.forced_states(self.true_inputs, self.labels)

    @cached_property
    def prompt_labels(self) -> Tensor:
        """Next-token labels `[B, T + A - 1]` over the prompt; `IGNORE` where none is due."""
        total, answers = self.inputs.mask.shape[1], self.labels.shape[1]
        labels = torch.full((len(self.prompts), total + answers - 1), IGNORE, device=self.labels.device)
        for row, prompt in enumerate(self.prompts):
            ids = torch.tensor(prompt.ids[1:], device=labels.device)
            labels[row, total - 1 - len(ids) : total - 1] = ids
        return labels

    @cached_property
    def answer_labels(self) -> Tensor:
        """Answer labels `[B, T + A - 1]`, the prompt masked."""
        prompt = torch.full((len(self.prompts), self.inputs.mask.shape[1] - 1), IGNORE, device=self.labels.device)
        return torch.cat([prompt, self.labels], dim=1)


Batch = TokenBatch | ExampleBatch


@dataclass(frozen=True, slots=True)
class Objective:
    """A loss, the batch it needs, the positions it is a mean over, and whether it needs the reader's metric."""

    name: str
    needs: BatchKind
    loss: Callable[[Any], Tensor]
    over: Positions = "answer"
    metric: bool = False

    @property
    def through_reader(self) -> bool:
        """Whether training runs backward through the reader's layers."""
        return self.metric or self.needs != "tokens"

    def size(self, batch: Batch) -> int:
        """Positions of `batch` that the loss is a mean over, by which a micro-batch weighs in its step."""
        if isinstance(batch, TokenBatch):
            return 1
        prompts = 0 if self.over == "answer" else int((batch.prompt_labels != IGNORE).sum())
        return prompts + (0 if self.over == "prompt" else int((batch.labels != IGNORE).sum()))


OBJECTIVES: Registry[Objective] = Registry("objective", group="latentwire.objectives")


def objective(
    name: str, needs: BatchKind, over: Positions = "answer", metric: bool = False
) -> Callable[[Callable[[Any], Tensor]], Callable[[Any], Tensor]]:
    """Decorator that registers a loss function, a mean over the positions `over`."""

    def add(loss: Callable[[Any], Tensor]) -> Callable[[Any], Tensor]:
        OBJECTIVES.register(name)(Objective(name, needs, loss, over, metric))
        return loss

    return add


@objective("reconstruct", needs="tokens")
def reconstruct(batch: TokenBatch) -> Tensor:
    """Squared error as a share of the corpus' variance: 1 for the mean embedding, 0 for a perfect decoder."""
    errors = (batch.restored - batch.target).square().sum(dim=1)
    return (batch.weights * errors).sum() / batch.total_variance


@objective("fisher", needs="tokens", metric=True)
def fisher(batch: TokenBatch) -> Tensor:
    """Squared error as a share of the corpus' variance, both in the metric of what moves the reader's answers.

    To second order this is `answer_kl` with independent errors; see `fisher.py`.
    """
    assert batch.metric is not None
    errors = batch.restored - batch.target
    return (batch.weights * ((errors @ batch.metric) * errors).sum(dim=1)).sum()


@objective("mse", needs="tokens")
def mse(batch: TokenBatch) -> Tensor:
    """Plain mean squared error per entry, whose scale means nothing: only there to reproduce the earlier attempt's fault."""
    errors = (batch.restored - batch.target).square().mean(dim=1)
    return (batch.weights * errors).sum()


@objective("prompt_lm", needs="examples", over="prompt")
def prompt_lm(batch: ExampleBatch) -> Tensor:
    """Cross-entropy of each next prompt token given the reconstructed prompt before it."""
    return cross_entropy(batch.reader, batch.hidden, batch.prompt_labels)


@objective("answer_ce", needs="examples")
def answer_ce(batch: ExampleBatch) -> Tensor:
    """Teacher-forced cross-entropy of the gold answer and its stop; labels over the prompt are masked."""
    return cross_entropy(batch.reader, batch.hidden, batch.answer_labels)


@objective("prompt_answer_ce", needs="examples", over="both")
def prompt_answer_ce(batch: ExampleBatch) -> Tensor:
    """Cross-entropy over prompt and answer alike: only there to reproduce the earlier attempt's fault."""
    labels = torch.where(batch.answer_labels == IGNORE, batch.prompt_labels, batch.answer_labels)
    return cross_entropy(batch.reader, batch.hidden, labels)


@objective("answer_kl", needs="examples")
def answer_kl(batch: ExampleBatch) -> Tensor:
    """KL from the same reader reading the true prompt, at the gold answer's positions."""
    return _answer_divergence(batch)


@objective("on_policy_kl", needs="rollouts")
def on_policy_kl(batch: ExampleBatch) -> Tensor:
    """The same KL at answers that the compressed prompt itself generated: training sees what evaluation sees.

    Source: Agarwal et al. 2024, On-Policy Distillation (arXiv 2306.13649, section 3), with forward KL.
    """
    return _answer_divergence(batch)


def _answer_divergence(batch: ExampleBatch) -> Tensor:
    """Prompts may differ in length; answers stand at the end of both."""
    size = batch.labels.shape[1]
    return divergence(batch.reader, batch.true_hidden[:, -size:], batch.hidden[:, -size:], batch.labels)


def cross_entropy(reader: Reader, hidden: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy where `labels [B, T]` are set, logits made for those positions only, 64 MB at a time."""
    due = labels != IGNORE

    def part(states: Tensor, ids: Tensor) -> Tensor:
        return F.cross_entropy(reader.head(states).float(), ids, reduction="sum")

    return _chunked(part, reader, hidden[due], labels[due]) / due.sum()


@torch.no_grad()
def drawn_labels(reader: Reader, hidden: Tensor, labels: Tensor, draw: torch.Generator) -> Tensor:
    """Labels `[B, T]` drawn from the reader's own next-token distribution where `labels [B, T]` are set."""
    due, drawn = labels != IGNORE, labels.clone()
    chunks = hidden[due].split(reader.logits_at_once)
    parts = [reader.head(states).float().softmax(dim=-1).cpu().multinomial(1, generator=draw) for states in chunks]
    drawn[due] = torch.cat(parts)[:, 0].to(labels.device)
    return drawn


def divergence(reader: Reader, true_hidden: Tensor, hidden: Tensor, labels: Tensor) -> Tensor:
    """Mean KL(true || compressed) of the next token where `labels [B, T]` are set, 64 MB of logits at a time."""
    due = labels != IGNORE

    def part(states: Tensor, true_states: Tensor) -> Tensor:
        wanted = reader.head(true_states).float().log_softmax(dim=-1)
        return F.kl_div(reader.head(states).float().log_softmax(dim=-1), wanted, reduction="sum", log_target=True)

    return _chunked(part, reader, hidden[due], true_hidden[due]) / due.sum()


def _chunked(part: Callable[[Tensor, Tensor], Tensor], reader: Reader, states: Tensor, others: Tensor) -> Tensor:
    """Sum of `part` over chunks of positions; logits are made again in the backward pass instead of being kept."""
    size = reader.logits_at_once
    sums = [
        checkpoint(part, chunk, other, use_reentrant=False)
        for chunk, other in zip(states.split(size), others.split(size), strict=True)
    ]
    return torch.stack(sums).sum()
