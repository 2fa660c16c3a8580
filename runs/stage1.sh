#!/bin/sh
# Stage 1 on real questions for each of READERS (default: both packaged ones): DATA=<folder> runs/stage1.sh. About an hour
# for SmolLM2-135M on 2 cores; goes on where it was stopped when called with RESUME=--resume.
set -eu
cd "$(dirname "$0")/.."
: "${DATA:?set DATA to the folder with the SQuAD-format files}"
for reader in ${READERS:-smollm2-135m gemma-3-270m}; do
  .venv/bin/latentwire run recipes/stage1.yaml reader.name="$reader" name="stage1-$reader" "${RESUME:---force}"
  .venv/bin/python runs/collect.py "out/stage1-$reader" --variant "stage1-$reader" \
    --command "DATA=<folder> READERS=$reader runs/stage1.sh"
done
