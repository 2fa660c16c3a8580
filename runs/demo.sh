#!/bin/sh
# The demo's figures: recipes/demo.yaml for each of SEEDS (default "0 1 2"). About 5 minutes a seed on 2 idle cores.
set -eu
cd "$(dirname "$0")/.."
SEEDS=${SEEDS:-0 1 2}
folders=""
for seed in $SEEDS; do
  .venv/bin/latentwire run recipes/demo.yaml name="demo-seed$seed" train.seed="$seed" data.seed="$seed" data.eval_seed="$seed" --force
  folders="$folders out/demo-seed$seed"
done
# shellcheck disable=SC2086
.venv/bin/python runs/collect.py $folders --variant demo --command "SEEDS='$SEEDS' runs/demo.sh"
