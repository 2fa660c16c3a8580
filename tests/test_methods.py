"""Compressors, decoders and text baselines against brute force."""

from collections import Counter

import numpy as np
import pytest
import torch
from sklearn import decomposition

from latentwire.codecs import transmit
from latentwire.corpus import Corpus
from latentwire.data import DATASETS
from latentwire.errors import MethodError, RegistryError
from latentwire.methods import METHODS, decoder_parameters
from latentwire.methods.compressors import Basis, fit_basis, moments
from latentwire.methods.decoders import DECODERS, nearest_rows
from latentwire.methods.mlp import hidden_widths
from latentwire.methods.per_token import PerToken
from latentwire.methods.pooled import pooled
from latentwire.methods.text import SEPARATOR, NoContext, Truncated, text_latent
from tiny import FAMILIES, tiny_reader

EXAMPLES = DATASETS["facts"]().examples("train", 0, 6)


@pytest.fixture(params=FAMILIES, scope="module")
def reader(request):
    return tiny_reader(request.param)


@pytest.fixture(scope="module")
def corpus(reader):
    return Corpus(reader, EXAMPLES, "prompt", 0)


def prepared(reader, corpus, **fields):
    method = PerToken(**{"compression": 4, **fields})
    method.prepare(reader, corpus.counts)
    return method


