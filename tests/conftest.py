"""What all tests share: one thread each, and a tiny wire for three readers, trained once a process."""

import gc
import os
import shutil

import pytest
import torch

from latentwire import cli
from tiny import save_tiny
from wires import RECIPE

# Two workers with two threads each on two cores wait for each other more than they work; so do the processes that tests start.
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)


def pytest_collection_finish() -> None:
    """Leave what the libraries made out of garbage collections, of which every rung of a ladder asks for a whole one."""
    gc.freeze()


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """A folder with three readers and the run of a wire for the first two."""
    folder = tmp_path_factory.mktemp("home")
    names = {"first": "llama", "second": "gemma3", "third": "qwen2"}
    saved = {place: str(save_tiny(folder / f"tiny-{family}", family)) for place, family in names.items()}
    (folder / "wire.yaml").write_text(RECIPE.format(**saved))
    rungs = "eval.rungs=[no context, full text, raw embeddings, wire 4x]"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LATENTWIRE_CACHE", str(folder / "cache"))
        patch.setattr("sys.argv", ["latentwire"])
        cli.app(["run", str(folder / "wire.yaml"), rungs, "--out", str(folder / "out")], standalone_mode=False)
    return folder


@pytest.fixture(scope="module")
def home(made):
    """That folder, its cache in use; nothing in it may be changed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LATENTWIRE_CACHE", str(made / "cache"))
        yield made


@pytest.fixture(scope="module")
def trained(home):
    """The trained wire."""
    return home / "out" / "tiny-wire" / "wire"


@pytest.fixture
def folder(trained, tmp_path):
    """A copy of it that a test may harm."""
    return shutil.copytree(trained, tmp_path / "wire")
