"""The learning curve: what the run's own method and the tuned text had learnt at stages of training, as shares of the gap."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np

from latentwire.evaluate import Evaluator, RungResult, shown
from latentwire.methods import METHODS
from latentwire.metrics import share_of_gap
from latentwire.pipeline import Progress, Stage, has_curve
from latentwire.report.rows import FLOOR_TUNED, TEXT, TEXT_TUNED
from latentwire.rungs import OWN, Rung, ladder_rungs
from latentwire.runs import Run
from latentwire.specs import build

QUESTIONS = 100  # the first so many of the evaluation


def learning_curve(stage: Stage, run: Run, results: Sequence[RungResult], progress: Progress) -> list[dict[str, Any]]:
    """A line for each reader, rung and stage, the end among them.

    The gap is that of the finished ladder over the same questions: tuned floor to text, plain or tuned, whichever is better.
    Where the ladder has no tuned rungs, lines have scores, and no share.
    """
    rungs = {rung.name: rung for rung in ladder_rungs(stage.recipe, stage.corpora[0])}
    own = next((rung for rung in rungs.values() if rung.weights == OWN), None)
    if not has_curve(stage.recipe) or own is None:
        return []
    tuned = {FLOOR_TUNED, TEXT_TUNED} <= rungs.keys()
    lines: list[dict[str, Any]] = []
    for rung in (own, rungs[TEXT_TUNED]) if tuned else (own,):
        lines += _stages(stage, run, rung, progress)
        lines += [
            _line(stage, rung, stage.recipe.train.steps, result)
            for result in results
            if (result.rung, result.scope) == (rung.name, stage.recipe.eval.scopes[0])
        ]
    for line in lines if tuned else ():
        here = {
            result.rung: float(np.mean(result.f1[:QUESTIONS])) for result in results if result.reader == line["reader"]
        }
        line["share_of_gap"] = share_of_gap(line["f1"], here[FLOOR_TUNED], (here[TEXT], here[TEXT_TUNED]))
    return lines


def _stages(stage: Stage, run: Run, rung: Rung, progress: Progress) -> list[dict[str, Any]]:
    """The rung as it was at each stage that was kept, with every reader."""
    recipe, lines = stage.recipe, []
    with nullcontext(run) if rung.weights == OWN else Run(run.folder / str(rung.weights)) as part:
        for step in part.stages():
            method = build(METHODS, rung.spec)
            for corpus in stage.corpora:  # the first reader first: it may be the encoder
                method.load(part.load_weights(step), corpus.reader)
                questions = stage.evaluation[:QUESTIONS]
                evaluator = Evaluator(corpus.reader, questions, recipe.eval.batch, recipe.eval.max_new_tokens)
                evaluator.progress = shown(progress.task(f"{corpus.reader.name}, {rung.name}: after {step} steps"))
                lines.append(_line(stage, rung, step, evaluator.run(rung.name, method, recipe.eval.scopes[0])))
    return lines


def _line(stage: Stage, rung: Rung, step: int | None, result: RungResult) -> dict[str, Any]:
    return {
        "reader": result.reader,
        "rung": rung.name,
        "examples": None if step is None else step * stage.recipe.train.batch_examples,
        "n": len(result.f1[:QUESTIONS]),
        "f1": float(np.mean(result.f1[:QUESTIONS])),
        "answer_nll": float(np.mean([outcome.answer_nll for outcome in result.outcomes[:QUESTIONS]])),
    }
