"""What the benchmarks share: the packaged reader, 10,000 examples (`DATA=<folder>` for SQuAD's), and the record they leave.

Each benchmark measures us and a named peer in one process, in turns, so that a busy machine slows both. What it found is
kept in pytest-benchmark's `extra_info`; `runs/benchmarks.sh` turns that into files under `results/benchmarks/`.
"""

import gc
import os
import time
from pathlib import Path
from statistics import median

import pytest
import torch

from latentwire.data import shuffled
from latentwire.data.facts import Facts
from latentwire.data.squad import Squad
from latentwire.reader.load import load_reader
from latentwire.runs import provenance

NUM_EXAMPLES = 10_000
READER = "smollm2-135m"
SEED = 0


def pytest_collection_finish() -> None:
    """Leave what the libraries made out of garbage collections, which would fall to whoever is measured just then."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def reader():
    """SmolLM2-135M in fp32: the peers get exact embeddings."""
    return load_reader(READER, dtype="float32")


@pytest.fixture(scope="session")
def examples():
    """10,000 examples: generated facts, or the SQuAD files in `DATA`."""
    if "DATA" not in os.environ:
        return Facts().examples("train", SEED, NUM_EXAMPLES)
    files = [Path(os.environ["DATA"]) / f"squadshifts_{part}.json" for part in ("wiki", "reddit")]
    found = [example for file in files for example in Squad(file).examples("all", SEED, None)]
    return shuffled(found, SEED, NUM_EXAMPLES, "DATA")


@pytest.fixture(scope="session")
def data_name():
    return "squadshifts_wiki + squadshifts_reddit" if "DATA" in os.environ else "facts"


def seconds(work):
    """Seconds that a call takes, and its result."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def spread(name, times):
    """A row's timing fields."""
    return {f"{name}_seconds": median(times), f"{name}_seconds_min": min(times), f"{name}_seconds_max": max(times)}


def record(benchmark, result, meta, rows, train=None):
    """Leave the blocks of `results/benchmarks/<result>.json` with the benchmark."""
    run = {**provenance(), "seed": SEED, "threads": torch.get_num_threads()}
    blocks = {"run": run, "train": train or {}, "meta": {"reader": READER, **meta}, "rows": rows}
    benchmark.extra_info.update(result=result, blocks=blocks)
