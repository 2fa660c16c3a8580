"""The engine: requests that join and leave a running batch get the answers they would get alone, and nobody waits for nothing."""

import threading

import pytest
import torch

from latentwire.data import DATASETS
from latentwire.errors import BusyError
from latentwire.reader import Prefix
from latentwire.reader.state import fork, merged
from latentwire.serve.engine import Engine
from latentwire.serve.work import Job, Request
from questions import QUESTIONS
from tiny import FAMILIES, tiny_reader

NEW = 12
EXAMPLES = [*QUESTIONS, *DATASETS["facts"]().examples("train", 0, 3)]


class Listener:
    """Collects what a request is answered."""

    def __init__(self, at_piece=None):
        self.pieces, self.done, self.at_piece = [], threading.Event(), at_piece

    def __call__(self, piece):
        self.pieces.append(piece)
        if self.at_piece:
            self.at_piece(self)
        if piece.finish:
            self.done.set()

    @property
    def text(self):
        return "".join(piece.text for piece in self.pieces)

    def wait(self):
        assert self.done.wait(30)
        return self


def embeds_of(reader, example):
    return reader.embed(torch.tensor(reader.prompt(example, "context").ids))


def request_of(reader, example, listener, **fields):
    fields = {"max_tokens": NEW, "one_line": False, **fields}
    return Request(reader.name, embeds_of(reader, example), listener=listener, **fields)


def alone(reader, example):
    prompt = reader.prompt(example, "context")
    state = reader.prefill(reader.lay_in([prompt], Prefix.stack([reader.embed(torch.tensor(prompt.slot.ids))])), NEW)
    return reader.generate(state, NEW, one_line=False)[0].text


@pytest.fixture
def engine_of():
    made = []

    def make(readers, **fields):
        made.append(Engine({reader.name: reader for reader in readers}, **fields))
        return made[-1]

    yield make
    for engine in made:
        assert engine.close()


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_of_merged_states_give_the_logits_they_give_alone(family):
    reader = tiny_reader(family)
    rows = [embeds_of(reader, example) for example in (EXAMPLES[0], EXAMPLES[3], EXAMPLES[5])]
    states = [reader._read([_level(row)])[1] for row in (rows[0][:9], rows[1], rows[2][:40])]
    ids = torch.tensor([[5], [6], [7]])
    apart = [
        reader.extend(fork(state), ids[place : place + 1], torch.ones(1, 1, dtype=torch.bool))[1].hidden
        for place, state in enumerate(states)
    ]
    _, together = reader.extend(merged(states), ids, torch.ones(3, 1, dtype=torch.bool))
    torch.testing.assert_close(reader.head(together.hidden), reader.head(torch.cat(apart)), atol=1e-4, rtol=1e-4)


def _level(row):
    from latentwire.reader.inputs import Level, pad_left

    return Level(pad_left([row]), torch.zeros(1, dtype=torch.long))


@pytest.mark.parametrize("family", FAMILIES)
def test_requests_that_join_and_leave_at_any_time_get_the_answers_they_get_alone(family, engine_of):
    reader = tiny_reader(family)
    engine = engine_of([reader], most_running=3)
    examples = EXAMPLES[:7]
    later = Listener()

    def join(listener):
        if len(listener.pieces) == 4:  # in the middle of the first answer
            engine.submit(request_of(reader, examples[6], later))

    listeners = [Listener(join if place == 0 else None) for place in range(6)]
    for place, (example, listener) in enumerate(zip(examples, listeners, strict=False)):
        engine.submit(request_of(reader, example, listener, max_tokens=NEW - place))
    for place, (example, listener) in enumerate(zip(examples, [*listeners, later], strict=True)):
        limit = NEW - place if place < 6 else NEW
        pieces = listener.wait().pieces
        assert pieces[-1].tokens <= limit
        whole = alone(reader, example)
        assert listener.text.strip() == whole if limit == NEW else whole.startswith(listener.text.strip())


def test_two_readers_answer_at_the_same_time(engine_of):
    readers = [tiny_reader("llama"), tiny_reader("gemma3")]
    engine = engine_of(readers)
    listeners = []
    for example in EXAMPLES[:3]:
        for reader in readers:
            listeners.append((reader, example, Listener()))
            engine.submit(request_of(reader, example, listeners[-1][2]))
    for reader, example, listener in listeners:
        assert listener.wait().text.strip() == alone(reader, example)


