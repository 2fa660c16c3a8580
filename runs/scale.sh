#!/bin/sh
# The scale study: DATA=<folder> runs/scale.sh. SmolLM2-135M with `reconstruct` at 8x and all of the data; with less of it; at
# 4x, 16x and 32x; and with `fisher`, the recipe's own objective. 200 questions of XQuAD English, on which nothing was
# chosen. The rungs of text are measured once, and again after a commit. Goes on where it was stopped with RESUME=--resume.
# Further arguments are overrides of every run.
set -eu
cd "$(dirname "$0")/.."
: "${DATA:?set DATA to the folder with the SQuAD-format files}"
folders=""
lender=""

point() { # examples epochs compression [objective]
  objective=${4:-reconstruct}
  name="scale-$1x$2-$3x${4:+-$4}"
  folders="$folders out/$name"
  if [ -z "${RESUME:-}" ] || [ ! -e "out/$name/report.html" ]; then
    # shellcheck disable=SC2086
    .venv/bin/latentwire run recipes/stage1.yaml name="$name" data.limit="$1" train.epochs="$2" data.eval_limit=200 \
      objective="{weights: {$objective: 1.0}}" method.compression="$3" eval.scopes='[prompt]' \
      eval.rungs="[no context, full text, raw embeddings, 'pca $3x, linear', trained]" $lender $overrides "${RESUME:---force}"
  fi
  lender="--baselines out/$name"
}

overrides="$*"
point 10000 3 8
point 640 2 8
point 2500 3 8
point 10000 3 4
point 10000 3 16
point 10000 3 32
point 10000 3 8 fisher
# shellcheck disable=SC2086
.venv/bin/python runs/collect.py $folders --variant scale --paired --command "DATA=<folder> runs/scale.sh $overrides"
