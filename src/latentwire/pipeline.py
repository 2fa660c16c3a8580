"""From a recipe to a run folder: train, evaluate the ladder, write the report. What the command line calls."""

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from latentwire.config import Recipe, Spec, build
from latentwire.corpus import Corpus
from latentwire.data import DATASETS, Example, Split, context_hash, refuse_overlap, shuffled
from latentwire.earlier import LADDER, FinishedRungs, borrowed, measured
from latentwire.errors import RecipeError, RegistryError, RunError, TrainingError
from latentwire.evaluate import Evaluator, RungResult, measure_decoder
from latentwire.ladder import Rung, make_rows, stage1_rungs
from latentwire.methods import METHODS, Method, decoder_parameters
from latentwire.objectives import OBJECTIVES
from latentwire.reader import Layout, Reader, Scope
from latentwire.reader.load import load_model
from latentwire.registry import Registry
from latentwire.report.report import write_report
from latentwire.report.rows import Row
from latentwire.resolve import resolve
from latentwire.runs import Run, asking_hash, provenance, training_identity
from latentwire.train import Hooks, Trained, fit, start

log = logging.getLogger("latentwire")
PARTIAL = "ladder.partial.jsonl"


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
    """A recipe with everything it names loaded."""

    recipe: Recipe
    reader: Reader
    corpus: Corpus
    evaluation: list[Example]


def open_reader(recipe: Recipe) -> Reader:
    """The recipe's reader, laid out as it says."""
    spec = recipe.reader
    loaded = load_model(
        spec.name, dtype=spec.dtype, device=spec.device, device_map=spec.device_map, quantization=spec.quantization
    )
    layout = Layout(spec.style, spec.shots)
    name = Path(spec.name).name
    return Reader(
        loaded.model, loaded.tokenizer, name, layout, loaded.fingerprint, spec.max_prompt_tokens, spec.too_long
    )


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


def prepare(recipe: Recipe, progress: Progress) -> Stage:
    """Load data and reader, refuse overlapping contexts and unknown rungs, and resolve every `auto`."""
    refuse_unknown(recipe)
    read = progress.task("reading data")
    train, evaluation = training_examples(recipe), evaluation_examples(recipe)
    refuse_overlap(train, evaluation)
    read(1.0, "")
    loaded = progress.task(f"loading {Path(recipe.reader.name).name}")
    reader = open_reader(recipe)
    loaded(1.0, "")
    laid_out = progress.task(f"laying out {len(train):,} prompts")
    corpus = Corpus(reader, train, recipe.eval.scopes[0], recipe.train.seed, laid_out)
    stage1_rungs(recipe, reader, corpus)
    shortened = sum(prompt.truncated_tokens > 0 for prompt in corpus.prompts)
    if shortened:
        log.warning(f"{shortened} of {len(train)} training prompts were cut to fit the reader (reader.too_long)")
    return Stage(resolve(recipe, reader, corpus), reader, corpus, evaluation)


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
    if not resume and (run.has("checkpoint.pt") or run.has("weights.safetensors")):
        raise RunError(f"{run.folder} holds a run already; add --resume to go on with it or --force to replace it")


def train(
    stage: Stage,
    run: Run,
    progress: Progress,
    resume: bool,
    interrupted: Callable[[], bool],
    weights: Mapping[str, Tensor] | None = None,
) -> Trained:
    """Train the recipe's method into the run folder, from `weights` where given, or go on where a checkpoint stands.

    Raises:
        RunError: The folder holds results and neither `--resume` nor `--force` was given.
        TrainingError: The checkpoint belongs to another recipe.
    """
    recipe, identity = stage.recipe, training_identity(stage.recipe, stage.reader.fingerprint)
    refuse_begun(run, resume)
    state = _checkpoint(run, identity)
    method = build(METHODS, recipe.method)
    hooks = Hooks(
        log=lambda record: run.append("log.jsonl", record),
        checkpoint=lambda state: run.save_checkpoint({**state, "recipe": identity}),
        task=progress.task,
        interrupted=interrupted,
        resume=state,
        weights=weights,
    )
    start(method, [stage.corpus], recipe.train, hooks)
    facts: dict[str, Any] = {"decoder_parameters": decoder_parameters(method), "reader_dtype": str(stage.reader.dtype)}
    facts |= {"training_identity": identity}
    run.start(recipe, facts)
    if state is None:
        run.write("log.jsonl", b"")
    else:
        run.write_lines("log.jsonl", [line for line in run.lines("log.jsonl") if line["step"] <= state["step"]])
    trained = Trained(0, 0.0, len(stage.corpus.examples), {})
    if facts["decoder_parameters"]:
        trained = fit(method, [stage.corpus], recipe.objective, recipe.train, hooks)
    run.save_weights(method.tensors())
    done = {"train_steps": trained.steps, "train_seconds": trained.seconds, "train_examples": trained.examples}
    run.start(recipe, facts | done)
    return trained


