#!/bin/sh
# Which layout each reader answers best from: DATA=<folder> runs/layouts.sh. Text alone, on articles held out of the training
# files, never on what a figure is made with. Prints F1 of full text by layout; LOG.md keeps what was chosen.
# READERS and EVAL change what is asked. Some minutes a layout on 2 cores.
set -eu
cd "$(dirname "$0")/.."
: "${DATA:?set DATA to the folder with the SQuAD-format files}"
mkdir -p out
for reader in ${READERS:-smollm2-135m gemma-3-270m}; do
  for shots in 0 1 2; do
    name="layouts/$reader-plain-$shots"
    set -- recipes/stage1.yaml name="$name" reader.name="$reader" reader.style=plain reader.shots="$shots" \
      data.train_split=train data.limit=100 data.eval="{name: squad, path: $DATA/squadshifts_wiki.json}" \
      data.eval_split=heldout data.eval_limit="${EVAL:-100}" objective="{weights: {reconstruct: 1.0}}" train.steps=1 \
      eval.scopes='[prompt]' eval.rungs='[no context, full text, raw embeddings]'
    .venv/bin/latentwire train "$@" --force >out/layouts.log 2>&1
    .venv/bin/latentwire eval "$@" >>out/layouts.log 2>&1
    .venv/bin/python -c "
import json, sys
rows = [json.loads(line) for line in open('out/$name/rows.jsonl')]
print('$reader, plain, $shots worked examples:', *(f'{row[\"rung\"]} {row[\"f1\"]:.3f}' for row in rows[:2]))"
  done
done
