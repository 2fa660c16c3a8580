#!/bin/sh
# The objective study: DATA=<folder> runs/objectives.sh. Every objective alone, the sensible pairs and an earlier
# attempt's fault (plain MSE + CE 1:1, labels over prompt and answer), at COMPRESSIONS 8x and 32x, in three KINDS:
#   seconds  each from the PCA inverse, for the same SECONDS_EACH
#   after    from the decoder that `reconstruct` made in `seconds` (run that first), for as long again: those alone that need
#            no metric of their own, and `reconstruct` with `answer_kl`
#   steps    each from the PCA inverse, for the same STEPS
# A step is 4 prompts; where only embeddings are compared, 8,192 tokens and twice as many rows of the vocabulary as there are
# distinct ones; `reconstruct-prompts` gets the tokens of 4 prompts and nothing else. EVAL questions of XQuAD English, on
# which nothing was chosen; the learning rates (the recipe's 1e-2, and RATE_AFTER) are those that runs/rates.sh found best.
# `after` is evaluated in scope `context` too, where no decoded template can help. The rungs of text are measured once, and
# again after a commit. 68 runs, some 4 hours on 2 cores. Goes on where it was stopped with RESUME=--resume. Further
# arguments are overrides of every run.
set -eu
cd "$(dirname "$0")/.."
: "${DATA:?set DATA to the folder with the SQuAD-format files}"
STEPS=${STEPS:-30}
SECONDS_EACH=${SECONDS_EACH:-120}
EVAL=${EVAL:-100}
PROMPT_TOKENS=1360 # of 4 prompts, on average
RATE_AFTER=3e-3
RATE_AFTER_ON_POLICY=1e-3
overrides="$*"
lender=""

point() { # kind compression name weights balance [override]
  name="objectives-$1-$2x/$3"
  folders="$folders out/$name"
  scopes='[prompt]'
  case $1 in
    steps) budget="train.steps=$STEPS" ;;
    seconds) budget="train.steps=null train.seconds=$SECONDS_EACH" ;;
    after)
      budget="train.steps=null train.seconds=$SECONDS_EACH train.lr=$RATE_AFTER"
      [ "$3" != on_policy_kl ] || budget="$budget train.lr=$RATE_AFTER_ON_POLICY"
      budget="$budget train.start_from=out/objectives-seconds-$2x/reconstruct"
      scopes='[prompt,context]'
      ;;
  esac
  if [ -z "${RESUME:-}" ] || [ ! -e "out/$name/report.html" ]; then
    # shellcheck disable=SC2086
    .venv/bin/latentwire run recipes/stage1.yaml name="$name" data.eval_limit="$EVAL" \
      method.compression="$2" objective="{weights: {$4}, balance: $5}" $budget train.batch_examples=4 \
      train.micro_examples=4 eval.scopes="$scopes" \
      eval.rungs="[no context, full text, raw embeddings, trained]" ${6:-} $lender $overrides "${RESUME:---force}"
  fi
  lender="--baselines out/$name"
}

for kind in ${KINDS:-seconds after steps}; do
  case $kind in
    steps) size="STEPS=$STEPS" ;;
    *) size="SECONDS_EACH=$SECONDS_EACH" ;;
  esac
  for compression in ${COMPRESSIONS:-8 32}; do
    folders=""
    point "$kind" "$compression" reconstruct "reconstruct: 1.0" shares
    if [ "$kind" != after ]; then
      point "$kind" "$compression" reconstruct-prompts "reconstruct: 1.0" shares \
        "train.batch_tokens=$PROMPT_TOKENS train.vocabulary_share=0"
      point "$kind" "$compression" fisher "fisher: 1.0" shares
    fi
    for one in prompt_lm answer_ce answer_kl on_policy_kl; do
      point "$kind" "$compression" "$one" "$one: 1.0" shares
    done
    point "$kind" "$compression" reconstruct-answer_kl "reconstruct: 0.5, answer_kl: 0.5" shares
    if [ "$kind" != after ]; then
      for other in prompt_lm answer_ce on_policy_kl; do
        point "$kind" "$compression" "reconstruct-$other" "reconstruct: 0.5, $other: 0.5" shares
      done
      point "$kind" "$compression" fisher-answer_kl "fisher: 0.5, answer_kl: 0.5" shares
      point "$kind" "$compression" answer_kl-on_policy_kl "answer_kl: 0.5, on_policy_kl: 0.5" shares
      point "$kind" "$compression" fault "mse: 1.0, prompt_answer_ce: 1.0" plain
    fi
    # shellcheck disable=SC2086
    .venv/bin/python runs/collect.py $folders --variant "objectives-$kind-${compression}x" --paired \
      --command "DATA=<folder> KINDS=$kind COMPRESSIONS=$compression $size EVAL=$EVAL runs/objectives.sh $overrides"
  done
done
