"""A trained wire on disk: what each file of its folder holds, written and read as a whole.

config.json               format, method fields, encoder, latent space, readers with their layout
latents.safetensors       the sender's trained part
adapters/<reader>.safetensors
                          one reader's trained part each; attaching a reader adds one and changes no other
recipe.yaml, rows.jsonl   how it was trained, and what the ladder measured
README.md                 the model card
codebooks.safetensors     what codes of codec `pq` stand for, where any were learnt
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save as save_arrays
from safetensors.torch import load_file, save
from torch import Tensor

from latentwire.atomic import atomic_write
from latentwire.codebooks import Codebooks
from latentwire.errors import LatentError, WireError

FORMAT = 3
CONFIG = "config.json"
CARD = "README.md"
IN_RUN = "wire"  # where a run that trained a wire keeps it
RECIPE = "recipe.yaml"
ROWS = "rows.jsonl"
EXTRAS = (RECIPE, ROWS, CARD)
CODEBOOKS = "codebooks.safetensors"
LATENTS = "latents.safetensors"
ADAPTERS = "adapters"
IN_STEPS = ("mix.weight", "residual.weight")
STEPS = 127
SCALE = ".steps"


@dataclass(frozen=True, slots=True)
class WireReader:
    """A reader that a wire has an adapter for: how results and files name it, and how it is asked."""

    name: str
    style: Literal["plain", "chat"]
    shots: int


@dataclass(frozen=True, slots=True)
class WireFiles:
    """Everything in a wire's folder that decides what it does.

    Attributes:
        method: Fields of the method, the encoder's name among them.
        identity: Encoder's weights, layers, pool and dtype.
        space: Fingerprint of the latent space.
        readers: By the fingerprint of their weights.
        tensors: Of the latents (`latents.*`) and of all adapters (`adapters.<fingerprint>.*`).
    """

    method: Mapping[str, Any]
    identity: str
    space: str
    readers: Mapping[str, WireReader]
    tensors: Mapping[str, Tensor]

    def fields(self) -> dict[str, Any]:
        """Fields of the method, ready to be given to it."""
        return {name: tuple(value) if isinstance(value, list) else value for name, value in self.method.items()}

    def names(self) -> list[str]:
        """The files that hold it, as paths below its folder."""
        return [CONFIG, LATENTS, *(_adapter_file(reader.name) for reader in self.readers.values())]

    def reader(self, fingerprint: str, name: str) -> WireReader:
        """How a reader is asked; `WireError` where the wire has no adapter for it."""
        if fingerprint not in self.readers:
            known = ", ".join(sorted(reader.name for reader in self.readers.values()))
            raise WireError(
                f"expected a reader that the wire has an adapter for ({known}), got '{name}'; add one with latentwire"
                f" attach WIRE --reader {name}"
            )
        return self.readers[fingerprint]


def read_wire(folder: Path) -> WireFiles:
    """What `write_wire` wrote.

    Raises:
        WireError: There is no wire, it is of another version, incomplete or damaged.
    """
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise WireError(f"expected a wire in {folder}, found no {CONFIG}; give the folder of a trained wire") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise WireError(f"expected a readable {path}, got: {error}; fetch or train the wire anew") from None
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        found = config.get("format") if isinstance(config, dict) else type(config).__name__
        raise WireError(f"expected a wire of format {FORMAT} in {folder}, got {found}; train it with this version")
    try:
        readers = {key: WireReader(**value) for key, value in config["readers"].items()}
        fields, identity, space = dict(config["method"]), str(config["identity"]), str(config["space"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise WireError(
            f"expected a whole {path}, got one without or with a wrong {error}; fetch the wire anew"
        ) from None
    tensors = _prefixed("latents", _tensors(folder / LATENTS))
    for fingerprint, reader in readers.items():
        tensors |= _prefixed(f"adapters.{fingerprint}", _tensors(folder / _adapter_file(reader.name)))
    return WireFiles(fields, identity, space, readers, tensors)


def read_latents(folder: Path, identity: str) -> dict[str, Tensor]:
    """A wire's part that makes latents, for an encoder of that identity.

    Raises:
        WireError: What `read_wire` raises, or a wire of another encoder.
    """
    files, prefix = read_wire(folder), "latents."
    if files.identity != identity:
        raise WireError(
            f"expected a wire with encoder {identity} in {folder}, got one with {files.identity}; use its encoder"
        )
    return {name.removeprefix(prefix): part for name, part in files.tensors.items() if name.startswith(prefix)}


def write_wire(folder: Path, files: WireFiles) -> None:
    """Write the wire, `config.json` last: a folder without it is no wire. Files that are the same already are not touched.

    Raises:
        WireError: Two readers share a name.
        RunError: The folder cannot be written.
    """
    names = [reader.name for reader in files.readers.values()]
    if len(set(names)) < len(names):
        raise WireError(f"expected readers of different names, got {', '.join(sorted(names))}; rename a folder")
    (folder / ADAPTERS).mkdir(parents=True, exist_ok=True)
    parts = {folder / LATENTS: "latents."}
    for fingerprint, reader in files.readers.items():
        parts[folder / _adapter_file(reader.name)] = f"adapters.{fingerprint}."
    for path, prefix in parts.items():
        own = {name.removeprefix(prefix): part for name, part in files.tensors.items() if name.startswith(prefix)}
        stored = [_shortest(name, part.detach().cpu().contiguous()) for name, part in own.items()]
        data = save({name: part for one in stored for name, part in one.items()})
        if not path.exists() or path.read_bytes() != data:
            atomic_write(path, partial(Path.write_bytes, data=data))
    config = {
        "format": FORMAT,
        "method": dict(files.method),
        "identity": files.identity,
        "space": files.space,
        "readers": {fingerprint: asdict(reader) for fingerprint, reader in files.readers.items()},
    }
    text = json.dumps(config, indent=2)
    atomic_write(folder / CONFIG, partial(Path.write_text, data=text, encoding="utf-8"))


def read_codebooks(folder: Path) -> Codebooks | None:
    """The wire's codebooks; None where none were learnt.

    Raises:
        WireError: They are damaged.
    """
    path = folder / CODEBOOKS
    if not path.exists():
        return None
    try:
        return Codebooks(load_arrays(path)["words"])
    except (OSError, SafetensorError, KeyError, LatentError) as error:
        raise WireError(f"expected readable codebooks at {path}, got: {error}; fetch or learn them anew") from None


def write_codebooks(folder: Path, codebooks: Codebooks) -> None:
    """Write a wire's codebooks into its folder. Raises `RunError` where it cannot be written."""
    atomic_write(folder / CODEBOOKS, partial(Path.write_bytes, data=save_arrays({"words": codebooks.words})))


