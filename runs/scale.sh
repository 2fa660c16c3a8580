#!/bin/sh
# The scale study: DATA=<folder> runs/scale.sh. `reconstruct` on SmolLM2-135M at 8x with more and more data, then at 4x to
# 32x with all of it; 200 questions of XQuAD English, on which nothing was chosen. The rungs of text are measured once, and
# again after a commit. Goes on where it was stopped with RESUME=--resume. Further arguments are overrides of every run.
set -eu
cd "$(dirname "$0")/.."
: "${DATA:?set DATA to the folder with the SQuAD-format files}"
folders=""
lender=""

point() { # examples epochs compression
  name="scale-$1x$2-$3x"
  folders="$folders out/$name"
  if [ -z "${RESUME:-}" ] || [ ! -e "out/$name/report.html" ]; then
    # shellcheck disable=SC2086
    .venv/bin/latentwire run recipes/stage1.yaml name="$name" data.limit="$1" train.epochs="$2" data.eval_limit=200 \
      objective="{weights: {reconstruct: 1.0}}" method.compression="$3" eval.scopes='[prompt]' \
      eval.rungs="[no context, full text, raw embeddings, 'pca $3x, linear', trained]" $lender $overrides "${RESUME:---force}"
  fi
  lender="--baselines out/$name"
}

overrides="$*"
point 640 2 8
point 2500 3 8
point 10000 3 8
point 10000 3 4
point 10000 3 16
point 10000 3 32
# shellcheck disable=SC2086
.venv/bin/python runs/collect.py $folders --variant scale --command "DATA=<folder> runs/scale.sh $overrides"
