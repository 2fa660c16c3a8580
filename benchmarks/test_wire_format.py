"""Packing and unpacking latents against safetensors, msgpack and torch.save in the same process, and against a plain copy."""

import io

import msgpack
import numpy as np
import pytest
import torch
from safetensors.numpy import load, save

from conftest import SEED, record, seconds, spread
from latentwire.latent import Latent
from latentwire.wire_format import pack, unpack

ROUNDS = 5
WIDTH = 576  # as wide as SmolLM2
SIZES = {200: (1, 100, 10_000), 1500: (1, 100, 1_000)}  # tokens of a context at 4x, and how many latents at a time
LEAST = 100  # a round times so many at least: fewer are done again and again
TARGET = 0.8  # of a plain copy's speed


def torch_bytes(rows):
    out = io.BytesIO()
    torch.save({"rows": torch.from_numpy(rows), "space": SPACE, "tokens": 200}, out)
    return out.getvalue()


def torch_rows(data):
    return torch.load(io.BytesIO(data), weights_only=True)["rows"]


def msgpack_bytes(rows):
    return msgpack.packb({"rows": rows.tobytes(), "shape": rows.shape, "space": SPACE, "tokens": 200})


def msgpack_rows(data):
    found = msgpack.unpackb(data)
    return np.frombuffer(found["rows"], np.float16).reshape(found["shape"])


SPACE = "wire-0011223344556677"
# All round fp32 rows to fp16. The peers check nothing; ours checks sum, shape and values.
PEERS = {
    "safetensors": (
        lambda rows: save({"rows": rows.astype(np.float16)}, {"space": SPACE, "tokens": "200"}),
        lambda data: load(data)["rows"],
    ),
    "msgpack": (lambda rows: msgpack_bytes(rows.astype(np.float16)), msgpack_rows),
    "torch.save": (lambda rows: torch_bytes(rows.astype(np.float16)), torch_rows),
}


@pytest.mark.benchmark(group="wire_format")
def test_pack_and_unpack_against_peers_and_a_plain_copy(benchmark):
    rows = []
    for tokens, numbers in SIZES.items():
        made = np.random.default_rng(SEED).standard_normal((max(numbers), tokens // 4, WIDTH), np.float32)
        packed = {"ours": [pack(Latent(one, "fp16", SPACE, tokens)) for one in made]}
        packed |= {name: [to_bytes(one) for one in made] for name, (to_bytes, _) in PEERS.items()}
        for number in numbers:
            rows += measured(made, packed, number, tokens)
    benchmark.pedantic(lambda: unpack(packed["ours"][0]), rounds=5)
    meta = {
        "what": f"fp16 latents of {' and '.join(map(str, SIZES))} tokens at 4x, width {WIDTH}, each another one, every result kept; ours"
        " checks checksum, header and every value, the peers nothing",
        "peer": "safetensors, msgpack (raw fp16 bytes), torch.save/torch.load(weights_only=True), bytes(memoryview) as the plain copy",
        "units": {
            "own_seconds": f"wall clock of all latents; for one, of {LEAST} turns divided by their number",
            "times_ours": "median of its time over ours, round by round: ours is as many times as fast",
        },
        "rounds": ROUNDS,
        "target": f"fp16 unpack at {TARGET} of a plain copy's speed",
    }
    record(benchmark, "wire_format", meta, rows)
    assert all(row.get("target_met", True) for row in rows)


def measured(made, packed, number, tokens):
    """A row for each act on so many latents."""
    places = [place % number for place in range(max(number, LEAST))]
    works = {
        "pack, ours": lambda: [pack(Latent(made[place], "fp16", SPACE, tokens)) for place in places],
        "unpack, ours": lambda: [unpack(packed["ours"][place]) for place in places],
        "unpack, plain copy": lambda: [bytes(memoryview(packed["ours"][place])) for place in places],
    }
    for name, (to_bytes, to_rows) in PEERS.items():
        works[f"pack, {name}"] = lambda to_bytes=to_bytes: [to_bytes(made[place]) for place in places]
        works[f"unpack, {name}"] = lambda name=name, to_rows=to_rows: [to_rows(packed[name][place]) for place in places]
    times = {name: [] for name in works}
    for turn in range(ROUNDS + 1):
        for name, work in works.items():
            took, _ = seconds(work)
            if turn:
                times[name].append(took * number / len(places))
    rows = []
    for name, took in times.items():
        ours = np.array(times[f"{name.split(',')[0]}, ours"])
        ratio = float(np.median(np.array(took) / ours))
        row = {"comparison": f"{name}, {number:,} latents of {tokens:,} tokens", "latents": number, "tokens": tokens}
        row |= {**spread("own", took), "times_ours": ratio, "bytes": number * len(packed["ours"][0])}
        rows.append(row | ({"target_met": ratio >= TARGET} if name == "unpack, plain copy" else {}))
    return rows
