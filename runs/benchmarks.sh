#!/bin/sh
# The benchmarks' figures: [DATA=<folder>] runs/benchmarks.sh. DATA is a folder with SQuAD-format files; generated facts
# without it. Some 15 minutes on 2 cores, 6 GB of memory and 8 GB of temporary disk.
set -eu
cd "$(dirname "$0")/.."
.venv/bin/python runs/benchmarks.py "$@"