def evaluate(stage: Stage, run: Run, progress: Progress, lent: FinishedRungs = (), resume: bool = False) -> list[Row]:
    """Climb the ladder and write rows and predictions. Rungs that an interrupted evaluation finished are kept.

    With `resume`, so are those of an evaluation that was finished by the same recipe, code and machine.
    Rungs without a decoder are taken from `lent`, the `finished_rungs` of a run that put the same questions; the rows say so.

    Raises:
        RunError: The folder holds no trained run, or one of another recipe.
    """
    recipe, reader = stage.recipe, stage.reader
    run.recipe()  # raises where nothing was trained
    facts = json.loads((run.folder / "provenance.json").read_text(encoding="utf-8"))
    training = training_identity(recipe, reader.fingerprint)
    if facts.get("training_identity") != training:
        raise RunError(
            f"expected the run in {run.folder} to be trained by this recipe, reader and version, got one of another; undo"
            " the change, or train anew with --force"
        )
    rungs = {rung.name: (rung, _method(rung, stage, run)) for rung in stage1_rungs(recipe, reader, stage.corpus)}
    asked = asking_hash(recipe, reader.fingerprint)
    identity = asked + training + json.dumps(recipe.model_dump(mode="json")["eval"])
    kept = run.lines(PARTIAL) or (run.lines(LADDER) if resume else [])
    begun = [line for line in kept if line["identity"] == identity]
    done = begun or borrowed(lent, asked, recipe.eval.scopes, rungs)
    run.write_lines(PARTIAL, [{**line, "identity": identity} for line in done])
    results = [measured(line) for line in done]
    finished = {(result.rung, result.scope) for result in results}
    evaluator = Evaluator(reader, stage.evaluation, recipe.eval.batch, recipe.eval.max_new_tokens)
    for scope in recipe.eval.scopes:
        weights = _slot_counts(stage, scope)
        for name, (rung, method) in rungs.items():
            if (name, scope) in finished:
                continue
            show = progress.task(f"{scope}: {name}")
            evaluator.progress = _share(show)
            result = evaluator.run(name, method, scope)
            if "decoder" in rung.spec:
                result = _with_quality(result, method, stage, weights)
            line = {"identity": identity, "asked": asked, "spec": rung.spec, "result": result.to_dict()}
            run.append(PARTIAL, line)
            results.append(result)
    rows = make_rows(results, rungs, stage.evaluation, recipe, reader, {**facts, **provenance()})
    run.write_lines("rows.jsonl", [row.to_dict() for row in rows])
    run.write_lines("predictions.jsonl", _predictions(results, stage.evaluation))
    (run.folder / PARTIAL).replace(run.folder / LADDER)
    return rows


def report(folder: Path) -> Path:
    """Write the run's report page; returns its path."""
    return write_report(folder)


def _method(rung: Rung, stage: Stage, run: Run) -> Method:
    method = build(METHODS, rung.spec)
    if rung.trained:
        method.load(run.load_weights(), stage.reader)
    else:
        method.prepare(stage.reader, stage.corpus.counts)
    return method


def _with_quality(result: RungResult, method: Method, stage: Stage, weights: np.ndarray[Any, Any]) -> RungResult:
    heldout = np.zeros_like(weights)
    heldout[stage.corpus.heldout_rows] = 1
    quality = measure_decoder(method, stage.reader, weights)
    values = {name: getattr(result, name) for name in result.__dataclass_fields__}
    values |= {"quality": quality, "quality_heldout": measure_decoder(method, stage.reader, heldout)}
    return RungResult(**values)


def _slot_counts(stage: Stage, scope: Scope) -> np.ndarray[Any, Any]:
    ids = [token for example in stage.evaluation for token in stage.reader.prompt(example, scope).slot.ids]
    return np.bincount(ids, minlength=stage.reader.vocab_size)


def _predictions(results: Sequence[RungResult], examples: Sequence[Example]) -> Iterator[dict[str, Any]]:
    for result in results:
        for example, outcome, score in zip(examples, result.outcomes, result.f1, strict=True):
            yield {
                "rung": result.rung,
                "scope": result.scope,
                "id": example.id,
                "context": context_hash(example.context),
                "question": example.question,
                "gold": list(example.answers),
                "answer": outcome.answer,
                "f1": score,
                "answer_nll": outcome.answer_nll,
            }


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


def _share(show: Callable[[float, str], None]) -> Callable[[int, int], None]:
    return lambda done, total: show(done / total, f"{done}/{total}")
