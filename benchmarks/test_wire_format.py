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

ROUNDS = 9
VECTORS, WIDTH = 50, 576  # 200 tokens at 4x, as wide as SmolLM2
NUMBERS = (1, 100, 10_000)


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
# The peers get fp16 rows ready-made and check nothing; ours rounds to fp16 itself and checks sum, shape and values.
PEERS = {
    "safetensors": (
        lambda rows: save({"rows": rows}, {"space": SPACE, "tokens": "200"}),
        lambda data: load(data)["rows"],
    ),
    "msgpack": (msgpack_bytes, msgpack_rows),
    "torch.save": (torch_bytes, torch_rows),
}


@pytest.mark.benchmark(group="wire_format")
def test_pack_and_unpack_against_peers_and_a_plain_copy(benchmark):
    rows = []
    made = np.random.default_rng(SEED).normal(size=(100, VECTORS, WIDTH)).astype(np.float32)
    halves = made.astype(np.float16)
    for number in NUMBERS:
        places = [place % len(made) for place in range(number)]
        ours = [pack(Latent(made[place], "fp16", SPACE, 200)) for place in places]
        works = {
            "pack, ours": lambda places=places: [pack(Latent(made[place], "fp16", SPACE, 200)) for place in places],
            "unpack, ours": lambda ours=ours: [unpack(data) for data in ours],
            "unpack, plain copy": lambda ours=ours: [bytes(memoryview(data)) for data in ours],
        }
        for name, (to_bytes, to_rows) in PEERS.items():
            data = [to_bytes(halves[place]) for place in places]
            works[f"pack, {name}"] = lambda places=places, to_bytes=to_bytes: [
                to_bytes(halves[place]) for place in places
            ]
            works[f"unpack, {name}"] = lambda data=data, to_rows=to_rows: [to_rows(one) for one in data]
        times = {name: [] for name in works}
        for turn in range(ROUNDS + 1):
            for name, work in works.items():
                took, _ = seconds(work)
                if turn:
                    times[name].append(took)
        for name, took in times.items():
            act = name.split(",")[0]
            ratio = float(np.median(np.array(took) / np.array(times[f"{act}, ours"])))
            row = {
                "comparison": f"{name}, {number:,} latents",
                "latents": number,
                **spread("own", took),
                "times_ours": ratio,
            }
            rows.append({**row, "bytes": sum(map(len, ours))})
    benchmark.pedantic(lambda: unpack(ours[0]), rounds=5)
    meta = {
        "what": f"fp16 latents of {VECTORS} vectors of width {WIDTH}; ours checks checksum, header and every value, the peers nothing",
        "peer": "safetensors, msgpack (raw fp16 bytes), torch.save/torch.load(weights_only=True), bytes(memoryview) as the plain copy",
        "units": {
            "own_seconds": "wall clock of all latents",
            "times_ours": "median of its time over ours, round by round",
        },
        "rounds": ROUNDS,
    }
    record(benchmark, "wire_format", meta, rows)
    for row in rows:
        if row["comparison"].startswith("unpack, plain copy"):
            assert row["times_ours"] >= 0.8
