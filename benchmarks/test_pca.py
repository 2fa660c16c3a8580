"""Exact PCA from token counts against scikit-learn's PCA on the embedded tokens of the same 10,000 contexts."""

import ctypes
import gc
import tempfile

import numpy as np
import scipy.linalg
import sklearn
import torch
from sklearn.decomposition import PCA

from conftest import NUM_EXAMPLES, SEED, record, seconds, spread
from latentwire.corpus import Corpus
from latentwire.methods.compressors import fit_basis, moments
from latentwire.peak import peak_memory, reset_peak_memory

ROUNDS = 3
FLAT_ROUNDS = 9
COMPRESSION = 8
MILLION = 1_000_000
ROWS = 65_536


def embedded(reader, stream):
    """Every token of the stream embedded, `[N, D]` fp32, in memory."""
    return reader.embed(torch.from_numpy(stream)).numpy()


def embedded_fp64(reader, stream, place):
    """The same in fp64, in a file that the system may page out."""
    out = np.memmap(place, dtype=np.float64, mode="w+", shape=(len(stream), reader.width))
    for start in range(0, len(stream), ROWS):
        out[start : start + ROWS] = reader.embed(torch.from_numpy(stream[start : start + ROWS])).numpy()
    return out


def extra_bytes(work):
    """Peak resident bytes of a call above what was resident before it, freed pages handed back first."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    reset_peak_memory()
    before = peak_memory()
    work()
    return peak_memory() - before


def counts_of_examples(stream, lengths, num_examples):
    """Counts of a larger corpus: `num_examples` contexts drawn evenly from the ones at hand."""
    drawn = np.random.default_rng(SEED).multinomial(num_examples, np.full(len(lengths), 1 / len(lengths)))
    return np.bincount(stream, weights=np.repeat(drawn, lengths), minlength=0).astype(np.int64)


def test_pca_from_counts_against_scikit_learn(benchmark, reader, examples, data_name):
    corpus = Corpus(reader, examples, "context", SEED)
    ids = [prompt.slot.ids for prompt in corpus.prompts]
    lengths = np.array([len(row) for row in ids])
    stream = np.concatenate([np.array(row, dtype=np.int64) for row in ids])
    width = reader.width // COMPRESSION
    times = {"ours": [], "peer": []}
    models = {}

    def ours():
        counts = np.bincount(stream, minlength=reader.vocab_size)
        return fit_basis("pca", reader, counts, width, SEED)

    def peer(embed):
        return PCA(n_components=width, svd_solver="covariance_eigh").fit(embed())

    def turn():
        took, models["peer"] = seconds(lambda: peer(lambda: embedded(reader, stream)))
        times["peer"].append(took)

    def timed_ours():
        took, basis = seconds(ours)
        times["ours"].append(took)
        return basis

    timed_ours()
    times["ours"].clear()
    basis = benchmark.pedantic(timed_ours, setup=turn, rounds=ROUNDS)
    with tempfile.NamedTemporaryFile() as place:
        models["exact"] = peer(lambda: embedded_fp64(reader, stream, place.name))

    own = basis.variances.double().numpy()
    row = {
        "comparison": "exact PCA from token ids",
        "num_examples": NUM_EXAMPLES,
        "num_tokens": len(stream),
        "distinct_tokens": len(np.unique(stream)),
        "width": reader.width,
        "code_width": width,
        **spread("ours", times["ours"]),
        **spread("peer", times["peer"]),
        "times_faster": float(np.median(np.array(times["peer"]) / np.array(times["ours"]))),
        "ours_extra_bytes": extra_bytes(ours),
        "peer_matrix_bytes": len(stream) * reader.width * 4,
    }
    for name, dtype in (("peer", "fp32"), ("exact", "fp64")):
        model = models[name]
        theirs = model.explained_variance_.astype(np.float64) * (len(stream) - 1) / len(stream)
        angles = scipy.linalg.subspace_angles(basis.components.double().numpy(), model.components_.T.astype(np.float64))
        row[f"eigenvalue_error_{dtype}_peer"] = float(np.abs(own / theirs - 1).max())
        row[f"subspace_angle_{dtype}_peer_radians"] = float(angles.max())
    exact = models["exact"].explained_variance_
    row["eigenvalue_error_of_fp32_peer_itself"] = float(np.abs(models["peer"].explained_variance_ / exact - 1).max())

    small = np.bincount(stream, minlength=reader.vocab_size)
    million = counts_of_examples(stream, lengths, MILLION)
    million = np.pad(million, (0, reader.vocab_size - len(million)))
    every = small + 1
    flat = {"10,000 examples": small, "1,000,000 examples": million, "every vocabulary row": every}
    took = {name: [] for name in flat}
    extra = {name: [] for name in flat}
    for _ in range(FLAT_ROUNDS):
        for name, counts in flat.items():
            took[name].append(seconds(lambda counts=counts: moments(reader, counts))[0])
            extra[name].append(extra_bytes(lambda counts=counts: moments(reader, counts)))
    memory = {name: float(np.median(sizes)) for name, sizes in extra.items()}
    rows = [row]
    for name, counts in flat.items():
        ratios = np.array(took[name]) / np.array(took["10,000 examples"])
        rows.append(
            {
                "comparison": f"moments of {name}",
                "num_tokens": int(counts.sum()),
                "distinct_tokens": int((counts > 0).sum()),
                **spread("ours", took[name]),
                "ours_extra_bytes": memory[name],
                "time_over_10_thousand": float(np.median(ratios)),
                "memory_over_10_thousand": memory[name] / memory["10,000 examples"],
            }
        )
    meta = {
        "what": f"exact PCA of the token embeddings of {NUM_EXAMPLES:,} contexts ({data_name}), counting included",
        "peer": f"scikit-learn {sklearn.__version__} PCA(svd_solver='covariance_eigh'), fp32, embedding included;"
        " fp64 (untimed) for the exactness",
        "million": "contexts drawn evenly, with repetition, from the 10,000 at hand; 'every vocabulary row' adds one of"
        " each token and is the most that any corpus can cost",
        "units": {"seconds": "wall clock, median of interleaved rounds", "bytes": "resident above the start"},
        "rounds": ROUNDS,
        "data": data_name,
    }
    record(benchmark, "pca", meta, rows)
    assert row["times_faster"] >= 20
    assert row["eigenvalue_error_fp64_peer"] <= 1e-5
    assert row["subspace_angle_fp64_peer_radians"] <= 1e-4
    assert rows[2]["time_over_10_thousand"] <= 1.2
    assert rows[2]["memory_over_10_thousand"] <= 1.2
