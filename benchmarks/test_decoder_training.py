"""Decoder training on distinct, weighted tokens against a plain loop that embeds every sequence: tokens a second."""

import copy

import numpy as np
import torch

from conftest import NUM_EXAMPLES, READER, SEED, record, seconds, spread
from latentwire.config import ObjectiveSpec, TrainSpec
from latentwire.corpus import ROWS_PER_TOKEN, Corpus
from latentwire.methods.per_token import PerToken
from latentwire.reader.load import load_reader
from latentwire.train import CLIP, Hooks, fit, start

ROUNDS = 3
STEPS = 3
HEADLINE = (8192, 0.6)
SETTINGS = (HEADLINE, (8192, 0.0), (2048, 0.0), (16_384, 0.6))  # tokens a step, weight of the whole vocabulary
PEERS = {  # precision, fused AdamW
    "plain": ("fp32", False),
    "tuned": ("auto", True),
}


def plain_loop(reader, method, corpus, spec, fused):
    """Embed every token of each batch, compress and decode all of them, squared error, AdamW. Nothing is shared.

    Where a share of the weight is on the whole vocabulary, it draws as many of its rows as ours, by the same odds.
    """
    decoder = copy.deepcopy(method.module())
    basis = method.tensors()
    mean, components = basis["basis.mean"], basis["basis.components"]
    optimizer = torch.optim.AdamW(
        [p for p in decoder.parameters() if p.requires_grad],
        lr=spec.lr,
        betas=(0.9, 0.98),
        weight_decay=0.0,
        fused=fused,
    )
    order = np.random.default_rng(SEED).permutation(len(corpus.prompts))
    stream = np.concatenate([np.array(corpus.prompts[index].slot.ids) for index in order[: sequences(corpus, spec)]])
    draw, share = np.random.default_rng(SEED), spec.vocabulary_share
    for step in range(spec.steps):
        ids = stream[step * spec.batch_tokens : (step + 1) * spec.batch_tokens]
        assert len(ids) == spec.batch_tokens
        weights = np.full(len(ids), (1 - share) / len(ids))
        if share:
            extra = draw.choice(reader.vocab_size, size=ROWS_PER_TOKEN * len(np.unique(ids)), p=corpus.odds)
            ids, weights = np.concatenate([ids, extra]), np.append(weights, np.full(len(extra), share / len(extra)))
        embeds = reader.embed(torch.from_numpy(ids)).float()
        codes = (embeds - mean) @ components
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=spec.precision == "bf16"):
            restored = decoder(codes)
        errors = (restored - embeds).square().sum(dim=1)
        loss = (torch.from_numpy(weights).float() * errors).sum() / method.total_variance
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(decoder.parameters(), CLIP)
        optimizer.step()
    return decoder


def sequences(corpus, spec):
    """As many sequences as surely hold the tokens of all steps."""
    shortest = min(len(prompt.slot.ids) for prompt in corpus.prompts)
    return 1 + spec.steps * spec.batch_tokens // shortest


def test_training_on_distinct_tokens_against_a_plain_loop(benchmark, reader, examples, data_name):
    corpus = Corpus(reader, examples, "prompt", SEED)
    method = PerToken(compressor="pca", decoder="mlp", compression=8, seed=SEED)
    start(method, [corpus], TrainSpec(vocabulary_share=HEADLINE[1], seed=SEED), Hooks())
    fastest = "bf16" if load_reader(READER).dtype == torch.bfloat16 else "fp32"
    rows = [
        compare(benchmark, reader, method, corpus, fastest, peer, *setting) for setting in SETTINGS for peer in PEERS
    ]
    meta = {
        "what": f"MLP decoder trained with `reconstruct` on {NUM_EXAMPLES:,} prompts ({data_name}): corpus tokens a second;"
        f" ours in the precision that `auto` measures as the faster one here, {fastest}",
        "peer": "PyTorch loop in the same process that embeds, compresses and decodes every token of the same batches, and as many"
        " rows drawn from the vocabulary; same MLP, clipping and AdamW; no wire rounding. `plain`: fp32 and AdamW as PyTorch"
        " gives them. `tuned`: our precision and fused AdamW, so that only the distinct tokens are left as a difference",
        "units": {"tokens_per_second": "corpus tokens", "seconds": f"wall clock of {STEPS} steps, interleaved rounds"},
        "headline": "the batch and vocabulary share of recipes/stage1.yaml beside the plain loop",
        "rounds": ROUNDS,
        "data": data_name,
    }
    train = TrainSpec(steps=STEPS, seed=SEED).model_dump(
        mode="json", exclude={"batch_tokens", "vocabulary_share", "precision"}
    )
    record(benchmark, "decoder_training", meta, rows, train)
    assert rows[0]["times_faster"] >= 5


def compare(benchmark, reader, method, corpus, fastest, peer, batch_tokens, share):
    """One row: our loop and the plain one in turns."""
    spec = TrainSpec(steps=STEPS, batch_tokens=batch_tokens, vocabulary_share=share, precision=fastest, seed=SEED)
    precision, fused = PEERS[peer]
    peers = spec.model_copy(update={"precision": fastest if precision == "auto" else precision})
    times = {"ours": [], "peer": []}

    def ours():
        trained = copy.copy(method)
        trained._decoder = copy.deepcopy(method.module())
        took, _ = seconds(lambda: fit(trained, [corpus], ObjectiveSpec(weights={"reconstruct": 1.0}), spec))
        times["ours"].append(took)

    def theirs():
        took, _ = seconds(lambda: plain_loop(reader, method, corpus, peers, fused))
        times["peer"].append(took)

    ours()
    theirs()
    times["ours"].clear()
    times["peer"].clear()
    for _ in range(ROUNDS - 1):
        theirs()
        ours()
    if (batch_tokens, share, peer) == (*HEADLINE, "plain"):
        benchmark.pedantic(ours, setup=theirs, rounds=1)
    else:
        theirs()
        ours()
    tokens = spec.steps * spec.batch_tokens
    distinct = np.mean([len(corpus.tokens(step, batch_tokens, share)[0]) for step in range(STEPS)])
    return {
        "comparison": f"{batch_tokens:,} tokens a step, vocabulary {share:g}, peer {peer}",
        "batch_tokens": batch_tokens,
        "vocabulary_share": share,
        "precision": fastest,
        "peer_precision": peers.precision,
        "decoded_tokens_per_step": float(distinct),
        **spread("ours", times["ours"]),
        **spread("peer", times["peer"]),
        "ours_tokens_per_second": tokens / np.median(times["ours"]),
        "peer_tokens_per_second": tokens / np.median(times["peer"]),
        "times_faster": float(np.median(np.array(times["peer"]) / np.array(times["ours"]))),
    }
