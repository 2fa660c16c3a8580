"""What this machine can do: device, dtypes and their measured speed, memory, packages. For `latentwire doctor`."""

import shutil
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil
import torch

from latentwire.runs import PACKAGES, hardware

SIDE = 1024
ATTEMPTS = 5
PATIENCE_SECONDS = 1.0


def examine() -> dict[str, str | float]:
    """Facts by name, in plain words and units."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    facts: dict[str, str | float] = {
        "hardware": hardware(),
        "device": device,
        "threads": torch.get_num_threads(),
        "free memory": f"{psutil.virtual_memory().available / 2**30:.1f} GiB",
        "free disk": f"{shutil.disk_usage(Path.cwd()).free / 2**30:.1f} GiB",
    }
    for dtype in (torch.float32, torch.bfloat16):
        facts[f"{str(dtype).removeprefix('torch.')} matrix product"] = f"{gflops(dtype, device):,.1f} GFLOP/s"
    return facts | {f"package {name}": _version(name) for name in PACKAGES}


def gflops(dtype: torch.dtype, device: str) -> float:
    """Measured speed of a square matrix product: the best of five after a warm-up, of fewer where they take long."""
    left = torch.randn(SIDE, SIDE, device=device).to(dtype)
    times: list[float] = []
    while len(times) <= ATTEMPTS and sum(times) < PATIENCE_SECONDS:
        begin = time.perf_counter()
        product = left @ left
        float(product[0, 0])
        times.append(time.perf_counter() - begin)
    return 2 * SIDE**3 / min(times[1:] or times) / 1e9


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
