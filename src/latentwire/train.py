"""`fit`: the one training loop. It knows batches, objectives and parameters, and no method by name.

corpus ─▶ batch of step s ─▶ losses ─▶ one gradient per objective ─▶ Balance ─▶ clip ─▶ AdamW
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch

from latentwire.balance import Balance, Gradient, norm
from latentwire.codecs import transmit
from latentwire.config import ObjectiveSpec, TrainSpec
from latentwire.corpus import Corpus
from latentwire.errors import RecipeError, TrainingError
from latentwire.expected import expected_odds
from latentwire.fisher import fisher_metric
from latentwire.methods import Method
from latentwire.objectives import OBJECTIVES, Batch, BatchKind, ExampleBatch, Objective, TokenBatch
from latentwire.reader import Prefix, Reader
from latentwire.schedule import learning_rate, planned_steps

ROLLOUT_TOKENS = 16
LOG_LINES = 200


@dataclass(frozen=True)
class Trained:
    """What training did: steps taken, seconds spent in the loop, examples in the corpus, last raw losses."""

    steps: int
    seconds: float
    examples: int
    losses: Mapping[str, float]


@dataclass
class Hooks:
    """Where training reports and keeps its state; all of it optional.

    Attributes:
        log: Called with one record now and then.
        checkpoint: Called with the state to keep, at most every `checkpoint_seconds` and at the end.
        task: Opens a progress bar by its words; what it returns is called with the share done and a remark.
        interrupted: Asked after every step; true saves a checkpoint and raises `KeyboardInterrupt`.
        resume: A state that `checkpoint` got earlier.
        weights: A method's tensors to start from, instead of what it fits in closed form.
    """

    log: Callable[[dict[str, Any]], None] = lambda record: None
    checkpoint: Callable[[dict[str, Any]], None] = lambda state: None
    task: Callable[[str], Callable[[float, str], None]] = lambda words: lambda done, remark: None
    interrupted: Callable[[], bool] = lambda: False
    resume: Mapping[str, Any] | None = None
    weights: Mapping[str, torch.Tensor] | None = None


def fit(
    method: Method,
    reader: Reader,
    corpus: Corpus,
    objective: ObjectiveSpec,
    spec: TrainSpec,
    hooks: Hooks | None = None,
) -> Trained:
    """Train a prepared method in place.

    Returns:
        What was done. With `spec.seconds` the number of steps depends on the machine; else it is fixed by the recipe.

    Raises:
        RecipeError: Nothing to train, or an unknown objective.
        TrainingError: A loss that is not finite.
    """
    return _Loop(method, reader, corpus, objective, spec, hooks or Hooks()).run()


def start(method: Method, reader: Reader, corpus: Corpus, spec: TrainSpec, hooks: Hooks) -> None:
    """Prepare a method for training on a corpus: which tokens it may meet, what it fits in closed form or starts from."""
    if spec.vocabulary_share and hooks.resume is None:
        progress = hooks.task("measuring which tokens the reader expects")
        corpus.odds = expected_odds(reader, corpus, spec.micro, progress)
    elif hooks.resume is not None and hooks.resume["odds"] is not None:
        corpus.odds = hooks.resume["odds"].numpy()
    if hooks.weights is None:
        method.prepare(reader, corpus.counts, corpus.weights(spec.vocabulary_share))
    else:
        method.load(hooks.weights, reader)


@dataclass
class _Loop:
    method: Method
    reader: Reader
    corpus: Corpus
    objective: ObjectiveSpec
    spec: TrainSpec
    hooks: Hooks
    rollouts: dict[int, tuple[int, ...]] = field(default_factory=dict)
    step: int = 0
    seconds_before: float = 0.0

    def __post_init__(self) -> None:
        self.parameters = [p for p in self.method.module().parameters() if p.requires_grad]
        if not self.parameters:
            raise RecipeError("expected a method with parameters to train, got one without; choose method.decoder=mlp")
        self.objectives = [OBJECTIVES[name] for name in self.objective.weights]
        self.balance = Balance(self.objective.weights, self.objective.balance)
        self.optimizer = torch.optim.AdamW(self.parameters, self.spec.lr, (0.9, 0.98), weight_decay=0.0, fused=True)
        self.steps = planned_steps(self.corpus, self.objective, self.spec)
        torch.manual_seed(self.spec.seed)
        if self.hooks.resume is not None:
            self._restore(self.hooks.resume)

    def run(self) -> Trained:
        start = saved = time.monotonic()
        losses: dict[str, float] = {}
        progress = self.hooks.task("training")
        while (done := self._done(time.monotonic() - start)) < 1.0:
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate(done, self.spec)
            losses, gradients = self._measure()
            if time.monotonic() - saved >= self.spec.checkpoint_seconds:  # these parameters gave finite losses
                self.hooks.checkpoint(self.state(time.monotonic() - start))
                saved = time.monotonic()
            shares, size = self._update(losses, gradients)
            self.step += 1
            now = time.monotonic()
            progress(self._done(now - start), f"loss {sum(losses.values()):.4f}")
            if self.step % max(1, self.steps // LOG_LINES) == 0 or self.step == 1:
                self._log(losses, shares, size, now - start)
            if self.hooks.interrupted():
                self.hooks.checkpoint(self.state(now - start))
                raise KeyboardInterrupt
        elapsed = time.monotonic() - start
        self.hooks.checkpoint(self.state(elapsed))
        return Trained(self.step, self.seconds_before + elapsed, len(self.corpus.examples), losses)

    def state(self, elapsed: float) -> dict[str, Any]:
        """All that a resumed training needs to go on as if nothing had happened."""
        return {
            "step": self.step,
            "seconds": self.seconds_before + elapsed,
            "parameters": [parameter.detach() for parameter in self.parameters],
            "optimizer": self.optimizer.state_dict(),
            "averages": dict(self.balance.averages),
            "updates": self.balance.updates,
            "rollouts": {index: list(ids) for index, ids in self.rollouts.items()},
            "rng": torch.get_rng_state(),
            "metric": self.metric,
            "odds": None if self.corpus.odds is None else torch.from_numpy(self.corpus.odds),
        }

    def _restore(self, state: Mapping[str, Any]) -> None:
        with torch.no_grad():
            for parameter, saved in zip(self.parameters, state["parameters"], strict=True):
                parameter.copy_(saved)
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.seconds_before = int(state["step"]), float(state["seconds"])
        self.balance.averages, self.balance.updates = dict(state["averages"]), int(state["updates"])
        self.rollouts = {int(index): tuple(ids) for index, ids in state["rollouts"].items()}
        self.metric = state["metric"]
        torch.set_rng_state(state["rng"])

    @cached_property
    def metric(self) -> torch.Tensor | None:
        """What the reader is sensitive to, where an objective asks for it; measured once, in the first step."""
        if not any(goal.metric for goal in self.objectives):
            return None
        progress = self.hooks.task("measuring what the reader is sensitive to")
        return fisher_metric(self.reader, self.corpus, self.spec.micro, progress)

    def _done(self, elapsed: float) -> float:
        if self.spec.seconds is not None:
            return (self.seconds_before + elapsed) / self.spec.seconds
        return self.step / self.steps

    def _measure(self) -> tuple[dict[str, float], dict[str, Gradient]]:
        """Raw loss and gradient of each objective: its mean over the step, whatever the micro-batches are."""
        losses = {goal.name: 0.0 for goal in self.objectives}
        sizes = dict.fromkeys(losses, 0)
        means: dict[str, Gradient] = {}
        for kind in dict.fromkeys(goal.needs for goal in self.objectives):
            goals = [goal for goal in self.objectives if goal.needs == kind]
            for batch in self._batches(kind):
                for goal, gradient, value in self._gradients(goals, batch):
                    size = goal.size(batch)
                    sizes[goal.name] += size
                    share = size / sizes[goal.name]
                    losses[goal.name] += share * (value - losses[goal.name])
                    kept = means.get(goal.name)
                    if kept is not None:
                        gradient = [torch.lerp(a, b, share) for a, b in zip(kept, gradient, strict=True)]
                    means[goal.name] = gradient
        if not all(math.isfinite(value) for value in losses.values()):
            raise TrainingError(self._diverged(losses))
        return losses, means

    def _update(self, losses: Mapping[str, float], gradients: Mapping[str, Gradient]) -> tuple[dict[str, float], float]:
        """Descend: gradient shares, and the norm of the combined gradient."""
        combined, shares = self.balance.combine(gradients)
        size = norm(combined)
        if not math.isfinite(size):
            raise TrainingError(self._diverged({**losses, "gradient norm": size}))
        for parameter, part in zip(self.parameters, combined, strict=True):
            parameter.grad = part
        torch.nn.utils.clip_grads_with_norm_(self.parameters, self.spec.clip, torch.tensor(size))
        self.optimizer.step()
        return shares, size

    def _gradients(self, goals: Sequence[Objective], batch: Batch) -> list[tuple[Objective, Gradient, float]]:
        found = []
        for number, goal in enumerate(goals):
            loss, more = goal.loss(batch), number + 1 < len(goals)
            gradient = torch.autograd.grad(loss, self.parameters, retain_graph=more, materialize_grads=True)
            found.append((goal, list(gradient), float(loss.detach())))
        return found

    def _batches(self, kind: BatchKind) -> Iterator[Batch]:
        """The step's batches of a kind, made one at a time."""
        if kind == "tokens":
            yield self._token_batch()
            return
        chosen = self.corpus.batch(self.step, self.spec.batch_examples)
        size = self.spec.micro
        if kind == "rollouts":
            self._refresh_rollouts()
        for start in range(0, len(chosen), size):
            yield self._example_batch(chosen[start : start + size], kind)

    def _token_batch(self) -> TokenBatch:
        ids, weights = self.corpus.tokens(self.step, self.spec.batch_tokens, self.spec.vocabulary_share)
        tokens = torch.from_numpy(ids)
        with self._autocast():
            restored = self.method.restore(tokens, self.reader)
        target = self.reader.embed(tokens).float()
        share = torch.from_numpy(weights).to(target.device)
        return TokenBatch(restored, target, share, self.method.total_variance, self.metric)

    def _example_batch(self, chosen: Sequence[int], kind: BatchKind) -> ExampleBatch:
        prompts = [self.corpus.prompts[index] for index in chosen]
        labels = self.rollouts if kind == "rollouts" else self.corpus.labels
        true_rows = [self.reader.embed(torch.tensor(prompt.slot.ids)) for prompt in prompts]
        return ExampleBatch(
            self.reader,
            prompts,
            self.reader.lay_in(prompts, self._compressed(chosen)),
            self.reader.lay_in(prompts, Prefix.stack(true_rows)),
            self.reader.pad_labels([labels[index] for index in chosen]),
        )

    def _compressed(self, chosen: Sequence[int]) -> Prefix:
        latents = self.method.encode([self.corpus.prompts[index].slot for index in chosen], self.reader)
        with self._autocast():
            return self.method.prefix([transmit(latent)[0] for latent in latents], self.reader)

    @torch.no_grad()
    def _refresh_rollouts(self) -> None:
        """Every `rollout_every` steps, answer the coming steps' prompts from their compressed form."""
        coming = range(self.step, self.step - self.step % self.spec.rollout_every + self.spec.rollout_every)
        due = {index for step in coming for index in self.corpus.batch(step, self.spec.batch_examples)}
        if self.step % self.spec.rollout_every and due <= self.rollouts.keys():
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

    def _log(self, losses: Mapping[str, float], shares: Mapping[str, float], size: float, elapsed: float) -> None:
        self.hooks.log(
            {
                "step": self.step,
                "lr": self.optimizer.param_groups[0]["lr"],
                "losses": dict(losses),
                "shares": dict(shares),
                "gradient_norm": size,
                "seconds": round(self.seconds_before + elapsed, 3),
            }
        )

    def _diverged(self, losses: Mapping[str, float]) -> str:
        kinds = {goal.needs for goal in self.objectives} - {"tokens"}
        chosen = self.corpus.batch(self.step, self.spec.batch_examples) if kinds else []
        names = ", ".join(self.corpus.examples[index].id for index in chosen) or "a token batch"
        values = ", ".join(f"{name} {value}" for name, value in losses.items())
        return (
            f"expected finite losses, got {values} at step {self.step} ({names}); lower train.lr and train anew with"
            " --force or under another name. An earlier checkpoint is kept"
        )
