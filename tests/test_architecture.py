"""The structure that docs/design.md promises, read off the source."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "latentwire"
FILES = sorted(SOURCE.rglob("*.py"))
NAMES = {
    ".".join(("latentwire", *path.relative_to(SOURCE).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in FILES
}

# Nothing in the first place may import anything in the second.
FORBIDDEN = [
    ("latentwire.errors", "latentwire"),
    ("latentwire.registry", "latentwire.latent"),
    ("latentwire.latent", "latentwire.codecs"),
    ("latentwire.data", "latentwire.reader"),
    ("latentwire.data", "latentwire.methods"),
    ("latentwire.reader", "latentwire.methods"),
    ("latentwire.reader", "latentwire.codecs"),
    ("latentwire.methods", "latentwire.data"),
    ("latentwire.methods", "latentwire.metrics"),
    ("latentwire.methods", "latentwire.train"),
    ("latentwire.objectives", "latentwire.methods"),
    ("latentwire.objectives", "latentwire.data"),
    ("latentwire.metrics", "latentwire"),
    ("latentwire.train", "latentwire.evaluate"),
    ("latentwire.train", "latentwire.runs"),
    ("latentwire.evaluate", "latentwire.train"),
    ("latentwire.ladder", "latentwire.train"),
    ("latentwire.report", "latentwire.reader"),
    ("latentwire.report", "latentwire.methods"),
    ("latentwire.report", "latentwire.ladder"),
    ("latentwire.wire_format", "latentwire.reader"),
    ("latentwire.store", "latentwire.methods"),
    ("latentwire.client", "latentwire.serve"),
    ("latentwire.train", "latentwire.serve"),
    ("latentwire.methods", "latentwire.serve"),
    ("latentwire.report", "torch"),
    ("latentwire.report", "transformers"),
    ("latentwire.metrics", "transformers"),
    ("latentwire.objectives", "transformers"),
]


def imports(path, top_level_only=False):
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level_only else ast.walk(tree)
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {full for alias in node.names if (full := f"{node.module}.{alias.name}") in NAMES}
    return found


def inside(name, package):
    return name == package or name.startswith(package + ".")


@pytest.mark.parametrize(("place", "target"), FORBIDDEN, ids=[f"{a} -> {b}" for a, b in FORBIDDEN])
def test_import_direction_holds(place, target):
    broken = [
        f"{name} imports {found}"
        for name, path in NAMES.items()
        if inside(name, place)
        for found in imports(path)
        if inside(found, target) and not inside(found, place) and found != "latentwire"
    ]
    allowed = {"latentwire.errors", "latentwire.registry"} if target == "latentwire" else set()
    assert not [line for line in broken if line.split()[-1] not in allowed]


def test_no_method_objective_or_loop_is_chosen_by_type():
    for name in ("train", "evaluate", "ladder", "pipeline"):
        tree = ast.parse((SOURCE / f"{name}.py").read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "isinstance":
                named = {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
                assert not named & {"Method", "PerToken"}, name


def test_no_import_cycle():
    graph = {
        name: {found for found in imports(path, True) if found in NAMES and found != name}
        for name, path in NAMES.items()
    }
    # A package's __init__ ends with its entries' imports, which is how they register.
    for package in ("latentwire.codecs", "latentwire.data", "latentwire.methods"):
        graph[package] = {found for found in graph[package] if not inside(found, package)}
    done, path = set(), []

    def visit(name):
        assert name not in path, " -> ".join([*path, name])
        if name in done:
            return
        path.append(name)
        for found in graph[name]:
            visit(found)
        path.pop()
        done.add(name)

    for name in graph:
        visit(name)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_file_is_short_says_what_it_is_and_keeps_its_functions_short(path):
    text = path.read_text()
    assert text.count("\n") <= 300
    tree = ast.parse(text)
    assert ast.get_docstring(tree), "expected a first line that says what the file is"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 50, node.name
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, node.lineno
            caught = {name.id for name in ast.walk(node.type) if isinstance(name, ast.Name)}
            assert not caught & {"Exception", "BaseException"}, node.lineno


def test_no_drawer_for_odds_and_ends():
    assert not {path.stem for path in FILES} & {"utils", "helpers", "common", "misc", "v2", "legacy"}


@pytest.mark.parametrize("arguments", [["--help"], ["run", "nowhere.yaml"], ["inspect", "nowhere.lw"]], ids=" ".join)
def test_help_and_mistakes_are_told_before_torch_is_imported(arguments):
    code = (
        "import sys\n"
        "from latentwire.cli import main\n"
        "try:\n"
        "    main()\n"
        "except SystemExit:\n"
        "    print('told' if {'torch', 'transformers', 'matplotlib'}.isdisjoint(sys.modules) else 'late')\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1:] == ["told"], done.stderr
    assert "Usage" in done.stdout or "error: " in done.stderr


def test_what_a_client_needs_imports_neither_torch_nor_transformers():
    code = (
        "import sys\n"
        "class Refuse:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('torch', 'transformers', 'pydantic', 'typer', 'rich', 'yaml', 'safetensors'):\n"
        "            raise ImportError(name)\n"
        "sys.meta_path.insert(0, Refuse())\n"
        "import latentwire, numpy\n"
        "import latentwire.client, latentwire.store\n"
        "data = latentwire.pack(latentwire.Latent(numpy.ones((2, 3), 'float32'), 'int8', 's', 2))\n"
        "print(len(latentwire.unpack(data).payload))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "10", done.stderr
