"""`fit`: the one training loop. It knows batches, objectives and parameters, and no method by name.

the step's Feed ─▶ batches ─▶ losses ─▶ one gradient per objective ─▶ Balance ─▶ clip ─▶ AdamW
                  (each process its share)   (summed over processes)
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from latentwire.balance import Balance, Gradient, norm
from latentwire.config import ObjectiveSpec, TrainSpec
from latentwire.corpus import Corpus
from latentwire.errors import RecipeError, TrainingError
from latentwire.expected import expected_odds
from latentwire.feed import Feed
from latentwire.methods import TASK_TOKENS, Method
from latentwire.objectives import OBJECTIVES, Batch, Objective
from latentwire.schedule import learning_rate, planned_steps
from latentwire.team import team

LOG_LINES = 200
CLIP = 1.0  # norm of the combined gradient
STAGES = (1 / 16, 1 / 8, 1 / 4, 1 / 2)  # of a training: what had been learnt then is kept for the learning curve


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
        snapshot: Called with the step after each of `STAGES` of a training by steps.
        interrupted: Asked after every step; true saves a checkpoint and raises `KeyboardInterrupt`.
        resume: A state that `checkpoint` got earlier.
        weights: A method's tensors to start from, instead of what it fits in closed form.
    """

    log: Callable[[dict[str, Any]], None] = lambda record: None
    checkpoint: Callable[[dict[str, Any]], None] = lambda state: None
    task: Callable[[str], Callable[[float, str], None]] = lambda words: lambda done, remark: None
    snapshot: Callable[[int], None] = lambda step: None
    interrupted: Callable[[], bool] = lambda: False
    resume: Mapping[str, Any] | None = None
    weights: Mapping[str, torch.Tensor] | None = None


def fit(
    method: Method, corpora: Sequence[Corpus], objective: ObjectiveSpec, spec: TrainSpec, hooks: Hooks | None = None
) -> Trained:
    """Train a prepared method in place, on the same examples laid out for one or several readers: one reader a step.

    Returns:
        What was done. With `spec.seconds` the number of steps depends on the machine; else it is fixed by the recipe.

    Raises:
        RecipeError: Nothing to train, or an unknown objective.
        TrainingError: A loss that is not finite.
    """
    return _Loop(method, corpora, objective, spec, hooks or Hooks()).run()


def start(method: Method, corpora: Sequence[Corpus], spec: TrainSpec, hooks: Hooks) -> None:
    """Prepare a method for training: which tokens it may meet, what it fits in closed form, draws by seed or starts from."""
    torch.manual_seed(spec.seed)
    for place, corpus in enumerate(corpora):
        kept = None if hooks.resume is None else hooks.resume["feeds"][place]["odds"]
        if kept is not None:
            corpus.odds = kept.numpy()
        elif spec.vocabulary_share:
            progress = hooks.task("measuring which tokens the reader expects")
            corpus.odds = expected_odds(corpus.reader, corpus, spec.micro, progress)
        if hooks.weights is None:
            method.prepare(corpus.reader, corpus.counts, corpus.weights(spec.vocabulary_share))
        else:
            method.load(hooks.weights, corpus.reader)


