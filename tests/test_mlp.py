"""The trained decoder: where its units start, what fires, and that the fast path is the plain formula."""

import pytest
import torch

from latentwire.methods import mlp
from latentwire.methods.compressors import moments
from latentwire.methods.mlp import lost_covariance, nearest_cosines
from latentwire.methods.per_token import PerToken
from questions import counts_of
from tiny import tiny_reader

FULL, REST = 60, 101
RANK = 16


@pytest.fixture
def reader():
    return tiny_reader("llama")


@pytest.fixture
def method(reader, monkeypatch):
    """A prepared method with 60 units that write everything and 101 that write a quarter of the directions."""
    monkeypatch.setattr(mlp, "hidden_widths", lambda wide, narrow, vocab: (FULL, REST, RANK))
    made = PerToken()
    made.prepare(reader, counts_of(reader))
    return made


def chosen(reader):
    """The tokens that have a unit, the likeliest first."""
    return torch.from_numpy(counts_of(reader)).argsort(descending=True, stable=True)[: FULL + REST]


def moved(method):
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in method.module().parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=draw)
    return method.module()


def plain(decoder, codes):
    """The decoder's formula, every unit of every code."""
    inputs = (codes - decoder.centre) @ decoder.whitening
    inputs = inputs / inputs.norm(dim=1, keepdim=True)
    levels = (inputs @ decoder.units.T + decoder.thresholds[:, 0]).clamp(min=0)
    correction = levels[:, :FULL] @ decoder.full + levels[:, FULL:] @ decoder.reduced @ decoder.directions
    return decoder.mean + codes @ decoder.components.T + decoder.gain * (correction + decoder.offset)


def test_each_unit_starts_at_one_for_its_token_and_at_most_zero_for_the_other_tokens_with_a_unit(reader, method):
    decoder, codes = method.module(), method._sent[chosen(reader)]
    inputs = decoder._normalised(codes)
    levels = inputs @ decoder.units.T + decoder.thresholds[:, 0]
    own = levels.diagonal()
    others = levels - torch.diag(own + 1)
    torch.testing.assert_close(own, torch.ones(FULL + REST), atol=1e-4, rtol=0)
    separable = 1 - nearest_cosines(inputs) > mlp.LEAST_MARGIN
    assert separable.float().mean() > 0.9
    assert others[:, separable].max() < 1e-3


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("most", [0, 64])
def test_output_and_gradients_are_those_of_the_plain_formula(reader, method, most, bf16, monkeypatch):
    monkeypatch.setattr(mlp, "FIRING_AT_MOST", most)
    monkeypatch.setattr(mlp, "FIRING_BYTES", 4 * (FULL + REST) * 50)
    decoder, codes = moved(method), method._sent[torch.randperm(reader.vocab_size)[:333]]
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        found = decoder(codes)
    wanted = plain(decoder, codes)
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
    pull = torch.randn(found.shape)
    parameters = list(decoder.parameters())
    for name, one, other in zip(
        dict(decoder.named_parameters()),
        torch.autograd.grad(found, parameters, pull),
        torch.autograd.grad(wanted, parameters, pull),
        strict=True,
    ):
        torch.testing.assert_close(one, other, atol=1e-3 * float(other.abs().max()), rtol=1e-3, msg=name)


def pairs(rows, units):
    return set(zip(rows.tolist(), units.tolist(), strict=True))


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_bf16_misses_no_pair_that_fires(reader, method, scale):
    decoder = moved(method)
    inputs = decoder._normalised(method._sent)
    with torch.no_grad():
        decoder.units.mul_(scale)
        decoder.thresholds.copy_(
            -(decoder.units @ inputs[:1].T) + 1e-4
        )  # the first input is just above every threshold
    exact, coarse = (pairs(*decoder._firing(inputs, bf16)) for bf16 in (False, True))
    assert {(0, unit) for unit in range(FULL + REST)} <= exact <= coarse
    assert len(coarse) < 2 * len(exact)


def test_code_for_which_nothing_fires_gets_the_inverse(method):
    decoder = method.module()
    with torch.no_grad():
        decoder.thresholds.fill_(-1e6)
        decoder.full.fill_(1.0)
    codes = method._sent[:20]
    torch.testing.assert_close(decoder(codes), decoder.mean + codes @ decoder.components.T)


def test_directions_start_as_the_leading_ones_that_the_compressor_lost(reader, method):
    decoder, counts = method.module(), torch.from_numpy(counts_of(reader)).double()
    table = torch.cat([rows for _, rows in reader.table()]).double()
    axes = decoder.components.double()
    lost = (table - decoder.mean) @ (torch.eye(reader.width) - axes @ axes.T)
    second = (lost.T * (counts / counts.sum())) @ lost
    found = lost_covariance(decoder.mean, decoder.components, *moments(reader, counts.numpy()))
    torch.testing.assert_close(found, second, atol=1e-5 * float(second.abs().max()), rtol=1e-3)
    kept = (decoder.directions.double() @ second @ decoder.directions.double().T).trace()
    assert kept.item() == pytest.approx(float(torch.linalg.eigvalsh(second)[-RANK:].sum()), rel=1e-4)


def test_tokens_that_weigh_most_in_training_have_the_units(reader, monkeypatch):
    monkeypatch.setattr(mlp, "hidden_widths", lambda wide, narrow, vocab: (1, 2, RANK))
    weights = counts_of(reader).astype(float)
    weights[[400, 300, 200]] = [3e6, 2e6, 1e6]
    method = PerToken()
    method.prepare(reader, counts_of(reader), weights)
    decoder = method.module()
    inputs = decoder._normalised(method._sent[[400, 300, 200]])
    assert (inputs @ decoder.units.T + decoder.thresholds[:, 0]).argmax(dim=1).tolist() == [0, 1, 2]


def test_nearest_cosines_equal_brute_force_in_small_chunks(monkeypatch):
    monkeypatch.setattr(mlp, "SEARCH_BYTES", 4 * 90 * 7)
    rows = torch.nn.functional.normalize(torch.randn(90, 5, generator=torch.Generator().manual_seed(1)), dim=1)
    cosines = rows @ rows.T - 3 * torch.eye(90)
    torch.testing.assert_close(nearest_cosines(rows), cosines.max(dim=1).values)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("width", [4, 8, 36])
def test_positive_entries_are_those_that_a_plain_search_finds(dtype, width):
    levels = torch.randn(50, width, generator=torch.Generator().manual_seed(0)).sub(0.5).to(dtype)
    levels[:, 0], levels[3] = -0.0, -1.0
    wanted = levels.gt(0).nonzero()
    torch.testing.assert_close(torch.stack(mlp.positive(levels), dim=1), wanted)


@pytest.mark.parametrize("wide", [64, 576, 4096, 4472, 6400, 8192, 16_384])
def test_widths_are_possible_and_cost_the_budget_at_every_width_of_a_reader(wide):
    narrow = wide // 8
    full, rest, rank = mlp.hidden_widths(wide, narrow, 10**9)
    assert min(full, rest, rank) > 0
    cost = full * (narrow + wide + 1) + rest * (narrow + rank + 1) + rank * wide
    assert cost == pytest.approx(mlp.PARAMETERS, rel=0.01)
