"""From a recipe to a trained method in a run folder: data, readers, training. `climb.py` evaluates it."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from latentwire.atomic import atomic_write
from latentwire.card import write_card
from latentwire.config import ReaderSpec, Recipe, dump, load_recipe
from latentwire.corpus import Corpus
from latentwire.data import DATASETS, Example, Split, refuse_overlap, shuffled
from latentwire.errors import RecipeError, RegistryError, RunError, TrainingError
from latentwire.methods import METHODS, Method, decoder_parameters
from latentwire.objectives import OBJECTIVES
from latentwire.reader import Layout, Reader
from latentwire.reader.gguf import cache_dir
from latentwire.reader.load import load_model, remember
from latentwire.registry import Registry
from latentwire.report.folder import read_rows
from latentwire.report.report import write_report
from latentwire.resolve import resolve
from latentwire.rungs import OWN, Rung, ladder_rungs
from latentwire.runs import Run, training_identity
from latentwire.specs import Spec, build
from latentwire.team import team
from latentwire.train import Hooks, Trained, fit, start
from latentwire.wire_folder import CONFIG, IN_RUN, RECIPE, ROWS, read_wire

log = logging.getLogger("latentwire")


class Progress(Protocol):
    """Shows that long work goes on."""

    def task(self, words: str) -> Callable[[float, str], None]:
        """A callback for one task, to be called with the share done and a remark."""
        ...


class Silent:
    """Shows nothing."""

    def task(self, words: str) -> Callable[[float, str], None]:
        """A callback that does nothing."""
        return lambda done, remark: None


@dataclass(frozen=True)
class Stage:
    """A recipe with everything it names loaded.

    Attributes:
        recipe: The recipe, every `auto` settled.
        corpora: The training prompts, one corpus for each reader.
        evaluation: What is asked.
        cache_bytes: The most that computed features may take on the disk.
    """

    recipe: Recipe
    corpora: list[Corpus]
    evaluation: list[Example]
    cache_bytes: int

    @property
    def fingerprint(self) -> str:
        """Identity of the readers' weights, and of the latents that stay as they are."""
        known = [corpus.reader.fingerprint for corpus in self.corpora]
        folder = self.recipe.method.get("latents_from")
        return "-".join([*known, read_wire(Path(folder)).space] if folder else known)


def open_reader(spec: ReaderSpec) -> Reader:
    """A reader of the recipe, laid out as it says."""
    loaded = load_model(
        spec.name, dtype=spec.dtype, device=spec.device, device_map=spec.device_map, quantization=spec.quantization
    )
    layout = Layout(spec.style, spec.shots)
    asked = spec.max_prompt_tokens, spec.too_long
    return remember(Reader(loaded.model, loaded.tokenizer, spec.name, layout, loaded.fingerprint, *asked))


def training_examples(recipe: Recipe) -> list[Example]:
    """The training examples: `data.limit` of all that the specs hold, mixed by seed."""
    data = recipe.data
    if len(data.train) == 1:
        return _examples(data.train[0], data.train_split, data.seed, data.limit)
    found = [example for spec in data.train for example in _examples(spec, data.train_split, data.seed, None)]
    return shuffled(found, data.seed, data.limit, "data.train")


def evaluation_examples(recipe: Recipe) -> list[Example]:
    """The evaluation examples."""
    data = recipe.data
    return _examples(data.eval, data.eval_split, data.eval_seed, data.eval_limit)


def prepare(recipe: Recipe, progress: Progress, cache_bytes: int) -> Stage:
    """Load data and reader, refuse overlapping contexts and unknown rungs, and resolve every `auto`."""
    refuse_unknown(recipe)
    read = progress.task("reading data")
    train, evaluation = training_examples(recipe), evaluation_examples(recipe)
    refuse_overlap(train, evaluation)
    read(1.0, "")
    corpora = [_corpus(recipe, spec, train, progress) for spec in recipe.readers]
    if len({corpus.reader.fingerprint for corpus in corpora}) < len(corpora):
        raise RecipeError("further_readers: expected readers of different weights, got the same twice; leave one out")
    return Stage(resolve(recipe, corpora), corpora, evaluation, cache_bytes)


