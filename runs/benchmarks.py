"""Run benchmarks/ and write results/benchmarks/<result>.json from what each left behind, met or missed alike.

[DATA=<folder>] python runs/benchmarks.py [benchmarks/test_pca.py ...]
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from collect import ROOT, rounded


def main() -> int:
    """Run them, write one file each, and return pytest's exit code: not 0 where a promise was missed."""
    command = "DATA=<folder> runs/benchmarks.sh" if "DATA" in os.environ else "runs/benchmarks.sh"
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.json"
        arguments = [*(sys.argv[1:] or ["benchmarks"]), "--benchmark-only", f"--benchmark-json={out}"]
        code = subprocess.run([sys.executable, "-m", "pytest", *arguments], cwd=ROOT, check=False).returncode
        if not out.exists():
            return code or 1
        found = json.loads(out.read_text())["benchmarks"]
    for one in found:
        blocks = one["extra_info"]["blocks"]
        blocks["run"]["command"] = command
        target = ROOT / "results" / "benchmarks" / f"{one['extra_info']['result']}.json"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(rounded(blocks), indent=1, sort_keys=True, ensure_ascii=False) + "\n")
        print(target)
    return code


if __name__ == "__main__":
    sys.exit(main())
