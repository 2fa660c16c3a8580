"""What one training loses against another, reader by reader and question by question: results/<dataset>/wire--<variant>.json.

    python runs/versus.py TESTED [...] --reference RUN [...] --margin 0.02 --variant NAME --command "..." [--rung "wire 4x"]

TESTED and RUN are run folders that put the same questions; each reader of a tested run is compared with the reference run that
has it. "No worse" means that the bad end of the paired interval is within the margin.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from collect import ROOT, portable, rounded

from latentwire.metrics import PairedBootstrap


def lines(path: Path) -> list[dict[str, Any]]:
    """The records of a JSON-lines file."""
    return [json.loads(line) for line in path.read_text().split("\n") if line]


def answers(folder: Path, rung: str) -> dict[str, dict[str, Any]]:
    """By reader: ids, contexts, F1 and NLL of each question at a rung."""
    found = [line for line in lines(folder / "predictions.jsonl") if line["rung"] == rung]
    return {
        reader: {
            "ids": [line["id"] for line in found if line["reader"] == reader],
            "contexts": [line["context"] for line in found if line["reader"] == reader],
            **{
                name: np.array([line[name] for line in found if line["reader"] == reader])
                for name in ("f1", "answer_nll")
            },
        }
        for reader in dict.fromkeys(line["reader"] for line in found)
    }


def verdict(low: float, high: float, margin: float, n: int) -> str:
    """Whether a loss is within the margin, by its interval."""
    if high <= margin:
        return "yes"
    return "no" if low > margin else f"not resolved at n = {n}"


def compare(tested: Path, reader: str, reference: Path, rung: str, margin: float) -> dict[str, Any]:
    """One reader's loss of a tested run against a reference run.

    Raises:
        SystemExit: They put different questions.
    """
    ours, theirs = answers(tested, rung)[reader], answers(reference, rung)[reader]
    if ours["ids"] != theirs["ids"]:
        raise SystemExit(f"expected the same questions in {tested} and {reference}, got others; evaluate them alike")
    bootstrap, n = PairedBootstrap(ours["contexts"], resamples=10_000), len(ours["ids"])
    f1 = bootstrap.difference(theirs["f1"], ours["f1"])
    nll = bootstrap.difference(ours["answer_nll"], theirs["answer_nll"])
    return {
        "comparison": f"{reader}: {tested.name} against {reference.name}",
        "n": n,
        "f1": float(ours["f1"].mean()),
        "reference_f1": float(theirs["f1"].mean()),
        **{f"f1_lost{end}": value for end, value in (("", f1.value), ("_low", f1.low), ("_high", f1.high))},
        **{f"nll_lost{end}": value for end, value in (("", nll.value), ("_low", nll.low), ("_high", nll.high))},
        "margin_of_f1": margin,
        "no_worse": verdict(f1.low, f1.high, margin, n),
        "train_seconds": next(row["train_seconds"] for row in lines(tested / "rows.jsonl") if row["rung"] == rung),
    }


def main() -> None:
    """Read the arguments and write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tested", nargs="+", type=Path)
    parser.add_argument("--reference", nargs="+", type=Path, required=True)
    parser.add_argument("--margin", type=float, required=True)
    parser.add_argument("--variant", required=True)
    parser.add_argument("--command", required=True)
    parser.add_argument("--rung", default="wire 4x")
    parser.add_argument("--results", type=Path, default=ROOT / "results")
    given = parser.parse_args()
    rows = [
        compare(tested, reader, reference, given.rung, given.margin)
        for tested in given.tested
        for reader in answers(tested, given.rung)
        for reference in given.reference
        if reader in answers(reference, given.rung)
    ]
    if not rows:
        raise SystemExit(f"expected a reader with the rung '{given.rung}' in both kinds of run, found none")
    folders = [*given.tested, *given.reference]
    provenance, *others = (json.loads((folder / "provenance.json").read_text()) for folder in folders)
    keys = ("commit", "hardware", "threads", "python", "versions")
    first = lines(given.tested[0] / "rows.jsonl")[0]
    result = {
        "run": {"command": given.command, "seed": first["seed"], **{key: provenance[key] for key in keys}},
        "train": [{key: item for key, item in one.items() if key not in keys} for one in (provenance, *others)],
        "meta": {
            "what": f"F1 and NLL that '{given.rung}' of one training loses against another, with 95 % paired intervals",
            "peer": "the other training",
            "recipes": {folder.name: portable((folder / "recipe.yaml").read_text()) for folder in folders},
        },
        "rows": rows,
    }
    path = given.results / first["dataset"] / f"wire--{given.variant}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rounded(result), indent=1, sort_keys=True, ensure_ascii=False) + "\n")
    print(path)


if __name__ == "__main__":
    main()
