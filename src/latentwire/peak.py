"""How much memory was held at the peak, as the system measures it."""

import contextlib
import ctypes
import gc
from pathlib import Path

import psutil
import torch


def reset_peak_memory() -> None:
    """Start a new measurement of peak memory (CUDA: allocated on the device; Linux: resident set, freed pages handed back)."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    elif Path("/proc/self/clear_refs").exists():
        with contextlib.suppress(AttributeError):  # musl has no malloc_trim
            ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory() -> float | None:
    """Bytes at the peak since the last reset; the current resident set where the system keeps no resettable peak."""
    if torch.cuda.is_available():
        return float(torch.cuda.max_memory_allocated())
    status = Path("/proc/self/status")
    if not status.exists():
        return float(psutil.Process().memory_info().rss)
    lines = status.read_text().splitlines()
    peaks = [float(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")]
    return peaks[0] if peaks else None
