"""A minute of fuzzing in every test run; `PARTS=fuzz runs/serving.sh` goes on for 10 million inputs."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("atheris")
ROOT = Path(__file__).parent.parent
SECONDS = 60


def test_a_minute_of_hostile_bytes_brings_no_crash_and_no_error_without_a_name(tmp_path):
    command = [sys.executable, "fuzz/fuzz_unpack.py", tmp_path, "fuzz/corpus", f"-max_total_time={SECONDS}"]
    options = ["-print_final_stats=1", "-rss_limit_mb=0", f"-artifact_prefix={tmp_path}/"]
    done = subprocess.run([*command, *options], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(re.search(r"number_of_executed_units:\s*(\d+)", done.stderr)[1]) > 1000
