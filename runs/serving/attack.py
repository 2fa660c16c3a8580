"""What bad input does: results/serving/<part>.json.

    python runs/serving/attack.py PART --schemathesis PATH --command "..."

openapi    schemathesis sends what the OpenAPI page allows and what it does not, with the model's name and a stored latent's id at
           their places: no answer may be a 5xx
fuzz       10 million inputs for `unpack`, or an hour of them, found by coverage (atheris): no crash, no error without a name, no memory beyond the limit
"""

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from measure import ROOT, keep, served

EXAMPLES = 200
INPUTS = 10_000_000
SECONDS = 3600


def openapi(given: argparse.Namespace) -> dict[str, Any]:
    """Requests by route and status."""
    with tempfile.TemporaryDirectory() as folder, served(given.wire, given.reader) as server:
        stored = server.client.encode("The Velden lighthouse was built in 1874.", data=False)
        config = Path(folder) / "schemathesis.toml"
        config.write_text(
            f'[parameters]\nname = "{stored.id}"\n"body.model" = "{given.reader}"\n"body.max_tokens" = 4\n',
            encoding="utf-8",
        )
        report = Path(folder) / "report.ndjson"
        command = [
            str(Path(given.schemathesis).resolve()),
            "--config-file",
            str(config),
            "run",
            f"{server.url}/openapi.json",
        ]
        command += ["--checks", "not_a_server_error", "--max-examples", str(given.examples), "--seed", "0"]
        command += ["--phases", "examples,coverage,fuzzing", "--request-timeout", "120"]
        command += ["--report", "ndjson", "--report-ndjson-path", str(report)]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        print(done.stdout[-3000:])
        lives = bool(server.client.models())
        statuses = re.findall(r'"status_code":\s*(\d+)', report.read_text(encoding="utf-8"))
    cases = re.search(r"(\d+) generated, (\d+) passed", done.stdout)
    return {
        "comparison": "schemathesis",
        "exit_code": done.returncode,
        "cases": int(cases[1]) if cases else None,
        "passed": int(cases[2]) if cases else None,
        "answers_by_status": ", ".join(f"{status}: {statuses.count(status)}" for status in sorted(set(statuses))),
        "answers_afterwards": "yes" if lives else "no",
    }


def fuzz(given: argparse.Namespace) -> dict[str, Any]:
    """Executions and coverage."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "fuzz/fuzz_unpack.py", folder, "fuzz/corpus", f"-runs={given.inputs}", "-seed=1"]
        command += [
            f"-max_total_time={SECONDS}",
            "-print_final_stats=1",
            "-rss_limit_mb=0",
            f"-artifact_prefix={folder}/",
        ]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    print(done.stderr[-2000:])
    found = re.findall(r"cov: (\d+) ft: (\d+)", done.stderr)
    return {
        "comparison": "atheris",
        "exit_code": done.returncode,
        "inputs": _number(r"stat::number_of_executed_units:\s*(\d+)", done.stderr),
        "inputs_per_second": _number(r"stat::average_exec_per_sec:\s*(\d+)", done.stderr),
        "edges_covered": int(found[-1][0]) if found else None,
        "features_covered": int(found[-1][1]) if found else None,
        "memory_room_mib": _number(r"stat::memory_room_mib:\s*(\d+)", done.stderr),
    }


def _number(pattern: str, text: str) -> int | None:
    found = re.search(pattern, text)
    return int(found[1]) if found else None


def main() -> None:
    """Read the arguments, attack, write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("openapi", "fuzz"))
    parser.add_argument("--schemathesis", required=True)
    parser.add_argument("--command", required=True)
    parser.add_argument("--wire", default="wires/facts")
    parser.add_argument("--reader", default="smollm2-135m")
    parser.add_argument("--examples", type=int, default=EXAMPLES)
    parser.add_argument("--inputs", type=int, default=INPUTS)
    parser.add_argument("--results", type=Path, default=ROOT / "results")
    given = parser.parse_args()
    row = {"openapi": openapi, "fuzz": fuzz}[given.part](given)
    what = {"openapi": "schemathesis against the OpenAPI page", "fuzz": "atheris against the reader of messages"}
    keep(given, {"what": what[given.part], "peer": "none: a pass or a failure"}, [row])
    sys.exit(bool(row["exit_code"]))


if __name__ == "__main__":
    main()