def _corpus(recipe: Recipe, spec: ReaderSpec, examples: list[Example], progress: Progress) -> Corpus:
    loaded = progress.task(f"loading {Path(spec.name).name}")
    reader = open_reader(spec)
    loaded(1.0, "")
    laid_out = progress.task(f"laying out {len(examples):,} prompts")
    corpus = Corpus(reader, examples, recipe.eval.scopes[0], recipe.train.seed, laid_out)
    ladder_rungs(recipe, corpus)
    shortened = sum(prompt.truncated_tokens > 0 for prompt in corpus.prompts)
    if shortened:
        log.warning(f"{shortened} of {len(examples)} training prompts were cut to fit the reader (reader.too_long)")
    return corpus


def refuse_unknown(recipe: Recipe) -> None:
    """Raise `RecipeError` that names every unknown method, data set, objective and field of theirs at once."""
    problems = []
    parts: list[tuple[Registry[Any], list[Spec]]]
    parts = [(METHODS, [recipe.method]), (DATASETS, [*recipe.data.train, recipe.data.eval])]
    for registry, specs in parts:
        for spec in specs:
            try:
                build(registry, spec)
            except (RecipeError, RegistryError) as error:
                problems.append(str(error))
    for name in recipe.objective.weights:
        try:
            OBJECTIVES[name]
        except RegistryError as error:
            problems.append(str(error))
    if problems:
        raise RecipeError("; ".join(dict.fromkeys(problems)))


def refuse_begun(run: Run, resume: bool) -> None:
    """Raise `RunError` when the folder holds a run that was begun and `resume` is false."""
    if run.writes and not resume and (run.has("checkpoint.pt") or run.has("weights.safetensors")):
        raise RunError(f"{run.folder} holds a run already; add --resume to go on with it or --force to replace it")


def refuse_shards() -> None:
    """Raise `RecipeError` where frozen models are shared out among processes, so that one alone cannot evaluate."""
    if team().shards:
        raise RecipeError(
            "expected 'latentwire train' where frozen models are shared out (FSDP), got a command that evaluates too; train,"
            " then call 'latentwire eval' in one process, with reader.device_map=auto where a reader does not fit"
        )


def train(
    stage: Stage,
    run: Run,
    progress: Progress,
    resume: bool,
    interrupted: Callable[[], bool],
    weights: Mapping[str, Tensor] | None = None,
) -> Trained:
    """Train the recipe's method into the run folder, from `weights` where given, or go on where a checkpoint stands; where it was
    trained to its end, that stays, whether its checkpoint is there or not.

    Raises:
        RunError: The folder holds results and neither `--resume` nor `--force` was given.
        TrainingError: The checkpoint belongs to another recipe.
    """
    recipe, identity = stage.recipe, training_identity(stage.recipe, stage.fingerprint)
    refuse_begun(run, resume)
    team().wait()  # the one that writes has cleared the folder where it must
    if resume and (found := run.trained(identity)) is not None:
        return Trained(found["train_steps"], found["train_seconds"], found["train_examples"], {})
    state = _checkpoint(run, identity)
    method = build(METHODS, recipe.method)
    hooks = Hooks(
        log=lambda record: run.append("log.jsonl", record),
        checkpoint=lambda state: run.save_checkpoint({**state, "recipe": identity}),
        task=progress.task,
        snapshot=lambda step: run.save_weights(method.tensors(), step) if has_curve(recipe) else None,
        interrupted=interrupted,
        resume=state,
        weights=weights,
    )
    start(method, stage.corpora, recipe.train, hooks)
    facts: dict[str, Any] = {"decoder_parameters": decoder_parameters(method), "training_identity": identity}
    facts["reader_dtype"] = str(stage.corpora[0].reader.dtype)
    run.start(recipe, facts)
    run.write_lines("log.jsonl", [line for line in run.lines("log.jsonl") if state and line["step"] <= state["step"]])
    trained = Trained(0, 0.0, len(stage.corpora[0].examples), {})
    if facts["decoder_parameters"]:
        _gather(method, stage, progress)
        for corpus in stage.corpora:
            _share_out(corpus.reader)
        trained = fit(method, stage.corpora, recipe.objective, recipe.train, hooks)
    published = run.writes and method.publish(run.folder / IN_RUN, [corpus.reader for corpus in stage.corpora])
    run.save_weights(method.tensors())
    if published:
        atomic_write(run.folder / IN_RUN / RECIPE, lambda partial: partial.write_text(dump(recipe), encoding="utf-8"))
    done = {"train_steps": trained.steps, "train_seconds": trained.seconds, "train_examples": trained.examples}
    run.start(recipe, facts | done)
    return trained