def shortened(name: str, part: Tensor) -> Tensor:
    """A tensor as a published wire keeps it: maps from and to hidden units as steps of 8 bits, a scale for each unit that
    they lead to; all else, adapters' linear maps among it, in half precision."""
    if not name.endswith(IN_STEPS):
        return part.half().float()
    scale = (
        _scale(part).bfloat16().float()
    )  # short, so that products with steps are exact and rounding again changes nothing
    return _steps(part, scale) * scale + 0.0  # no negative zeros: whole steps have none


def _scale(part: Tensor) -> Tensor:
    """`[N, 1]`: the step that takes the largest value of each row to 127."""
    return part.abs().amax(dim=1, keepdim=True) / STEPS


def _steps(part: Tensor, scale: Tensor) -> Tensor:
    """Each value in whole steps of its row's scale, -127 to 127."""
    return torch.where(scale > 0, part / scale, 0.0).round().clamp(-STEPS, STEPS)


def _shortest(name: str, part: Tensor) -> dict[str, Tensor]:
    """The tensor as steps and scales, or in half precision, where that loses nothing: so for all of a published wire."""
    half = part.half()
    if part.dim() == 2 and name.endswith(IN_STEPS):
        scale = _scale(part)
        steps = _steps(part, scale).to(torch.int8)
        if torch.equal(steps * scale, part) and torch.equal(scale.bfloat16().float(), scale):
            return {name: steps, f"{name}{SCALE}": scale[:, 0].bfloat16()}
    return {name: half if torch.equal(half.to(part.dtype), part) else part}


def _restored(parts: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        name: part.float() * (parts[f"{name}{SCALE}"].float()[:, None] if part.dtype == torch.int8 else 1.0)
        for name, part in parts.items()
        if not name.endswith(SCALE)
    }


def _adapter_file(name: str) -> str:
    return f"{ADAPTERS}/{name.replace('/', '--')}.safetensors"


def _tensors(path: Path) -> dict[str, Tensor]:
    try:
        return _restored(load_file(path))
    except FileNotFoundError:
        raise WireError(f"expected a whole wire, found no {path}; fetch or train it anew") from None
    except (OSError, SafetensorError, KeyError, IndexError, RuntimeError) as error:
        raise WireError(f"expected readable weights at {path}, got: {error}; fetch or train the wire anew") from None


def _prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}
