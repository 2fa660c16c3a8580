"""End to end on the real SmolLM2-135M, and the README's snippet as it stands there."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from latentwire.corpus import Corpus
from latentwire.data import DATASETS
from latentwire.evaluate import Evaluator
from latentwire.methods.embeddings import RawEmbeddings
from latentwire.methods.per_token import PerToken
from latentwire.methods.text import NoContext, TokenIds
from latentwire.reader.load import load_reader

pytestmark = pytest.mark.packaged
README = Path(__file__).parent.parent / "README.md"


RUNGS = [
    "no context",
    "full text",
    "raw embeddings",
    "token ids",
    "pca 8x, linear",
    "pca 8x, codebook_hard",
    "pca 8x, mlp",
]


def test_readme_snippet_answers_its_question(capsys):
    code = re.search(r"```python\n(.*?)```", README.read_text(), re.DOTALL).group(1)
    assert len([line for line in code.splitlines() if line.strip()]) <= 8
    exec(code, {})
    answer, count = capsys.readouterr().out.rsplit(maxsplit=1)
    assert answer.strip()
    assert int(count) > 1000


def test_demo_recipe_trains_evaluates_and_reports(tmp_path):
    """What `make demo` does, with fewer questions, steps and rungs."""
    small = ["data.limit=60", "data.eval_limit=3", "train.steps=40", "eval.max_new_tokens=6", "eval.resamples=200"]
    small.append(f"eval.rungs=[{', '.join(json.dumps(rung) for rung in RUNGS)}]")
    command = [sys.executable, "-m", "latentwire", "run", "recipes/demo.yaml", *small, "--out", tmp_path, "--json"]
    found = subprocess.run(command, cwd=README.parent, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    rows = {row["rung"]: row for row in json.loads(found.stdout)["rows"]}
    assert list(rows) == RUNGS
    assert rows["full text"]["f1"] == rows["raw embeddings"]["f1"] == rows["pca 8x, codebook_hard"]["f1"] > 0.2
    assert rows["pca 8x, codebook_hard"]["agreement"] == rows["token ids"]["agreement"] == 1.0
    assert rows["no context"]["f1"] < rows["full text"]["f1"]
    trained, inverse = rows["pca 8x, mlp"], rows["pca 8x, linear"]
    assert trained["variance_unexplained"] < 0.8 * inverse["variance_unexplained"]
    assert trained["answer_nll"] < inverse["answer_nll"]
    page = (tmp_path / "demo" / "report.html").read_text()
    assert "pca 8x, mlp" in page
    assert "smollm2-135m" in page


@torch.no_grad()
def test_generated_passages_have_the_promised_length():
    reader = load_reader("smollm2-135m", dtype="float32")
    examples = DATASETS["facts"]().examples("train", 5, 60)
    lengths = [len(reader.prompt(example, "context").slot.ids) for example in examples]
    assert 100 <= min(lengths) <= max(lengths) <= 250


@torch.no_grad()
def test_logits_from_ids_equal_logits_from_embeddings():
    reader = load_reader("smollm2-135m", dtype="float32")
    ids = torch.tensor([reader.prompt(DATASETS["facts"]().examples("heldout", 3, 1)[0], "prompt").ids])
    from_ids = reader.model(input_ids=ids).logits
    from_embeds = reader.model(inputs_embeds=reader.embed(ids[0])[None]).logits
    torch.testing.assert_close(from_ids, from_embeds, atol=1e-4, rtol=0)
    assert from_ids.std() > 1


def test_codebook_answers_like_the_text_and_context_helps():
    reader = load_reader("smollm2-135m", dtype="float32")
    examples = DATASETS["facts"]().examples("heldout", 3, 4)
    method = PerToken(decoder="codebook_hard")
    method.prepare(reader, Corpus(reader, examples, "prompt", 0).counts)
    evaluator = Evaluator(reader, examples, 4, 8)
    floor = evaluator.run("floor", NoContext(), "prompt")
    raw = evaluator.run("raw", RawEmbeddings(), "prompt")
    read = len(evaluator._seen)
    same = [
        evaluator.run(name, one, scope)
        for name, one, scope in [
            ("ids", TokenIds(), "prompt"),
            ("codebook", method, "prompt"),
            ("codebook", method, "context"),
        ]
    ]
    assert len(evaluator._seen) == read == 8, "expected identical inputs to be read once"
    for result in same:
        assert [out.answer for out in result.outcomes] == [out.answer for out in raw.outcomes]
    assert sum(raw.f1) > sum(floor.f1)
    nll = [sum(out.answer_nll for out in result.outcomes) for result in (raw, floor)]
    assert nll[0] < nll[1] - 4
    assert raw.bytes_on_wire[0] > 30 * same[0].bytes_on_wire[0]
