"""What frozen models made of a text is made once in an evaluation, but for the time that it takes."""

import time

from latentwire import remembered
from latentwire.data import DATASETS
from latentwire.encoder import Encoder
from latentwire.evaluate import Evaluator
from latentwire.methods.surprising import SurprisingTokens
from latentwire.remembered import anew, recall, remembered_bytes, remembering
from test_wire import prepared
from tiny import tiny_reader

SLOW = 0.05


def counted(made, key="key", size=8):
    def make():
        made.append(key)
        return len(made)

    return recall(key, make, lambda value: size)


def test_a_value_is_made_once_inside_and_each_time_outside_or_where_time_is_taken(monkeypatch):
    made = []
    assert [counted(made), counted(made)] == [1, 2]
    with remembering():
        assert [counted(made), counted(made), counted(made, "other")] == [3, 3, 4]
        with anew():
            assert counted(made) == 5
        assert counted(made) == 3
        assert remembered_bytes() == 16
        monkeypatch.setattr(remembered, "MOST_BYTES", 20)
        assert [counted(made, "third"), counted(made, "third")] == [6, 7]
        assert counted(made) == 3
    assert remembered_bytes() == 0
    assert counted(made) == 8


def test_rungs_read_a_context_once_answer_the_same_and_are_timed_each(monkeypatch):
    reader = tiny_reader("llama")
    examples = DATASETS["facts"](questions_per_passage=2).examples("heldout", 0, 12)
    rungs = [prepared(reader, moved=True, compression=size) for size in (4, 8)]
    rungs += [SurprisingTokens(compression=size) for size in (4.0, 8.0)]
    reads = []
    read = Encoder._read

    def slow(encoder, windows):
        reads.append(len(windows))
        time.sleep(SLOW)
        return read(encoder, windows)

    monkeypatch.setattr(Encoder, "_read", slow)

    def results():
        return [Evaluator(reader, examples, 4, 4).run(str(place), rung, "context") for place, rung in enumerate(rungs)]

    alone = results()
    assert len(reads) == 2 * 3 + 2 * 6  # a batch of a wire's two contexts at once, a context of the others' at a time
    reads.clear()
    rungs[2:] = [SurprisingTokens(compression=size) for size in (4.0, 8.0)]
    with remembering():
        together = results()
    assert len(reads) == (3 + 1) + (6 + 2)  # what is timed is read by each, the rest by the first of its kind
    for one, other in zip(alone, together, strict=True):
        assert other.outcomes == one.outcomes
        assert other.encode_seconds > SLOW / 2
