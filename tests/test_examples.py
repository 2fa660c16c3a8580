"""Every file of examples/ runs as it stands there, and shows what it says."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import latentwire as lw

EXAMPLES = Path(__file__).parent.parent / "examples"


def shown(name, *arguments):
    done = subprocess.run([sys.executable, EXAMPLES / name, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_example_is_short_and_says_how_it_is_called(path):
    text = path.read_text()
    assert text.count("\n") <= 40
    assert f"python examples/{path.name}" in ast.get_docstring(ast.parse(text))
    assert path.name in Path(__file__).read_text()


@pytest.mark.packaged
def test_one_latent_is_sent_as_bytes_and_answered_from():
    sizes, *answers = shown("one_latent_two_readers.py").splitlines()
    tokens, vectors, size = map(int, re.findall(r"\d+", sizes))
    assert 3 < tokens / vectors <= 4
    assert 576 / 2 * vectors < size < 576 * vectors  # half a byte a number and the scales
    assert "Sutune" in answers[0]
    assert "puppet theatre" in answers[1]


@pytest.mark.packaged
def test_a_method_of_ones_own_is_measured_beside_the_text():
    rows = re.findall(r"^(\w+): F1 ([\d.]+), (\d+) bytes$", shown("own_method.py"), re.MULTILINE)
    scores = {name: (float(f1), int(size)) for name, f1, size in rows}
    assert scores["full_text"][0] > scores["every_other_word"][0] >= scores["no_context"][0]
    assert 0.4 < scores["every_other_word"][1] / scores["full_text"][1] < 0.6


def test_a_file_of_latents_is_read_without_torch(tmp_path):
    made = lw.Latent(np.full((3, 4), 0.5, np.float32), "fp16", "a-space", 12)
    (tmp_path / "out.lw").write_bytes(lw.pack(made, "first") + lw.pack(made, "second"))
    told = shown("read_without_torch.py", tmp_path / "out.lw").splitlines()
    assert told == [f"{name}: 3 vectors of width 4, mean length 1.00" for name in ("first", "second")]
