"""End to end on the real SmolLM2-135M, and the README's snippet as it stands there."""

import re
from pathlib import Path

import pytest
import torch

from latentwire.api import load_reader
from latentwire.corpus import Corpus
from latentwire.data import DATASETS
from latentwire.evaluate import Evaluator
from latentwire.methods.embeddings import RawEmbeddings
from latentwire.methods.per_token import PerToken
from latentwire.methods.text import NoContext, TokenIds

pytestmark = pytest.mark.packaged
README = Path(__file__).parent.parent / "README.md"


def test_readme_snippet_answers_its_question(capsys):
    code = re.search(r"```python\n(.*?)```", README.read_text(), re.DOTALL).group(1)
    assert len([line for line in code.splitlines() if line.strip()]) <= 9
    exec(code, {})
    answer, count = capsys.readouterr().out.rsplit(maxsplit=1)
    assert answer.strip()
    assert int(count) > 1000


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
    examples = DATASETS["facts"]().examples("heldout", 3, 8)
    method = PerToken(decoder="codebook_hard")
    method.prepare(reader, Corpus(reader, examples, "prompt", 0).counts)
    evaluator = Evaluator(reader, examples, 8, 8)
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
    assert len(evaluator._seen) == read == 16, "expected identical inputs to be read once"
    for result in same:
        assert [out.answer for out in result.outcomes] == [out.answer for out in raw.outcomes]
    assert sum(raw.f1) > sum(floor.f1)
    nll = [sum(out.answer_nll for out in result.outcomes) for result in (raw, floor)]
    assert nll[0] < nll[1] - 4
    assert raw.bytes_on_wire[0] > 30 * same[0].bytes_on_wire[0]
