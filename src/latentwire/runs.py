"""`Run`: a folder that holds a resolved recipe, provenance, weights, checkpoint, log, rows and predictions.

Files are written beside their place and moved over it, so that a kill or a full disk leaves the old or the new file,
never half of one. One process at a time: the folder is locked while it is open.
"""

import functools
import hashlib
import json
import os
import platform
import subprocess
import zipfile
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import psutil
import torch
import yaml
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from latentwire.atomic import atomic_write, unwritable
from latentwire.config import ReaderSpec, Recipe, dump, make_recipe
from latentwire.errors import RunError

FORMAT = 4  # of weights and checkpoints; what an earlier version wrote is refused
RESULTS = ("rows.jsonl", "predictions.jsonl", "curve.jsonl", "report.html", "report.md")
OWN = (
    "recipe.yaml",
    "provenance.json",
    "weights.safetensors",
    "checkpoint.pt",
    "log.jsonl",
    "ladder.partial.jsonl",
    "ladder.jsonl",
    *RESULTS,
)
PACKAGES = ("latentwire", "numpy", "torch", "transformers", "accelerate", "safetensors")


class Run:
    """An open run folder. Use it as a context manager; leaving it releases the lock.

    Args:
        folder: Where the run lives; made when missing.
        writes: False in all but one of several processes that train together: they read, and write nothing.

    Raises:
        RunError: Another process has the folder open, or it cannot be written.
    """

    def __init__(self, folder: Path, writes: bool = True) -> None:
        self.folder, self.writes = folder, writes
        if not writes:
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(folder / ".lock")
            self._lock.acquire(timeout=0)
        except Timeout:
            raise RunError(
                f"expected {folder} to be free, but another run has it open; wait or choose another name"
            ) from None
        except OSError as error:
            raise RunError(
                f"expected to write in {folder}, got: {error.strerror}; free or choose another place"
            ) from None
        for leftover in folder.glob("*.partial"):
            leftover.unlink()

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, *_: object) -> None:
        if self.writes:
            self._lock.release()

    def has(self, name: str) -> bool:
        """Whether a file of the run exists."""
        return (self.folder / name).exists()

    def clear(self) -> None:
        """Remove the run's own files, those of its tuned rungs, and nothing else."""
        for folder in (self.folder, *self.folder.glob("tuned/*")) if self.writes else ():
            for name in (*OWN, *(path.name for path in folder.glob("stage-*.safetensors"))):
                (folder / name).unlink(missing_ok=True)

    def write(self, name: str, data: bytes) -> None:
        """Replace a file as a whole; `RunError` when the disk is full or the place cannot be written."""
        if self.writes:
            atomic_write(self.folder / name, lambda partial: partial.write_bytes(data))

    def write_lines(self, name: str, records: Iterable[Mapping[str, Any]]) -> None:
        """Replace a JSON-lines file."""
        self.write(name, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode())

    def append(self, name: str, record: Mapping[str, Any]) -> None:
        """Add one line to a JSON-lines file."""
        if not self.writes:
            return
        try:
            with (self.folder / name).open("a", encoding="utf-8") as file:
                file.write(json.dumps(record, ensure_ascii=False) + "\n")
        except OSError as error:
            raise unwritable(self.folder / name, error) from None

    def lines(self, name: str) -> list[dict[str, Any]]:
        """All records of a JSON-lines file, none when it is missing; a half-written last line is left out."""
        path = self.folder / name
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        return [json.loads(line) for line in text.split("\n")[:-1]]  # splitlines would part a line at U+2028

    def start(self, recipe: Recipe, facts: Mapping[str, Any]) -> None:
        """Write the resolved recipe and the provenance."""
        self.write("recipe.yaml", dump(recipe).encode())
        self.write("provenance.json", json.dumps({**provenance(), **facts}, indent=2).encode())

    def recipe(self) -> Recipe:
        """The resolved recipe of a run that was started; `RunError` when there is none."""
        if not self.has("recipe.yaml"):
            raise RunError(f"expected a run in {self.folder}, found no recipe.yaml; train it first")
        return make_recipe(yaml.safe_load((self.folder / "recipe.yaml").read_text(encoding="utf-8")), str(self.folder))

    def facts(self) -> dict[str, Any]:
        """The provenance that `start` wrote; empty where nothing was started."""
        path = self.folder / "provenance.json"
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        return found

    def save_weights(self, tensors: Mapping[str, Tensor], step: int | None = None) -> None:
        """Write the trained method or, with a step, what it was then."""
        self.write(_weights(step), save({name: tensor.contiguous().cpu() for name, tensor in tensors.items()}))

    def stages(self) -> list[int]:
        """Steps of which `save_weights` kept what had been learnt."""
        return sorted(int(path.stem.removeprefix("stage-")) for path in self.folder.glob("stage-*.safetensors"))

    def load_weights(self, step: int | None = None) -> dict[str, Tensor]:
        """The trained method's tensors, or those of a stage; `RunError` when missing or damaged."""
        path = self.folder / _weights(step)
        if not path.exists():
            raise RunError(f"expected trained weights at {path}, found none; finish training first (--resume)")
        try:
            return load_file(path)
        except SafetensorError as error:
            raise RunError(f"expected readable weights at {path}, got: {error}; train again with --force") from None

    def trained(self, identity: str) -> dict[str, Any] | None:
        """What was written down about a training of this identity that came to its end; None where none did."""
        facts = self.facts()
        ended = facts.get("training_identity") == identity and "train_steps" in facts and self.has(_weights(None))
        return facts if ended else None

    def save_checkpoint(self, state: Mapping[str, Any]) -> None:
        """Replace the checkpoint."""
        if self.writes:
            atomic_write(self.folder / "checkpoint.pt", lambda partial: torch.save(dict(state), partial))

    def load_checkpoint(self) -> dict[str, Any] | None:
        """The last checkpoint, or None; `RunError` when it is damaged."""
        path = self.folder / "checkpoint.pt"
        if not path.exists():
            return None
        try:
            if not zipfile.is_zipfile(path):
                raise RuntimeError("no whole archive")
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except (RuntimeError, UnpicklingError) as error:
            reason = str(error).split("\n")[0]
            raise RunError(
                f"expected a readable checkpoint at {path}, got: {reason}; train again with --force"
            ) from None
        return state


