#!/bin/sh
# Stage 1 on real questions, both packaged readers: DATA=<folder> runs/stage1.sh. Some hours on 2 cores; goes on where it
# was stopped when called with RESUME=--resume.
set -eu
cd "$(dirname "$0")/.."
: "${DATA:?set DATA to the folder with the SQuAD-format files}"
for reader in smollm2-135m gemma-3-270m; do
  .venv/bin/latentwire run recipes/stage1.yaml reader.name="$reader" name="stage1-$reader" "${RESUME:---force}"
done
.venv/bin/python runs/collect.py out/stage1-smollm2-135m out/stage1-gemma-3-270m --variant stage1 --command "DATA=<folder> runs/stage1.sh"
