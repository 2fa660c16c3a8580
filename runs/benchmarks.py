"""Run benchmarks/ and write results/benchmarks/*.json: seconds, ratios to the peer, and how far the answers agree.

python runs/benchmarks.py
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from latentwire.runs import provenance

ROOT = Path(__file__).parent.parent
PEERS = {
    "test_ours_from_counts": "test_sklearn_on_every_token",
    "test_training_loop[ours_distinct_tokens]": "test_training_loop[plain_every_token]",
}


def measured(path: Path) -> list[dict[str, Any]]:
    """One row per benchmark, the ratio to its peer where it has one."""
    found = {one["name"]: one for one in json.loads(path.read_text())["benchmarks"]}
    rows = []
    for name, one in sorted(found.items()):
        stats = one["stats"]
        row = {
            "benchmark": name,
            "seconds_median": stats["median"],
            "seconds_min": stats["min"],
            "seconds_max": stats["max"],
        }
        row |= {"rounds": stats["rounds"], **one["extra_info"]}
        if name in PEERS and PEERS[name] in found:
            row["times_faster_than_peer"] = found[PEERS[name]]["stats"]["median"] / stats["median"]
        rows.append(row)
    return rows


def main() -> None:
    """Run them all and write one file each."""
    for path in sorted((ROOT / "benchmarks").glob("test_*.py")):
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "out.json"
            subprocess.run(
                [sys.executable, "-m", "pytest", str(path), f"--benchmark-json={out}", "-q"], check=True, cwd=ROOT
            )
            result = {
                "run": {"command": "python runs/benchmarks.py", **provenance()},
                "train": {},
                "meta": {
                    "what": path.stem.removeprefix("test_"),
                    "units": "seconds; tokens are corpus tokens of one round",
                },
                "rows": measured(out),
            }
        target = ROOT / "results" / "benchmarks" / f"{path.stem.removeprefix('test_')}.json"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(result, indent=1, sort_keys=True) + "\n")
        print(target)


if __name__ == "__main__":
    main()
