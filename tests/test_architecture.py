"""The rules of the design page that a machine can check: who imports whom, and how long things get."""

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import latentwire

ROOT = Path(latentwire.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in FILES}
HEAVY = ("torch", "transformers", "pydantic", "yaml", "accelerate", "safetensors", "gguf", "typer", "rich", "datasets")


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in FILES}
by_module = pytest.mark.parametrize("module", MODULES)


def imports_of(module: str) -> set[str]:
    """Full names of all that a module imports, at its top or inside a function."""
    found: set[str] = set()
    for node in ast.walk(TREES[MODULES[module]]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} line {node.lineno}: expected absolute imports"
            found.add(str(node.module))
            found |= {f"{node.module}.{alias.name}" for alias in node.names if f"{node.module}.{alias.name}" in MODULES}
    return found


def own_imports(module: str) -> set[str]:
    return {name for name in imports_of(module) if name in MODULES and name != module}


def part_of(module: str) -> str:
    """The file or folder directly under the package that a module belongs to; the package itself is ''."""
    return (module.split(".") + [""])[1]


def parts_imported_by(part: str) -> set[str]:
    inside = [module for module in MODULES if part_of(module) == part]
    return {part_of(name) for module in inside for name in own_imports(module)} - {part, ""}


def reachable(part: str) -> set[str]:
    found: set[str] = set()
    todo = [part]
    while todo:
        new = parts_imported_by(todo.pop()) - found
        found |= new
        todo += new
    return found


# What each part may import of the package, from the design page's "Import direction".
ALLOWED = {
    "errors": set(),
    "registry": {"errors"},
    "latent": {"errors", "registry"},
    "codecs": {"errors", "registry", "latent"},
    "data": {"errors", "registry"},
    "reader": {"errors", "registry", "data"},
    "methods": {"errors", "registry", "latent", "codecs", "reader"},
    "objectives": {"errors", "registry", "reader"},
    "metrics": {"errors"},
    "balance": {"errors"},
    "corpus": {"errors", "data", "reader"},
}


@pytest.mark.parametrize("part", ALLOWED)
def test_lower_layers_import_only_what_lies_below_them(part):
    assert parts_imported_by(part) <= ALLOWED[part]


@pytest.mark.parametrize("part", ["data", "reader", "methods", "objectives", "metrics", "latent", "codecs"])
def test_no_layer_below_them_knows_the_trainer_the_ladder_or_the_command_line(part):
    assert not reachable(part) & {"train", "ladder", "evaluate", "pipeline", "cli", "api", "runs", "report", "config"}


def test_nothing_imports_the_command_line():
    assert not {module for module in MODULES if "cli" in {part_of(name) for name in own_imports(module)}} - {
        name for name in MODULES if part_of(name) == "cli" or name.endswith("__main__")
    }


@pytest.mark.parametrize("part", ["report"])
def test_report_needs_neither_torch_nor_a_model(part):
    inside = [module for module in MODULES if part_of(module) == part]
    roots = {name.split(".")[0] for module in inside for name in imports_of(module)}
    assert not roots & {"torch", "transformers", "safetensors", "accelerate", "datasets"}
    assert not reachable(part) & {"reader", "methods", "objectives", "train", "evaluate", "ladder", "pipeline"}


@pytest.mark.parametrize(
    ("part", "outside"), [("objectives", {"torch"}), ("balance", {"torch"}), ("metrics", {"torch", "numpy"})]
)
def test_losses_and_scores_import_nothing_but_arrays(part, outside):
    (module,) = (module for module in MODULES if part_of(module) == part)
    roots = {name.split(".")[0] for name in imports_of(module)} - {"latentwire"}
    assert roots - set(sys.stdlib_module_names) <= outside


def test_parts_of_the_package_import_each_other_in_no_circle():
    graph = {part: parts_imported_by(part) for part in {part_of(module) for module in MODULES} - {""}}
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"import circle: {' -> '.join(error.args[1])}")


