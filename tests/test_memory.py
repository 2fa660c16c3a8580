"""Memory stays flat: the codebook search and the losses work in chunks, whatever the vocabulary or the batch."""

import weakref

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from latentwire.data import DATASETS
from latentwire.evaluate import Evaluator, measure_decoder
from latentwire.methods.decoders import SEARCH_BYTES, nearest_rows
from latentwire.methods.per_token import PerToken
from latentwire.objectives import cross_entropy, divergence
from latentwire.reader import IGNORE, LOGIT_BYTES
from questions import counts_of
from tiny import tiny_reader

BUDGET = 512 * 2**20


class PeakMemory(TorchDispatchMode):
    """Counts the bytes of all tensors that operations make and that are alive at once; views of `given` are free."""

    def __init__(self, *given):
        super().__init__()
        self.given = {tensor.untyped_storage().data_ptr() for tensor in given}
        self.alive: dict[int, tuple[int, int]] = {}
        self.peak = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, (tuple, list)) else [made]:
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                place = storage.data_ptr()
                if place in self.given:
                    continue
                count, _ = self.alive.get(place, (0, 0))
                self.alive[place] = count + 1, storage.nbytes()
                weakref.finalize(tensor, self._drop, place)
        self.peak = max(self.peak, sum(size for _, size in self.alive.values()))
        return made

    def _drop(self, place):
        count, size = self.alive[place]
        if count == 1:
            del self.alive[place]
        else:
            self.alive[place] = count - 1, size


def search_peak(queries, rows):
    table, wanted = torch.zeros(rows, 4), torch.ones(queries, 4)
    with PeakMemory(table, wanted) as memory:
        nearest_rows(wanted, table)
    return memory.peak


class Shapes(TorchDispatchMode):
    """Collects the shapes of all operands."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen |= {tuple(operand.shape) for operand in args if isinstance(operand, torch.Tensor)}
        return func(*args, **(kwargs or {}))


@torch.no_grad()
def test_logits_of_last_positions_do_not_spread_the_output_weight_over_the_batch():
    """Of a slice `[B, 1, D]` torch makes a batched product, whose weight `[B, D, V]` a bf16 kernel really copies."""
    reader = tiny_reader("llama")
    hidden = torch.randn(16, 8, reader.width)
    with Shapes() as shapes:
        reader.head(hidden[:, -1:])
    assert (reader.width, reader.vocab_size) in shapes.seen
    assert (16, reader.width, reader.vocab_size) not in shapes.seen


def test_budgets_of_search_and_losses_stay_within_the_promise():
    assert max(SEARCH_BYTES, LOGIT_BYTES) <= BUDGET // 2


def test_codebook_search_keeps_within_its_budget(monkeypatch):
    budget = 4 * 2**20
    monkeypatch.setattr("latentwire.methods.decoders.SEARCH_BYTES", budget)
    few = search_peak(300, 3 * 16_384)
    assert budget / 8 < few <= budget
    assert search_peak(300, 12 * 16_384) <= 1.1 * few
    assert search_peak(900, 3 * 16_384) <= 1.1 * few


def test_measuring_a_decoder_copies_no_table_and_finds_the_same_tokens(monkeypatch):
    reader = tiny_reader("gemma3")
    method = PerToken(decoder="linear", compression=3)
    method.prepare(reader, counts_of(reader))
    weights = np.zeros(reader.vocab_size, dtype=np.int64)
    weights[40:400:60] = 3
    whole = measure_decoder(method, reader, weights)
    monkeypatch.setattr("latentwire.reader.TABLE_BYTES", 50 * 4 * reader.width)
    with PeakMemory(method._sent, reader.model.get_input_embeddings().weight) as memory:
        chunked = measure_decoder(method, reader, weights)
    assert chunked == whole
    assert 0.0 < whole.token_recovery <= 1.0
    assert memory.peak < reader.vocab_size * reader.width * 4 / 2


@pytest.mark.parametrize("loss", ["cross_entropy", "divergence"])
def test_losses_keep_only_one_chunk_of_logits(loss, monkeypatch):
    reader = tiny_reader("llama")
    chunk = 8 * 4 * reader.vocab_size
    monkeypatch.setattr("latentwire.reader.LOGIT_BYTES", chunk)
    draw = torch.Generator().manual_seed(0)
    hidden = torch.randn(4, 100, reader.width, generator=draw, requires_grad=True)
    labels = torch.full((4, 100), IGNORE)
    labels[:, 10:90] = 7
    with PeakMemory() as memory:
        if loss == "cross_entropy":
            value = cross_entropy(reader, hidden, labels)
        else:
            value = divergence(reader, hidden.detach() * 2, hidden, labels)
        value.backward()
    whole = 4 * 80 * 4 * reader.vocab_size
    assert chunk < memory.peak < whole
    assert hidden.grad is not None
    assert float(hidden.grad[:, 9].abs().sum()) == 0.0
    assert float(hidden.grad[:, 10].abs().sum()) > 0.0


def test_search_in_a_wide_table_keeps_within_its_budget(monkeypatch):
    budget = 4 * 2**20
    monkeypatch.setattr("latentwire.methods.decoders.SEARCH_BYTES", budget)
    table, wanted = torch.zeros(64, 2048), torch.ones(600, 2048)
    with PeakMemory(table, wanted) as memory:
        nearest_rows(wanted, table)
    assert memory.peak <= 1.5 * budget


@torch.no_grad()
def test_scoring_an_answer_keeps_only_one_chunk_of_logits(monkeypatch):
    reader = tiny_reader("llama")
    examples = DATASETS["facts"]().examples("heldout", 0, 8)
    evaluator = Evaluator(reader, examples, 8, 1)
    hidden, labels = torch.randn(64, reader.width), torch.zeros(64, dtype=torch.long)
    whole = evaluator._teacher_forced(hidden, labels)
    chunk = 4 * 4 * reader.vocab_size
    monkeypatch.setattr("latentwire.reader.LOGIT_BYTES", chunk)
    with PeakMemory(hidden, labels, *reader.model.parameters()) as memory:
        chunked = evaluator._teacher_forced(hidden, labels)
    assert chunked[0] == pytest.approx(whole[0], rel=1e-5)
    assert chunked[1] == whole[1]
    assert memory.peak < 5 * chunk < 64 * 4 * reader.vocab_size


def test_quality_of_fewer_than_two_tokens_is_not_measured():
    reader = tiny_reader("llama")
    method = PerToken(decoder="linear", compression=4)
    method.prepare(reader, counts_of(reader))
    weights = np.zeros(reader.vocab_size, dtype=np.int64)
    assert measure_decoder(method, reader, weights) is None
    weights[7] = 3
    assert measure_decoder(method, reader, weights) is None