def test_one_line_answers_end_as_the_readers_own(engine_of):
    reader = tiny_reader("llama")
    engine, listener = engine_of([reader]), Listener()
    prompt = reader.prompt(EXAMPLES[1], "context")
    state = reader.prefill(reader.lay_in([prompt], Prefix.stack([reader.embed(torch.tensor(prompt.slot.ids))])), NEW)
    engine.submit(request_of(reader, EXAMPLES[1], listener, one_line=True))
    assert listener.wait().text == reader.generate(state, NEW)[0].text


def test_a_listener_that_leaves_stops_its_work_within_a_token(engine_of):
    reader = tiny_reader("llama")
    engine = engine_of([reader])
    requests = []

    def leave(listener):
        if len(listener.pieces) == 3:
            requests[0].cancelled = True

    listener, other = Listener(leave), Listener()
    requests.append(request_of(reader, EXAMPLES[0], listener, max_tokens=200))
    engine.submit(requests[0])
    engine.submit(request_of(reader, EXAMPLES[1], other))
    assert listener.wait().pieces[-1].finish == "cancelled"
    assert len(listener.pieces) == 4
    assert other.wait().text.strip() == alone(reader, EXAMPLES[1])


def test_a_full_line_is_refused_and_nothing_in_it_is_lost(engine_of):
    reader = tiny_reader("llama")
    engine, held = engine_of([reader], most_waiting=2, most_running=1), threading.Event()
    begun = threading.Event()

    def hold():
        begun.set()
        return held.wait(30)

    engine.submit(Job(hold))
    assert begun.wait(30)
    listeners = [Listener(), Listener()]
    for listener in listeners:
        engine.submit(request_of(reader, EXAMPLES[0], listener))
    with pytest.raises(BusyError, match="fewer than 2"):
        engine.submit(request_of(reader, EXAMPLES[0], Listener()))
    held.set()
    for listener in listeners:
        assert listener.wait().text.strip() == alone(reader, EXAMPLES[0])


def test_what_fails_ends_its_own_batch_and_the_next_is_answered(engine_of, caplog):
    reader = tiny_reader("llama")
    engine, bad, good = engine_of([reader]), Listener(), Listener()
    wrong = request_of(reader, EXAMPLES[0], bad)
    wrong.embeds = torch.zeros(4, reader.width + 1)
    engine.submit(wrong)
    assert bad.wait().pieces[-1].finish == "error"

    def fail():
        raise RuntimeError("no such thing")

    engine.submit(Job(fail))
    engine.submit(request_of(reader, EXAMPLES[0], good))
    assert good.wait().text.strip() == alone(reader, EXAMPLES[0])
    assert "no such thing" in caplog.text


def test_closing_finishes_what_is_in_line_and_takes_nothing_more():
    reader = tiny_reader("llama")
    engine, listeners = Engine({reader.name: reader}), [Listener() for _ in range(5)]
    for listener in listeners:
        engine.submit(request_of(reader, EXAMPLES[0], listener))
    assert engine.close()
    assert all(listener.done.is_set() for listener in listeners)
    with pytest.raises(BusyError, match="shutting down"):
        engine.submit(request_of(reader, EXAMPLES[0], Listener()))


def test_a_stop_text_ends_the_answer_and_is_no_part_of_it(engine_of):
    reader = tiny_reader("llama")
    whole = alone(reader, EXAMPLES[0])
    stop = whole[4:7]
    engine, listener = engine_of([reader]), Listener()
    engine.submit(request_of(reader, EXAMPLES[0], listener, stops=(stop,)))
    assert listener.wait().text == whole[: whole.index(stop)]
    assert listener.pieces[-1].finish == "stop"


def test_drawn_answers_repeat_by_seed_and_differ_between_seeds(engine_of):
    reader = tiny_reader("llama")
    engine, texts = engine_of([reader]), []
    for seed in (1, 1, 2):
        listener = Listener()
        engine.submit(request_of(reader, EXAMPLES[0], listener, temperature=1.0, seed=seed))
        texts.append(listener.wait().text)
    assert texts[0] == texts[1] != texts[2]
    listener = Listener()
    engine.submit(request_of(reader, EXAMPLES[0], listener, temperature=1.0, top_p=1e-6))
    assert listener.wait().text.strip() == alone(reader, EXAMPLES[0])
