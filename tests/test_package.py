"""What a whole-package look can hold: lazy names resolve, layers stay apart also at second hand, nothing unpickles."""

import ast
from pathlib import Path

import pytest

import latentwire

ROOT = Path(latentwire.__file__).parent
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(ROOT.rglob("*.py"))}
LOWER = ["errors", "registry", "latent", "codecs", "data", "reader", "methods", "objectives", "metrics", "balance"]
UPPER = {"train", "ladder", "evaluate", "pipeline", "dryrun", "cli", "api", "runs", "config"}


def part_of(path: Path) -> str:
    """The file or folder directly under the package that a file belongs to."""
    return path.relative_to(ROOT).with_suffix("").parts[0]


def parts_imported_by(part: str) -> set[str]:
    trees = [tree for path, tree in TREES.items() if part_of(path) == part]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    names = {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}
    names |= {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return {name.split(".")[1] for name in names if name.startswith("latentwire.")} - {part}


def reachable(part: str) -> set[str]:
    found: set[str] = set()
    todo = [part]
    while todo:
        new = parts_imported_by(todo.pop()) - found
        found |= new
        todo += new
    return found


@pytest.mark.parametrize("part", LOWER)
def test_lower_layer_reaches_no_upper_layer_at_first_or_second_hand(part):
    assert not reachable(part) & (UPPER | {"report"})


def test_report_reaches_no_model_at_second_hand():
    assert not reachable("report") & {
        "reader",
        "methods",
        "objectives",
        "metrics",
        "corpus",
        *UPPER - {"runs", "config"},
    }


@pytest.mark.parametrize("part", ["reader", "methods"])
def test_what_reachability_is_measured_with_sees_imports(part):
    assert "errors" in reachable(part)
    assert reachable("cli") >= {"train", "reader", "methods"}


def test_listed_names_resolve_and_unknown_ones_do_not():
    for name in latentwire.__all__:
        assert getattr(latentwire, name) is not None
    with pytest.raises(AttributeError, match="nonsense"):
        latentwire.nonsense  # noqa: B018


def calls(*names: str) -> list[tuple[str, ast.Call]]:
    return [
        (f"{path.relative_to(ROOT)} line {node.lineno}", node)
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in names
    ]


def test_only_the_command_line_prints():
    assert not [place for place, _ in calls("print") if not place.startswith("cli")]


PICKLES = {"pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}


def test_nothing_is_unpickled():
    found = {
        alias.name
        for tree in TREES.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    assert not found & PICKLES
    taken = {
        alias.name
        for tree in TREES.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module in PICKLES
        for alias in node.names
    }
    assert taken <= {"UnpicklingError"}
    safe = {"weights_only=True", "allow_pickle=False"}
    loads = calls("torch.load", "np.load", "numpy.load")
    assert loads, "expected the checkpoint's load"
    assert not [place for place, call in loads if not {ast.unparse(keyword) for keyword in call.keywords} & safe]
