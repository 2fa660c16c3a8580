"""Turn run folders into committed result files: results/<dataset>/<method>--<variant>.json.

    python runs/collect.py RUN_FOLDER [...] --variant NAME --command "the command that made them" [--paired]
        [--target "wire 4x=0.60" ...] [--gap RUN_FOLDER]

One file holds the rows of all given runs (seeds, readers), what trained them and where. Idempotent: the same folders
give the same bytes. The folder in the environment variable DATA is written as $DATA: a figure names no machine's paths.
`--paired` compares what each run trained with the first run's, and with raw embeddings, question by question. `--target` sets
the share of the gap that a rung is to reach; its rows then say whether they do. `--gap` names the run whose tuned rungs say, for the
same questions, what share of the gap each point of a learning curve is that was made without tuned rungs.
"""

import argparse
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from latentwire.metrics import Interval, PairedBootstrap, share_of_gap
from latentwire.report.rows import FLOOR_TUNED, TEXT, TEXT_TUNED

ROOT = Path(__file__).parent.parent
GAP = (FLOOR_TUNED, TEXT, TEXT_TUNED)


def rounded(value: Any) -> Any:
    """Floats to six significant digits, so that a file says no more than was measured."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list) else value


def portable(text: str) -> str:
    """A recipe with the data folder's path as `$DATA`."""
    folder = os.environ.get("DATA", "").rstrip("/")
    return text.replace(f"{folder}/", "$DATA/") if folder else text


def collect(folders: list[Path], command: str) -> dict[str, Any]:
    """The blocks run, train, meta and rows of a result file."""
    recipes = [yaml.safe_load(portable((folder / "recipe.yaml").read_text())) for folder in folders]
    found = [json.loads((folder / "provenance.json").read_text()) for folder in folders]
    rows = [json.loads(line) for folder in folders for line in (folder / "rows.jsonl").read_text().split("\n") if line]
    curves = [line for folder in folders for line in _lines(folder / "curve.jsonl")]
    keys = ("commit", "hardware", "threads", "python", "versions")
    return {
        "run": {"command": command, **{key: found[0][key] for key in keys}},
        "train": [{key: item for key, item in one.items() if key not in keys} for one in found],
        "meta": {"recipes": recipes, "intervals": "95 %, paired bootstrap over contexts"}
        | ({"curve": curves} if curves else {}),
        "rows": rows,
    }


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().split("\n") if line] if path.exists() else []


def judge(rows: list[dict[str, Any]], targets: list[str]) -> None:
    """Write `target_met` into the rows of each rung that has a target."""
    for rung, equals, target in (entry.partition("=") for entry in targets):
        found = [row for row in rows if row["rung"] == rung]
        if not equals or not found:
            raise SystemExit(f"expected --target as 'rung=share' with a rung of the runs, got '{rung}{equals}{target}'")
        for row in found:
            row["target_met"] = row["share_of_gap"] is not None and row["share_of_gap"] >= float(target)


def share_curve(curve: list[dict[str, Any]], folder: Path) -> None:
    """Write `share_of_gap` into a curve's points: from no context to text, as another run's rungs answered the same questions."""
    lines = _lines(folder / "predictions.jsonl")
    for point in curve:
        here = [line for line in lines if line["reader"] == point["reader"]]
        asked = list(dict.fromkeys(line["id"] for line in here))[: point["n"]]
        found = {name: [line for line in here if line["rung"] == name and line["id"] in asked] for name in GAP}
        if any(len(kept) != point["n"] for kept in found.values()):
            raise SystemExit(
                f"expected {', '.join(GAP)} for {point['n']} questions in {folder}, got fewer; give a whole ladder"
            )
        floor, *ceilings = (float(np.mean([line["f1"] for line in kept])) for kept in found.values())
        point["share_of_gap"] = share_of_gap(point["f1"], floor, ceilings)


def same_questions(folders: list[Path], other: Path) -> None:
    """Stop unless the runs' questions are the other run's first."""
    (asked, *rest) = (
        list(dict.fromkeys(line["id"] for line in _lines(one / "predictions.jsonl"))) for one in [other, *folders]
    )
    if any(one != asked[: len(one)] for one in rest):
        raise SystemExit(f"expected the first questions of {other} in the runs, got others; evaluate them alike")


def paired(folders: list[Path], scope: str) -> list[dict[str, Any]]:
    """Differences of what each run trained to raw embeddings and to the first run's: answer NLL and F1, with intervals."""
    found = [_answers(folder, scope) for folder in folders]
    first = found[0]
    if any(one["ids"] != first["ids"] for one in found):
        raise SystemExit("expected the same questions in all runs, got others; evaluate them alike")
    bootstrap = PairedBootstrap(first["contexts"], resamples=10_000)

    def difference(one: dict[str, Any], other: dict[str, Any], measure: str) -> dict[str, float]:
        between: Interval = bootstrap.difference(one[measure], other[measure])
        return {"value": between.value, "low": between.low, "high": between.high}

    return [
        {
            "run": folder.name,
            "scope": scope,
            "over_raw": {measure: difference(one["trained"], one["raw"], measure) for measure in ("answer_nll", "f1")},
            "over_first": {
                measure: difference(one["trained"], first["trained"], measure) for measure in ("answer_nll", "f1")
            },
        }
        for folder, one in zip(folders, found, strict=True)
    ]


def _answers(folder: Path, scope: str) -> dict[str, Any]:
    """Ids, contexts, and per question the NLL and F1 of what the run trained and of raw embeddings."""
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text().split("\n") if line]
    trained = next(row for row in rows if row["trained"])
    lines = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().split("\n") if line]
    kinds = {
        kind: [line for line in lines if (line["rung"], line["scope"]) == (rung, scope)]
        for kind, rung in (("trained", trained["rung"]), ("raw", "raw embeddings"))
    }
    return {
        "ids": [line["id"] for line in kinds["raw"]],
        "contexts": [line["context"] for line in kinds["raw"]],
        **{
            kind: {measure: np.array([line[measure] for line in chosen]) for measure in ("answer_nll", "f1")}
            for kind, chosen in kinds.items()
        },
    }


def main() -> None:
    """Read the arguments and write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--variant", required=True)
    parser.add_argument("--command", required=True)
    parser.add_argument("--results", type=Path, default=ROOT / "results")
    parser.add_argument("--paired", action="store_true")
    parser.add_argument("--target", action="append", default=[])
    parser.add_argument("--gap", type=Path)
    arguments = parser.parse_args()
    result = collect(arguments.folders, arguments.command)
    if arguments.paired:
        scopes = dict.fromkeys(row["scope"] for row in result["rows"] if row["trained"])
        result["meta"]["paired"] = [pair for scope in scopes for pair in paired(arguments.folders, scope)]
    judge(result["rows"], arguments.target)
    if arguments.gap is not None:
        same_questions(arguments.folders, arguments.gap)
        share_curve(result["meta"].get("curve", []), arguments.gap)
        result["meta"]["gap"] = (
            f"of the learning curve: the tuned rungs of run '{arguments.gap.name}' on the same questions"
        )
    dataset, method = result["rows"][0]["dataset"], result["meta"]["recipes"][0]["method"]["name"]
    path = arguments.results / dataset / f"{method}--{arguments.variant}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rounded(result), indent=1, sort_keys=True, ensure_ascii=False) + "\n")
    print(path)


if __name__ == "__main__":
    main()