def test_moments_from_counts_equal_those_of_every_embedded_token(reader, corpus):
    ids = np.repeat(np.arange(reader.vocab_size), corpus.counts)
    every = reader.embed(torch.from_numpy(ids)).double().numpy()
    mean, covariance = moments(reader, corpus.counts)
    np.testing.assert_allclose(mean.numpy(), every.mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(covariance.numpy(), np.cov(every.T, bias=True), atol=1e-10)


def test_pca_from_counts_equals_sklearn_on_every_embedded_token(reader, corpus):
    ids = np.repeat(np.arange(reader.vocab_size), corpus.counts)
    every = reader.embed(torch.from_numpy(ids)).double().numpy()
    theirs = decomposition.PCA(8, svd_solver="full").fit(every)
    ours = fit_basis("pca", reader, corpus.counts, 8, 0)
    biased = theirs.explained_variance_ * (len(every) - 1) / len(every)
    np.testing.assert_allclose(ours.variances.numpy(), biased, rtol=1e-5)
    overlap = np.linalg.svd(ours.components.double().numpy().T @ theirs.components_.T, compute_uv=False)
    assert np.arccos(np.clip(overlap.min(), -1, 1)) < 1e-3
    assert ours.total_variance == pytest.approx(every.var(axis=0).sum(), rel=1e-6)


def test_random_projection_is_orthonormal_and_fixed_by_its_seed(reader, corpus):
    one, same, other = (fit_basis("random", reader, corpus.counts, 8, seed).components for seed in (1, 1, 2))
    torch.testing.assert_close(one.T @ one, torch.eye(8), atol=1e-5, rtol=0)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_code_as_wide_as_the_embedding_is_refused(reader, corpus):
    with pytest.raises(MethodError, match="d = 64"):
        prepared(reader, corpus, compression=1)


def test_corpus_with_fewer_distinct_tokens_than_the_code_is_wide_is_refused(reader):
    counts = np.zeros(reader.vocab_size, dtype=np.int64)
    counts[:16] = 5
    with pytest.raises(MethodError, match="distinct tokens"):
        fit_basis("pca", reader, counts, 16, 0)


def test_counts_of_another_vocabulary_are_refused(reader):
    with pytest.raises(MethodError, match="token counts"):
        moments(reader, np.ones(3, dtype=np.int64))


def test_mlp_starts_exactly_at_the_pca_inverse(reader, corpus):
    ids = torch.arange(reader.vocab_size)
    linear, mlp = (prepared(reader, corpus, decoder=name).restore(ids, reader) for name in ("linear", "mlp"))
    assert torch.equal(linear, mlp)


def test_linear_decoder_is_the_orthogonal_projection(reader, corpus):
    method = prepared(reader, corpus, decoder="linear", wire_dtype="fp16")
    basis = fit_basis("pca", reader, corpus.counts, 16, 0)
    ids = torch.arange(50)
    embeds = reader.embed(ids).float()
    expected = basis.mean + (embeds - basis.mean) @ basis.components @ basis.components.T
    torch.testing.assert_close(method.restore(ids, reader), expected, atol=float(expected.abs().max()) * 2e-3, rtol=0)


def test_mlp_at_llama_width_has_about_twenty_million_parameters():
    with torch.device("meta"):
        basis = Basis(torch.empty(4096), torch.empty(4096, 512), torch.ones(512), 1.0)
        decoder = DECODERS["mlp"](basis, torch.empty(128_256, 512), None)
    count = sum(parameter.numel() for parameter in decoder.parameters())
    full, rest, rank = hidden_widths(4096, 512, 128_256)
    assert (full, rest, rank) == (2_169, 3_777, 1_024)
    assert count == full * (512 + 4096 + 1) + rest * (512 + rank + 1) + rank * 4096 + 4096
    assert 19_000_000 <= count <= 21_000_000


def test_decoders_without_parameters_count_none(reader, corpus):
    counts = {name: decoder_parameters(prepared(reader, corpus, decoder=name)) for name in DECODERS}
    assert {name for name, count in counts.items() if count == 0} == {"linear", "codebook_hard", "codebook_soft"}


@pytest.mark.parametrize("wire_dtype", ["int8", "fp16"])
def test_hard_codebook_restores_every_token_of_the_vocabulary_exactly(reader, corpus, wire_dtype):
    method = prepared(reader, corpus, decoder="codebook_hard", wire_dtype=wire_dtype)
    ids = torch.arange(reader.vocab_size)
    assert torch.equal(method.restore(ids, reader), reader.embed(ids).float())


def test_soft_codebook_equals_a_plain_softmax_over_the_table(reader, corpus, monkeypatch):
    monkeypatch.setattr("latentwire.reader.TABLE_BYTES", 100 * 4 * reader.width)
    method = prepared(reader, corpus, decoder="codebook_soft")
    ids = torch.arange(0, reader.vocab_size, 7)
    decoder = method.module()
    distances = torch.cdist(method._sent[ids].double(), method._sent.double()).square()
    weights = torch.softmax(-decoder._sharpness * distances, dim=1)
    expected = weights @ reader.embed(torch.arange(reader.vocab_size)).double()
    torch.testing.assert_close(method.restore(ids, reader).double(), expected, atol=1e-3, rtol=1e-3)


def test_nearest_rows_equal_brute_force_in_small_chunks(monkeypatch):
    monkeypatch.setattr("latentwire.methods.decoders.SEARCH_BYTES", 16 * 16_384 * 7)
    draw = torch.Generator().manual_seed(0)
    table, queries = torch.randn(20_000, 6, generator=draw), torch.randn(50, 6, generator=draw)
    expected = torch.cdist(queries.double(), table.double()).argmin(dim=1)
    assert torch.equal(nearest_rows(queries, table), expected)
    assert torch.equal(nearest_rows(table[100:140], table), torch.arange(100, 140))


def test_wire_rounding_happens_before_decoding(reader, corpus):
    method = prepared(reader, corpus, decoder="linear")
    slot = reader.prompt(EXAMPLES[0], "context").slot
    latent = method.encode([slot], reader)[0]
    received, _ = transmit(latent)
    assert not np.array_equal(received.payload, latent.payload)
    prefix = method.prefix([received], reader).rows()[0]
    torch.testing.assert_close(prefix, method.restore(torch.tensor(slot.ids), reader), atol=1e-4, rtol=1e-4)


def test_unprepared_method_says_what_to_do(reader):
    with pytest.raises(MethodError, match="prepare or load"):
        PerToken().module()


def test_unknown_decoder_names_the_nearest(reader, corpus):
    with pytest.raises(RegistryError, match="did you mean 'codebook_hard'"):
        prepared(reader, corpus, decoder="codebook_herd")


@pytest.mark.parametrize("unit", ["bytes", "positions"])
@pytest.mark.parametrize("scope", ["prompt", "context"])
def test_truncation_fills_its_budget_and_not_a_word_more(reader, unit, scope):
    slot = reader.prompt(EXAMPLES[0], scope).slot
    size = {"bytes": lambda s: text_latent(s).payload.size, "positions": lambda s: len(s.ids)}[unit]
    budget = int(0.8 * size(slot))
    method = Truncated(unit, budget / len(slot.ids))
    latent = method.encode([slot], reader)[0]
    kept = [piece.decode() for piece in latent.payload.tobytes().split(SEPARATOR)]
    cut = reader.prompter.slot(*kept)
    assert slot.context.startswith(cut.context)
    assert size(cut) <= budget
    words = slot.context.split(" ")
    longer = " ".join(words[: len(cut.context.split(" ")) + 1])
    pieces = list(slot.pieces)
    pieces[len(pieces) // 2] = longer
    assert size(reader.prompter.slot(*pieces)) > budget
    assert method.cut([slot], [latent]) == [True]


def test_truncation_with_enough_budget_cuts_nothing(reader):
    slot = reader.prompt(EXAMPLES[0], "prompt").slot
    method = Truncated("positions", 1.0)
    latents = method.encode([slot], reader)
    assert method.cut([slot], latents) == [False]
    assert latents[0].payload.tobytes() == text_latent(slot).payload.tobytes()


def test_no_context_keeps_the_question_and_drops_the_context(reader):
    slot = reader.prompt(EXAMPLES[0], "prompt").slot
    text = NoContext().encode([slot], reader)[0].payload.tobytes().replace(SEPARATOR, b"\n").decode()
    assert EXAMPLES[0].question in text
    assert EXAMPLES[0].context not in text


def test_per_token_objective_on_a_method_without_tokens_says_so(reader):
    with pytest.raises(MethodError, match="objectives on examples"):
        NoContext().restore(torch.tensor([1]), reader)


@pytest.mark.parametrize("name", ["random_tokens", "pooled"])
@pytest.mark.parametrize("compression", [1, 3, 4, 16])
def test_shorter_sequences_have_the_positions_that_were_asked_for(name, compression):
    reader = tiny_reader("llama")
    slots = [reader.prompt(example, "context").slot for example in EXAMPLES]
    method = METHODS[name](compression=compression)
    latents = method.encode(slots, reader)
    assert [len(latent.payload) for latent in latents] == [-(-len(slot.ids) // compression) for slot in slots]
    if compression == 1:
        for row, slot in zip(method.prefix(latents, reader).rows(), slots, strict=True):
            torch.testing.assert_close(row, reader.embed(torch.tensor(slot.ids)), atol=1e-3, rtol=1e-3)


def test_random_tokens_keep_their_order_and_are_drawn_evenly():
    reader = tiny_reader("llama")
    slot = reader.prompt(EXAMPLES[0], "context").slot
    places = [slot.ids.index(token) for token in slot.ids]  # first occurrence, to compare orders of distinct tokens
    distinct = [token for token, place in zip(slot.ids, places, strict=True) if slot.ids.count(token) == 1]
    chosen = Counter()
    for seed in range(300):
        (latent,) = METHODS["random_tokens"](compression=4, seed=seed).encode([slot], reader)
        ids = latent.payload[:, 0].tolist()
        kept = [token for token in ids if token in distinct]
        assert kept == sorted(kept, key=slot.ids.index)
        chosen.update(kept)
    shares = np.array([chosen[token] / 300 for token in distinct])
    assert abs(shares.mean() - 0.25) < 0.02
    assert shares.std() < 0.06


def test_pooled_means_have_the_magnitude_of_what_they_stand_for():
    reader = tiny_reader("llama")
    embeds = reader.embed(torch.arange(20)).float()
    (*whole, rest) = pooled(embeds.split(6), embeds)
    for mean, block in zip([*whole, rest], embeds.split(6), strict=True):
        assert float(mean.square().mean()) == pytest.approx(float(block.square().mean()), rel=1e-5)
        assert float(torch.cosine_similarity(mean, block.mean(dim=0), dim=0)) == pytest.approx(1.0)