@dataclass
class _Loop:
    method: Method
    corpora: Sequence[Corpus]
    objective: ObjectiveSpec
    spec: TrainSpec
    hooks: Hooks
    step: int = 0
    seconds_before: float = 0.0

    def __post_init__(self) -> None:
        self.team = team()
        self.parameters = [p for p in self.method.module().parameters() if p.requires_grad]
        if not self.parameters:
            raise RecipeError("expected a method with parameters to train, got one without; choose method.decoder=mlp")
        self.objectives = [OBJECTIVES[name] for name in self.objective.weights]
        self.optimizer = torch.optim.AdamW(self._groups(), self.spec.lr, (0.9, 0.98), weight_decay=0.0, fused=True)
        self.feeds = [
            Feed(
                self.method, corpus, self.spec, Balance(self.objective.weights, self.objective.balance), self.hooks.task
            )
            for corpus in self.corpora
        ]
        self.steps = planned_steps(self.corpora[0], self.objective, self.spec)
        torch.manual_seed(self.spec.seed)
        if self.hooks.resume is not None:
            self._restore(self.hooks.resume)

    def run(self) -> Trained:
        start = saved = time.monotonic()
        elapsed, stopped = 0.0, False
        losses: dict[str, float] = {}
        progress = self.hooks.task("training")
        while (done := self._done(elapsed)) < 1.0:
            for group in self.optimizer.param_groups:
                group["lr"] = group["times"] * learning_rate(done, self.spec)
            reader = self.feed.reader.name
            losses, gradients = self._measure()
            if time.monotonic() - saved >= self.spec.checkpoint_seconds:  # these parameters gave finite losses
                saved = time.monotonic()
                self.hooks.checkpoint(self.state(saved - start))
            shares, size = self._update(losses, gradients)
            self.step += 1
            if self.spec.seconds is None and self.step in {round(stage * self.steps) for stage in STAGES}:
                self.hooks.snapshot(self.step)
            elapsed = time.monotonic() - start
            progress(self._done(elapsed), f"loss {sum(losses.values()):.4f}")
            if self.step % max(1, self.steps // LOG_LINES) == 0 or self.step == 1:
                self._log(reader, losses, shares, size, elapsed)
            elapsed, stopped = self._agreed(elapsed, self.hooks.interrupted())
            if stopped:
                self.hooks.checkpoint(self.state(elapsed))
                raise KeyboardInterrupt
        self.hooks.checkpoint(self.state(elapsed))
        return Trained(self.step, self.seconds_before + elapsed, len(self.corpora[0].examples), losses)

    def state(self, elapsed: float) -> dict[str, Any]:
        """All that a resumed training needs to go on as if nothing had happened."""
        return {
            "step": self.step,
            "seconds": self.seconds_before + elapsed,
            "parameters": [parameter.detach() for parameter in self.parameters],
            "optimizer": self.optimizer.state_dict(),
            "rng": torch.get_rng_state(),
            "feeds": [feed.state() for feed in self.feeds],
        }

    def _restore(self, state: Mapping[str, Any]) -> None:
        with torch.no_grad():
            for parameter, saved in zip(self.parameters, state["parameters"], strict=True):
                parameter.copy_(saved)
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.seconds_before = int(state["step"]), float(state["seconds"])
        for feed, kept in zip(self.feeds, state["feeds"], strict=True):
            feed.restore(kept)
        torch.set_rng_state(state["rng"])

    @property
    def feed(self) -> Feed:
        """The feed of the step's reader: a draw of seed and step, the same in every process."""
        return self.feeds[np.random.default_rng([self.spec.seed, 7, self.step]).integers(len(self.feeds))]

    def _groups(self) -> list[dict[str, Any]]:
        """Parameters by how many times the learning rate they take: a few new task tokens need larger steps than wide maps."""
        quick = {id(p) for name, p in self.method.module().named_parameters() if name.endswith(TASK_TOKENS)}
        new = self.spec.start_from is None
        times = (self.spec.tuned_lr or self.spec.lr) / self.spec.lr if new else 1.0
        groups = [
            {"params": [p for p in self.parameters if (id(p) in quick) == fast], "times": times if fast else 1.0}
            for fast in (False, True)
        ]
        return [group for group in groups if group["params"]]

    def _done(self, elapsed: float) -> float:
        if self.spec.seconds is not None:
            return (self.seconds_before + elapsed) / self.spec.seconds
        return self.step / self.steps

    def _measure(self) -> tuple[dict[str, float], dict[str, Gradient]]:
        """Raw loss and gradient of each objective: its mean over the step, whatever the micro-batches are."""
        self.method.draw(self.spec.seed, self.step, self.feed.slots(self.step))
        losses = {goal.name: 0.0 for goal in self.objectives}
        sizes = dict.fromkeys(losses, 0)
        means: dict[str, Gradient] = {}
        for kind in dict.fromkeys(goal.needs for goal in self.objectives):
            goals = [goal for goal in self.objectives if goal.needs == kind]
            for batch, counts in self.feed.batches(goals, self.step, self.team):
                for goal, gradient, value in self._gradients(goals, batch):
                    if not counts:
                        continue
                    size = goal.size(batch)
                    sizes[goal.name] += size
                    share = size / sizes[goal.name]
                    losses[goal.name] += share * (value - losses[goal.name])
                    kept = means.get(goal.name)
                    if kept is not None:
                        gradient = [torch.lerp(a, b, share) for a, b in zip(kept, gradient, strict=True)]
                    means[goal.name] = gradient
        if self.team.size > 1:
            for name in losses:
                losses[name], means[name] = self._together(losses[name], means.get(name), sizes[name])
        if not all(math.isfinite(value) for value in losses.values()):
            raise TrainingError(self._diverged(losses))
        return losses, means

    def _together(self, loss: float, mean: Gradient | None, size: int) -> tuple[float, Gradient]:
        """Loss and gradient over the micro-batches of all processes, of which this one had `size` positions."""
        own = [torch.zeros_like(parameter) for parameter in self.parameters] if mean is None else mean
        flat = torch.cat([part.flatten() * size for part in own] + [own[0].new_tensor([loss * size, size])])
        *parts, ends = self.team.total(flat).split([*(part.numel() for part in own), 2])
        whole = [part.view_as(like) / ends[1] for part, like in zip(parts, own, strict=True)]
        return float(ends[0] / ends[1]), whole

    def _agreed(self, elapsed: float, interrupted: bool) -> tuple[float, bool]:
        """One clock and one decision for all processes: the time of the first, and whether any was interrupted."""
        if self.team.size == 1:
            return elapsed, interrupted
        device = self.parameters[0].device
        told = torch.tensor([elapsed * self.team.writes, interrupted], dtype=torch.float64, device=device)
        clock, stops = self.team.total(told).tolist()
        return clock, stops > 0

    def _update(self, losses: Mapping[str, float], gradients: Mapping[str, Gradient]) -> tuple[dict[str, float], float]:
        """Descend: gradient shares, and the norm of the combined gradient. What serves another reader rests."""
        combined, shares = self.feed.balance.combine(gradients)
        size = norm(combined)
        if not math.isfinite(size):
            raise TrainingError(self._diverged({**losses, "gradient norm": size}))
        for parameter, part in zip(self.parameters, combined, strict=True):
            parameter.grad = laid_like(parameter, part) if len(self.feeds) == 1 or part.any() else None
        torch.nn.utils.clip_grads_with_norm_(self.parameters, CLIP, torch.tensor(size))
        self.optimizer.step()
        return shares, size

    def _gradients(self, goals: Sequence[Objective], batch: Batch) -> list[tuple[Objective, Gradient, float]]:
        found = []
        for number, goal in enumerate(goals):
            loss, more = goal.loss(batch), number + 1 < len(goals)
            gradient = torch.autograd.grad(loss, self.parameters, retain_graph=more, materialize_grads=True)
            found.append((goal, list(gradient), float(loss.detach())))
        return found

    def _log(
        self, reader: str, losses: Mapping[str, float], shares: Mapping[str, float], size: float, elapsed: float
    ) -> None:
        self.hooks.log(
            {
                "step": self.step,
                "reader": reader,
                "lr": self.optimizer.param_groups[0]["lr"],
                "losses": dict(losses),
                "shares": dict(shares),
                "gradient_norm": size,
                "seconds": round(self.seconds_before + elapsed, 3),
            }
        )

    def _diverged(self, losses: Mapping[str, float]) -> str:
        kinds = {goal.needs for goal in self.objectives} - {"tokens"}
        names = ", ".join(self.feed.names(self.step)) if kinds else "a token batch"
        values = ", ".join(f"{name} {value}" for name, value in losses.items())
        return (
            f"expected finite losses, got {values} at step {self.step} ({names}); lower train.lr and train anew with"
            " --force or under another name. An earlier checkpoint is kept"
        )


def laid_like(parameter: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """The gradient in the parameter's memory order: torch's fused AdamW pairs their entries by place in memory."""
    return gradient if gradient.stride() == parameter.stride() else torch.empty_like(parameter).copy_(gradient)