def test_modules_of_a_folder_import_each_other_in_no_circle():
    """A folder's own `__init__` is left out: it imports its modules last, so that they register."""
    packages = {module for module, path in MODULES.items() if path.name == "__init__.py"}
    graph = {module: own_imports(module) - packages for module in MODULES.keys() - packages}
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"import circle: {' -> '.join(error.args[1])}")


@pytest.mark.parametrize("module", ["latentwire", *(f"latentwire.{part}" for part in sorted(ALLOWED)[:0])])
def test_listed_lazy_names_are_all_there(module):
    for name in latentwire.__all__:
        assert getattr(latentwire, name) is not None
    with pytest.raises(AttributeError, match="nonsense"):
        latentwire.nonsense  # noqa: B018


@pytest.mark.parametrize("module", ["latentwire", *(f"latentwire.{n}" for n in ("errors", "registry", "latent", "codecs"))])
def test_plain_install_imports_with_numpy_alone(module):
    code = f"""
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {HEAVY!r}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Refuse())
import {module}
roots = {{name.split(".")[0] for name in sys.modules}} - set(sys.stdlib_module_names)
print(sorted(root for root in roots if not root.startswith(("_", "sitecustomize"))))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert set(ast.literal_eval(done.stdout)) & {"latentwire", "numpy", *HEAVY} <= {"latentwire", "numpy"}


def test_plain_install_decodes_a_latent():
    code = f"""
import sys
for name in {HEAVY!r}:
    sys.modules[name] = None
import numpy as np
from latentwire.codecs import transmit
from latentwire.latent import Latent
received, count = transmit(Latent(np.eye(3, dtype=np.float32), "int8", "s", 3))
print(count, float(received.payload.sum()))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    count, total = done.stdout.split()
    assert int(count) == 15
    assert float(total) == pytest.approx(3.0, rel=1e-3)


@by_module
def test_no_file_is_longer_than_three_hundred_lines(module):
    assert len(MODULES[module].read_text(encoding="utf-8").splitlines()) <= 300


@by_module
def test_no_function_is_longer_than_fifty_lines(module):
    functions = (node for node in ast.walk(TREES[MODULES[module]]) if isinstance(node, ast.FunctionDef))
    long = [f"{node.name}: {size}" for node in functions if (size := int(node.end_lineno or 0) - node.lineno + 1) > 50]
    assert not long


@by_module
def test_no_module_is_a_drawer_for_everything(module):
    assert not set(module.split(".")) & {"utils", "util", "helpers", "helper", "common", "misc", "v2", "legacy"}


@by_module
def test_every_module_says_what_it_is(module):
    said = ast.get_docstring(TREES[MODULES[module]])
    assert said
    assert len(said.splitlines()[0]) > 20


def print_lines(module: str) -> list[int]:
    calls = (node for node in ast.walk(TREES[MODULES[module]]) if isinstance(node, ast.Call))
    return [call.lineno for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"]


@by_module
def test_only_the_command_line_prints(module):
    assert part_of(module).startswith("cli") or not print_lines(module)


@by_module
def test_no_error_is_caught_that_was_not_named(module):
    handlers = [node for node in ast.walk(TREES[MODULES[module]]) if isinstance(node, ast.ExceptHandler)]
    caught = [[n.id for n in ast.walk(h.type) if isinstance(n, ast.Name)] if h.type else ["all"] for h in handlers]
    broad = {"all", "Exception", "BaseException"}
    assert not [h.lineno for h, names in zip(handlers, caught, strict=True) if broad & set(names)]


@by_module
def test_no_bytes_are_unpickled_but_by_torch_with_weights_only(module):
    tree = TREES[MODULES[module]]
    assert not imports_of(module) & {"pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
    loads = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("torch.load", "np.load", "numpy.load")
    ]
    safe = {"weights_only=True", "allow_pickle=False"}
    assert all({ast.unparse(keyword) for keyword in call.keywords} & safe for call in loads)
