#!/bin/sh
# The demo's figures: three seeds of recipes/demo.yaml. About 5 minutes a seed on 2 cores.
set -eu
cd "$(dirname "$0")/.."
for seed in 0 1 2; do
  .venv/bin/latentwire run recipes/demo.yaml name="demo-seed$seed" train.seed="$seed" data.seed="$seed" data.eval_seed="$seed" --force
done
.venv/bin/python runs/collect.py out/demo-seed0 out/demo-seed1 out/demo-seed2 --variant demo --command runs/demo.sh
