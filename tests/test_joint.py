"""Answers that several readers choose together."""

import dataclasses

import numpy as np
import pytest
import torch

from latentwire.corpus import Corpus
from latentwire.data import DATASETS
from latentwire.evaluate import Evaluator
from latentwire.joint import joint_row
from latentwire.ladder import Climber, make_rows
from latentwire.methods import METHODS
from latentwire.metrics import f1
from latentwire.report.rows import Row
from latentwire.rungs import Rung
from test_ladder import FACTS, RECIPE
from tiny import tiny_reader

EXAMPLES = DATASETS["facts"]().examples("heldout", 0, 5)
PROPOSALS = (["lavender", "1874", "a", "Ruth", ""], ["in 1874", "the sea", "zz", "Ruth Almeida", "x"])


@pytest.fixture(scope="module")
def members():
    found = []
    for family in ("llama", "gemma3"):
        reader, method = tiny_reader(family), METHODS["full_text"]()
        method.prepare(reader, Corpus(reader, EXAMPLES, "context", 0).counts)
        found.append((reader, Climber(Rung("full text", {"name": "full_text"}), method, {})))
    return found


def log_probability(reader, example, answer):
    """By one pass over the whole prompt, without a cache and alone."""
    prompt = reader.prompt(example, "context")
    labels = reader.prompter.labels(answer)
    logits = reader.model(input_ids=torch.tensor([[*prompt.ids, *labels]])).logits[0].log_softmax(dim=-1)
    start = len(prompt.ids) - 1
    return float(sum(logits[start + place, label] for place, label in enumerate(labels)))


def test_the_answer_that_all_readers_together_find_likeliest_is_taken(members):
    base = Evaluator(members[0][0], EXAMPLES, 4, 4).run("full text", members[0][1].method, "context")
    results = [
        dataclasses.replace(
            base,
            outcomes=[dataclasses.replace(one, answer=text) for one, text in zip(base.outcomes, texts, strict=True)],
        )
        for texts in PROPOSALS
    ]
    row = joint_row(results, members, EXAMPLES, 4, 100, like(members[0], base), lambda done, remark: None)
    expected = []
    for example, *texts in zip(EXAMPLES, *PROPOSALS, strict=True):
        sums = [sum(log_probability(reader, example, text) for reader, _ in members) for text in texts]
        expected.append(f1(texts[int(np.argmax(sums))], example.answers))
    assert row.f1 == pytest.approx(np.mean(expected))
    assert row.reader == "tiny-llama + tiny-gemma3"
    assert (row.answer_nll, row.ratio, row.prefill_seconds) == (None, None, None)


def like(member, result) -> Row:
    reader, climber = member
    recipe = RECIPE.model_copy(update={"eval": RECIPE.eval.model_copy(update={"scopes": ("context",)})})
    names = ("no context", "full text", "raw embeddings")
    climbers = {name: dataclasses.replace(climber, rung=Rung(name, {"name": "full_text"})) for name in names}
    results = [dataclasses.replace(result, rung=name) for name in names]
    return make_rows(results, climbers, EXAMPLES, recipe, reader, FACTS)[1]
