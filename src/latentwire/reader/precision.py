"""Which dtype a reader computes in when the recipe says `auto`: on a CPU, the one that is measured to be faster."""

import json
import logging
import math
import os
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from latentwire.reader.gguf import cache_dir

log = logging.getLogger("latentwire")
WORTH_IT = 1.2
SHAPE = (4, 128)
RUNS = 3
HOPELESS = 4.0  # times the seconds of float32: as much as that no warm-up costs


def dtype_name(dtype: torch.dtype) -> str:
    """As recipes and files name it, such as "bfloat16"."""
    return str(dtype).removeprefix("torch.")


def choose_dtype(load: Callable[[torch.dtype], Any], fingerprint: str, device: str) -> tuple[torch.dtype, str]:
    """The dtype for `auto`, and why.

    Args:
        load: Loads the model in a dtype; called only where there is something to measure.
        fingerprint: Identity of the weights, under which a measurement is remembered.
        device: Where the model will compute.
    """
    if torch.device(device).type == "cuda":
        if torch.cuda.is_bf16_supported():
            return torch.bfloat16, "auto: this GPU supports bfloat16"
        return torch.float32, "auto: this GPU has no bfloat16"
    if torch.device(device).type != "cpu":
        return torch.float32, f"auto: float32 on {device}"
    seconds, when = _remembered(load, fingerprint)
    ratio = seconds["float32"] / seconds["bfloat16"]
    chosen = torch.bfloat16 if ratio >= WORTH_IT else torch.float32
    measured = f"CPU time {seconds['float32']:.3f} s in float32, {seconds['bfloat16']:.3f} s in bfloat16"
    return chosen, f"auto: bfloat16 is {ratio:.2f} times as fast as float32 here ({measured}, {when}; needs {WORTH_IT})"


@torch.no_grad()
def forward_seconds(model: Any, hopeless: float = math.inf) -> float:
    """Least CPU time of what a `Reader` does with `SHAPE` ids, on one thread, after a warm-up; one pass that takes `hopeless`
    seconds is enough, be it the warm-up.

    Not wall time on all threads: next to other work that varied tenfold between passes, and the choice is kept.
    """
    head = model.get_output_embeddings()
    vocab = int(model.get_input_embeddings().weight.shape[0])
    ids = (torch.arange(SHAPE[0] * SHAPE[1], device=model.device) % vocab).reshape(SHAPE)
    times = []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for _ in range(RUNS + 1):
            begin = time.thread_time()
            head(model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state[:, -1])
            times.append(time.thread_time() - begin)
            if times[-1] >= hopeless:
                return times[-1]
    finally:
        torch.set_num_threads(threads)
    return min(times[1:])


def _remembered(load: Callable[[torch.dtype], Any], fingerprint: str) -> tuple[dict[str, float], str]:
    path = cache_dir() / "dtypes.json"
    key = " | ".join([fingerprint, "CPU seconds of decoder and head on 1 thread", torch.__version__, _processor()])
    known = _read(path)
    if key in known:
        return known[key], "measured before"
    seconds = {"float32": forward_seconds(load(torch.float32))}
    seconds["bfloat16"] = forward_seconds(load(torch.bfloat16), HOPELESS * seconds["float32"])
    try:
        _remember(path, {key: seconds})
    except OSError as error:  # measuring again costs seconds
        log.warning(f"cannot write {path} ({error.strerror}); the measurement is not kept")
    return seconds, "measured now"


def _remember(path: Path, found: dict[str, dict[str, float]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name("dtypes.json.lock")):
        handle, temporary = tempfile.mkstemp(prefix=".dtypes-", dir=path.parent)
        with os.fdopen(handle, "w") as file:
            json.dump(_read(path) | found, file, indent=1)
        Path(temporary).replace(path)


def _read(path: Path) -> dict[str, dict[str, float]]:
    """The measurements so far. A file that cannot be read counts as empty: measuring again costs seconds."""
    try:
        found = json.loads(path.read_text())
        return {
            str(key): {name: float(value[name]) for name in ("float32", "bfloat16")} for key, value in found.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