def _weights(step: int | None) -> str:
    return "weights.safetensors" if step is None else f"stage-{step}.safetensors"


def training_identity(recipe: Recipe, fingerprint: str) -> str:
    """Everything that decides the weights: recipe, reader, and how this version builds and saves them.

    Evaluation and verdict may change without retraining.
    """
    parts = recipe.model_dump(
        mode="json", include={"data", "reader", "further_readers", "method", "objective", "train"}
    )
    for key in ("eval", "eval_split", "eval_limit", "eval_seed"):
        parts["data"].pop(key)
    for reader in (
        parts["reader"],
        *parts["further_readers"],
    ):  # where it runs and in how many pieces changes no weight
        reader.pop("device"), reader.pop("device_map")
    parts["train"].pop("micro_examples")
    parts["scope"] = recipe.eval.scopes[0]  # training prompts are laid out in the first scope
    return f"{FORMAT}-{fingerprint}-{hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()}"


def asking_hash(recipe: Recipe, reader: ReaderSpec, fingerprint: str) -> str:
    """Identity of everything but the method that decides what an evaluation measures: reader, code and machine too."""
    data = recipe.model_dump(mode="json", include={"data": {"eval", "eval_split", "eval_limit", "eval_seed"}})
    decoding = [reader.model_dump(mode="json"), recipe.eval.batch, recipe.eval.max_new_tokens]
    place = [fingerprint, commit(), hardware(), torch.get_num_threads()]
    return hashlib.sha256(json.dumps([data, decoding, place], sort_keys=True).encode()).hexdigest()


def hardware() -> str:
    """The machine in words: processor and what PyTorch uses of its vector instructions, cores, memory, accelerator."""
    if torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()}, {os.cpu_count()} cores"
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        model = names[0] if names else model
    vectors, memory = torch.backends.cpu.get_cpu_capability(), psutil.virtual_memory().total / 2**30
    return f"{model} {vectors}, {os.cpu_count()} cores, {memory:.0f} GiB"


@functools.cache
def commit() -> str:
    """The git commit of the source tree, `-dirty` when the package's files differ from it, `unknown` outside a checkout."""

    def git(*words: str) -> str:
        call = ["git", *words]
        return subprocess.run(
            call, cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)  # installed below some other project's checkout
        return git("rev-parse", "--short=12", "HEAD") + ("-dirty" if git("status", "--porcelain", ".") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def provenance() -> dict[str, Any]:
    """Where and with what a run was made."""
    return {
        "commit": commit(),
        "hardware": hardware(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
    }