def _share_out(reader: Reader) -> None:
    """Share a reader's layers out, once, where processes do. All must then read in step, so each prompt is read on its own."""
    if team().shards and reader.shares:
        team().share_out(reader.model)
        reader.shares = False


def _gather(method: Method, stage: Stage, progress: Progress) -> None:
    """Let the method, if it has anything to, compute what it needs of the training contexts: the process that writes first."""
    if type(method).gather is Method.gather:
        return
    asked: dict[str, list[str]] = {}
    for corpus in stage.corpora:
        for prompt, example in zip(corpus.prompts, corpus.examples, strict=True):
            asked.setdefault(prompt.slot.text, []).extend(example.answers)
    task = progress.task("encoding the training contexts")
    for turn in (True, False):
        if team().writes == turn:
            method.gather(asked, cache_dir() / "features", stage.cache_bytes, task)
        team().wait()
    task(1.0, "")


def train_tuned(stage: Stage, run: Run, progress: Progress, interrupted: Callable[[], bool]) -> None:
    """Train the ladder's other rungs, each in a folder of its own below the run's, or go on where one was stopped."""
    for rung in ladder_rungs(stage.recipe, stage.corpora[0]):
        if rung.weights not in (None, OWN):
            with Run(run.folder / str(rung.weights), run.writes) as part:
                train(own_stage(stage, rung), part, _Named(progress, rung.name), True, interrupted)


def has_curve(recipe: Recipe) -> bool:
    """Whether stages of training are kept, to be measured: where a run is judged by its gap, or by F1 alone."""
    return recipe.verdict.measure in ("share_of_gap", "f1")


def own_stage(stage: Stage, rung: Rung) -> Stage:
    """The stage in which another rung of the ladder is what the recipe trains: same data, same steps."""
    train = stage.recipe.train.model_copy(update={"start_from": None})
    if train.tuned_lr is not None and rung.spec["name"] == "tuned":
        train = train.model_copy(update={"lr": train.tuned_lr})
    return replace(stage, recipe=stage.recipe.model_copy(update={"method": rung.spec, "train": train}))


@dataclass(frozen=True)
class _Named:
    """Progress that says what it is of."""

    inner: Progress
    name: str

    def task(self, words: str) -> Callable[[float, str], None]:
        return self.inner.task(f"{self.name}: {words}")


def report(folder: Path) -> Path:
    """Write the run's report page, and the card of the wire that it trained, if any; returns the page's path."""
    page = write_report(folder)
    if (folder / IN_RUN / CONFIG).exists():
        write_card(folder / IN_RUN, read_rows(folder / ROWS), load_recipe(folder / RECIPE).name)
    return page


def _examples(spec: Spec, split: Split, seed: int, limit: int | None) -> list[Example]:
    return build(DATASETS, spec).examples(split, seed, limit)


def _checkpoint(run: Run, identity: str) -> dict[str, Any] | None:
    state = run.load_checkpoint()
    if state is not None and state["recipe"] != identity:
        raise TrainingError(
            f"expected the checkpoint in {run.folder} to be of this recipe, reader and version, got one of another; undo"
            " the change, or add --force to start anew"
        )
    return state
