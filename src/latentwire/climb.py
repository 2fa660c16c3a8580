"""Climbing the ladder: every rung of every reader in every scope, into rows and predictions of a run folder."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from latentwire.corpus import Corpus
from latentwire.curve import learning_curve
from latentwire.data import Example, context_hash
from latentwire.earlier import LADDER, FinishedRungs, borrowed, measured
from latentwire.errors import RunError
from latentwire.evaluate import Evaluator, RungResult, measure_decoder, shown
from latentwire.joint import JOINT, joint_row
from latentwire.ladder import Climber, make_rows
from latentwire.methods import METHODS, Method
from latentwire.pipeline import Progress, Stage, own_stage
from latentwire.reader import Reader, Scope
from latentwire.remembered import remembering
from latentwire.report.rows import Row
from latentwire.rungs import OWN, Rung, ladder_rungs
from latentwire.runs import Run, asking_hash, provenance, training_identity
from latentwire.specs import build

PARTIAL = "ladder.partial.jsonl"
Climbers = Mapping[str, Climber]


@remembering()
def evaluate(stage: Stage, run: Run, progress: Progress, lent: FinishedRungs = (), resume: bool = False) -> list[Row]:
    """Climb the ladder and write rows and predictions. Rungs that an interrupted evaluation finished are kept.

    With `resume`, so are those of an evaluation that was finished by the same code, machine and recipe, `eval.rungs` apart.
    Rungs without a decoder are taken from `lent`, the `finished_rungs` of a run that put the same questions; the rows say so.

    Raises:
        RunError: The folder holds no trained run, or one of another recipe.
    """
    facts = _facts(stage, run)
    kept = run.lines(PARTIAL) or (run.lines(LADDER) if resume else [])
    identity = facts["training_identity"] + stage.recipe.eval.model_dump_json(exclude={"rungs"})
    begun = [line for line in kept if line["identity"] == identity]
    run.write_lines(PARTIAL, begun)
    rows: list[Row] = []
    results: list[RungResult] = []
    built: dict[str, Method] = {}
    members: list[tuple[Reader, Climbers]] = []
    for corpus in stage.corpora:
        climbers = {rung.name: _climber(rung, stage, corpus, run, built) for rung in ladder_rungs(stage.recipe, corpus)}
        found = _climb(stage, run, corpus, climbers, begun, lent, identity, progress)
        rows += make_rows(found, climbers, stage.evaluation, stage.recipe, corpus.reader, provenance())
        results += found
        members.append((corpus.reader, climbers))
    if len(members) > 1:
        rows += _joint(stage, members, results, rows, progress)
    run.write_lines("curve.jsonl", learning_curve(stage, run, results, progress))
    run.write_lines("rows.jsonl", [row.to_dict() for row in rows])
    run.write_lines("predictions.jsonl", _predictions(results, stage.evaluation))
    (run.folder / PARTIAL).replace(run.folder / LADDER)
    return rows


def _facts(stage: Stage, run: Run) -> dict[str, Any]:
    """What training wrote down, once it is sure to be this recipe's."""
    run.recipe()  # raises where nothing was trained
    facts = run.facts()
    if facts.get("training_identity") != training_identity(stage.recipe, stage.fingerprint):
        raise RunError(
            f"expected the run in {run.folder} to be trained by this recipe, reader and version, got one of another; undo"
            " the change, or train anew with --force"
        )
    return facts


def _climb(
    stage: Stage,
    run: Run,
    corpus: Corpus,
    climbers: Climbers,
    begun: Sequence[dict[str, Any]],
    lent: FinishedRungs,
    identity: str,
    progress: Progress,
) -> list[RungResult]:
    """Results of one reader: those that are there, then the others."""
    recipe, reader = stage.recipe, corpus.reader
    asked = asking_hash(recipe, recipe.readers[stage.corpora.index(corpus)], reader.fingerprint)
    specs = {name: json.loads(json.dumps(climber.rung.spec)) for name, climber in climbers.items()}
    done = [line for line in begun if line["asked"] == asked and specs.get(line["result"]["rung"]) == line["spec"]]
    if not done:
        done = borrowed(lent, asked, recipe.eval.scopes, [climber.rung for climber in climbers.values()])
        for line in done:
            run.append(PARTIAL, {**line, "identity": identity})
    results = {(line["result"]["rung"], line["result"]["scope"]): measured(line) for line in done}
    evaluator = Evaluator(reader, stage.evaluation, recipe.eval.batch, recipe.eval.max_new_tokens)
    several = f"{reader.name}, " if len(stage.corpora) > 1 else ""
    for scope in recipe.eval.scopes:
        for name, climber in climbers.items():
            if (name, scope) in results:
                continue
            rung, method = climber.rung, climber.method
            evaluator.progress = shown(progress.task(f"{several}{scope}: {name}"))
            result = evaluator.run(name, method, scope)
            if "decoder" in rung.spec:
                result = _with_quality(result, method, corpus, _slot_counts(stage.evaluation, corpus, scope))
            run.append(PARTIAL, {"identity": identity, "asked": asked, "spec": rung.spec, "result": result.to_dict()})
            results[name, scope] = result
    return [results[name, scope] for scope in recipe.eval.scopes for name in climbers]


def _joint(
    stage: Stage,
    members: Sequence[tuple[Reader, Climbers]],
    results: Sequence[RungResult],
    rows: Sequence[Row],
    progress: Progress,
) -> list[Row]:
    """One row more: the recipe's own method, its answers chosen by all readers together."""
    own = next((row for row in rows if row.trained and row.decodes_latent), None)
    if own is None:
        return []
    answered = [result for result in results if (result.rung, result.scope) == (own.rung, own.scope)]
    parts = [(reader, climbers[own.rung]) for reader, climbers in members]
    recipe, task = stage.recipe.eval, progress.task(f"{own.rung}: {JOINT}")
    return [joint_row(answered, parts, stage.evaluation, recipe.batch, recipe.resamples, own, task)]


def _climber(rung: Rung, stage: Stage, corpus: Corpus, run: Run, built: dict[str, Method]) -> Climber:
    """The rung's method, ready for the corpus' reader. What was trained for several readers is one method for all."""
    if rung.weights is None:
        method = build(METHODS, rung.spec)
        method.prepare(corpus.reader, corpus.counts)
        return Climber(rung, method, {})
    method = built.setdefault(rung.name, build(METHODS, rung.spec))
    if rung.weights == OWN:
        method.load(run.load_weights(), corpus.reader)
        return Climber(rung, method, _facts(stage, run))
    with Run(run.folder / rung.weights) as part:
        method.load(part.load_weights(), corpus.reader)
        return Climber(rung, method, _facts(own_stage(stage, rung), part))


def _with_quality(result: RungResult, method: Method, corpus: Corpus, weights: npt.NDArray[np.int64]) -> RungResult:
    heldout = np.zeros_like(weights)
    heldout[corpus.heldout_rows] = 1
    quality, unseen = (measure_decoder(method, corpus.reader, counts) for counts in (weights, heldout))
    return replace(result, quality=quality, quality_heldout=unseen)


def _slot_counts(examples: Sequence[Example], corpus: Corpus, scope: Scope) -> npt.NDArray[np.int64]:
    ids = [token for example in examples for token in corpus.reader.prompt(example, scope).slot.ids]
    return np.bincount(ids, minlength=corpus.reader.vocab_size)


def _predictions(results: Sequence[RungResult], examples: Sequence[Example]) -> Iterator[dict[str, Any]]:
    for result in results:
        for example, outcome, score in zip(examples, result.outcomes, result.f1, strict=True):
            yield {
                "reader": result.reader,
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
