"""Decoder training on distinct, weighted tokens against a plain loop that embeds every sequence: tokens a second."""

import copy

import numpy as np
import torch

from conftest import NUM_EXAMPLES, SEED, record, seconds, spread
from latentwire.config import ObjectiveSpec, TrainSpec
from latentwire.corpus import Corpus
from latentwire.methods.per_token import PerToken
from latentwire.train import fit

ROUNDS = 3
STEPS = 3
HEADLINE = (16_384, 0.0, "fp32")
SETTINGS = (  # tokens a step, share of the weight that goes to the whole vocabulary, precision
    (2048, 0.1, "fp32"),
    (4096, 0.1, "fp32"),
    (2048, 0.0, "fp32"),
    (4096, 0.0, "fp32"),
    (4096, 0.0, "bf16"),
    HEADLINE,
)


def plain_loop(reader, method, corpus, spec):
    """Embed every token of each batch, compress and decode all of them, squared error, AdamW. Nothing is shared."""
    decoder = copy.deepcopy(method.module())
    basis = method.tensors()
    mean, components = basis["basis.mean"], basis["basis.components"]
    optimizer = torch.optim.AdamW(
        [p for p in decoder.parameters() if p.requires_grad], lr=spec.lr, betas=(0.9, 0.98), weight_decay=0.0
    )
    order = np.random.default_rng(SEED).permutation(len(corpus.prompts))
    stream = np.concatenate([np.array(corpus.prompts[index].slot.ids) for index in order[: sequences(corpus, spec)]])
    for step in range(spec.steps):
        ids = torch.from_numpy(stream[step * spec.batch_tokens : (step + 1) * spec.batch_tokens])
        assert len(ids) == spec.batch_tokens
        embeds = reader.embed(ids).float()
        codes = (embeds - mean) @ components
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=spec.precision == "bf16"):
            restored = decoder(codes)
        loss = (restored - embeds).square().sum(dim=1).mean() / method.total_variance
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(decoder.parameters(), spec.clip)
        optimizer.step()
    return decoder


def sequences(corpus, spec):
    """As many sequences as surely hold the tokens of all steps."""
    shortest = min(len(prompt.slot.ids) for prompt in corpus.prompts)
    return 1 + spec.steps * spec.batch_tokens // shortest


def test_training_on_distinct_tokens_against_a_plain_loop(benchmark, reader, examples, data_name):
    corpus = Corpus(reader, examples, "prompt", SEED)
    method = PerToken(compressor="pca", decoder="mlp", compression=8, seed=SEED)
    method.prepare(reader, corpus.counts)
    objective = ObjectiveSpec(weights={"reconstruct": 1.0})
    rows = []
    for batch_tokens, share, precision in SETTINGS:
        spec = TrainSpec(steps=STEPS, batch_tokens=batch_tokens, vocabulary_share=share, precision=precision, seed=SEED)
        rows.append(compare(benchmark, reader, method, corpus, objective, spec))
    meta = {
        "what": f"MLP decoder trained with `reconstruct` on {NUM_EXAMPLES:,} prompts ({data_name}): corpus tokens a second",
        "peer": "plain PyTorch loop in the same process: embeds, compresses and decodes every token of the same number of"
        " tokens a step, same MLP, AdamW, clipping and dtype; no wire rounding and no vocabulary mixed in (ours mixes as many rows of it as there are distinct tokens"
        " where its share is not 0)",
        "units": {"tokens_per_second": "corpus tokens", "seconds": f"wall clock of {STEPS} steps, interleaved rounds"},
        "rounds": ROUNDS,
        "data": data_name,
    }
    train = TrainSpec(steps=STEPS, seed=SEED).model_dump(
        mode="json", exclude={"batch_tokens", "vocabulary_share", "precision"}
    )
    record(benchmark, "decoder_training", meta, rows, train)
    assert rows[-1]["times_faster"] >= 5


def compare(benchmark, reader, method, corpus, objective, spec):
    """One row: our loop and the plain one in turns."""
    times = {"ours": [], "peer": []}

    def ours():
        trained = copy.copy(method)
        trained._decoder = copy.deepcopy(method.module())
        took, _ = seconds(lambda: fit(trained, reader, corpus, objective, spec))
        times["ours"].append(took)

    def peer():
        took, _ = seconds(lambda: plain_loop(reader, method, corpus, spec))
        times["peer"].append(took)

    ours()
    peer()
    times["ours"].clear()
    times["peer"].clear()
    for _ in range(ROUNDS - 1):
        peer()
        ours()
    if (spec.batch_tokens, spec.vocabulary_share, spec.precision) == HEADLINE:
        benchmark.pedantic(ours, setup=peer, rounds=1)
    else:
        peer()
        ours()
    tokens = spec.steps * spec.batch_tokens
    distinct = np.mean([len(corpus.tokens(step, spec.batch_tokens, spec.vocabulary_share)[0]) for step in range(STEPS)])
    own, theirs = np.median(times["ours"]), np.median(times["peer"])
    return {
        "comparison": f"{spec.batch_tokens:,} tokens a step, vocabulary {spec.vocabulary_share:g}, {spec.precision}",
        "batch_tokens": spec.batch_tokens,
        "vocabulary_share": spec.vocabulary_share,
        "precision": spec.precision,
        "decoded_tokens_per_step": float(distinct),
        **spread("ours", times["ours"]),
        **spread("peer", times["peer"]),
        "ours_tokens_per_second": tokens / own,
        "peer_tokens_per_second": tokens / theirs,
        "times_faster": float(np.median(np.array(times["peer"]) / np.array(times["ours"]))),
    }
