"""Turn run folders into committed result files: results/<dataset>/<method>--<variant>.json.

    python runs/collect.py RUN_FOLDER [...] --variant NAME --command "the command that made them"

One file holds the rows of all given runs (seeds, readers), what trained them and where. Idempotent: the same folders
give the same bytes. The folder in the environment variable DATA is written as $DATA: a figure names no machine's paths.
"""

import argparse
import json
import os
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent


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
    rows = [json.loads(line) for folder in folders for line in (folder / "rows.jsonl").read_text().splitlines()]
    keys = ("commit", "hardware", "threads", "python", "versions")
    return {
        "run": {"command": command, **{key: found[0][key] for key in keys}},
        "train": [{key: item for key, item in one.items() if key not in keys} for one in found],
        "meta": {"recipes": recipes, "intervals": "95 %, paired bootstrap over contexts"},
        "rows": rows,
    }


def main() -> None:
    """Read the arguments and write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--variant", required=True)
    parser.add_argument("--command", required=True)
    parser.add_argument("--results", type=Path, default=ROOT / "results")
    arguments = parser.parse_args()
    result = collect(arguments.folders, arguments.command)
    trained = next(row for row in result["rows"] if row["trained"])
    path = arguments.results / trained["dataset"] / f"{trained['method']}--{arguments.variant}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rounded(result), indent=1, sort_keys=True, ensure_ascii=False) + "\n")
    print(path)


if __name__ == "__main__":
    main()
