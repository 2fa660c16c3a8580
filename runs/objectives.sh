#!/bin/sh
# The objective study: DATA=<folder> runs/objectives.sh. Every objective alone, the sensible pairs and the brief's own
# fault (plain MSE + CE 1:1, labels over prompt and answer), at 8x and 32x, each from the same start (the PCA inverse),
# for the same STEPS and again for the same SECONDS_EACH; EVAL questions of XQuAD English, on which nothing was
# chosen. The rungs of text are measured once, and again after a commit. 52 runs, about 5 hours on 2 cores. Goes on where it was
# stopped with RESUME=--resume. Further arguments are overrides of every run.
set -eu
cd "$(dirname "$0")/.."
: "${DATA:?set DATA to the folder with the SQuAD-format files}"
STEPS=${STEPS:-100}
SECONDS_EACH=${SECONDS_EACH:-300}
EVAL=${EVAL:-200}
overrides="$*"
lender=""

point() { # kind compression name weights balance
  name="objectives-$1-$2x/$3"
  folders="$folders out/$name"
  case $1 in
    steps) budget="train.steps=$STEPS" ;;
    seconds) budget="train.steps=null train.seconds=$SECONDS_EACH" ;;
  esac
  if [ -z "${RESUME:-}" ] || [ ! -e "out/$name/report.html" ]; then
    # shellcheck disable=SC2086
    .venv/bin/latentwire run recipes/stage1.yaml name="$name" data.eval_limit="$EVAL" \
      method.compression="$2" objective="{weights: {$4}, balance: $5}" $budget train.batch_examples=4 \
      train.micro_examples=4 eval.scopes='[prompt]' \
      eval.rungs="[no context, full text, raw embeddings, trained]" $lender $overrides "${RESUME:---force}"
  fi
  lender="--baselines out/$name"
}

for kind in steps seconds; do
  for compression in 8 32; do
    folders=""
    for one in reconstruct fisher prompt_lm answer_ce answer_kl on_policy_kl; do
      point "$kind" "$compression" "$one" "$one: 1.0" shares
    done
    for other in prompt_lm answer_ce answer_kl on_policy_kl; do
      point "$kind" "$compression" "reconstruct-$other" "reconstruct: 0.5, $other: 0.5" shares
    done
    point "$kind" "$compression" fisher-answer_kl "fisher: 0.5, answer_kl: 0.5" shares
    point "$kind" "$compression" answer_kl-on_policy_kl "answer_kl: 0.5, on_policy_kl: 0.5" shares
    point "$kind" "$compression" fault "mse: 1.0, prompt_answer_ce: 1.0" plain
    # shellcheck disable=SC2086
    .venv/bin/python runs/collect.py $folders --variant "objectives-equal-$kind-${compression}x" --paired \
      --command "DATA=<folder> STEPS=$STEPS SECONDS_EACH=$SECONDS_EACH EVAL=$EVAL runs/objectives.sh $overrides"
  done
done
