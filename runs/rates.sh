#!/bin/sh
# Which learning rate each objective of the study learns best with: DATA=<folder> runs/rates.sh. Trained for SECONDS_EACH and
# judged by the answer NLL on articles held out of the training files, never on what a figure is made with. Prints a line a
# run; LOG.md keeps what was chosen. OBJECTIVES, RATES, COMPRESSION and EVAL change what is tried; START is a run to go on from.
set -eu
cd "$(dirname "$0")/.."
: "${DATA:?set DATA to the folder with the SQuAD-format files}"
mkdir -p out
lender=""
for objective in ${OBJECTIVES:-reconstruct prompt_lm answer_ce answer_kl on_policy_kl}; do
  for rate in ${RATES:-1e-3 3e-3 1e-2}; do
    name="rates/${COMPRESSION:-8}x-${START:+after-}$objective-$rate"
    # shellcheck disable=SC2086
    .venv/bin/latentwire run recipes/stage1.yaml name="$name" data.train_split=train data.eval_split=heldout \
      data.train="[{name: squad, path: $DATA/squadshifts_wiki.json}]" data.limit=7000 \
      data.eval="{name: squad, path: $DATA/squadshifts_wiki.json}" data.eval_limit="${EVAL:-100}" \
      ${START:+"train.start_from=$START"} method.compression="${COMPRESSION:-8}" objective="{weights: {$objective: 1.0}}" train.lr="$rate" \
      train.steps=null train.seconds="${SECONDS_EACH:-100}" train.batch_examples=4 train.micro_examples=4 \
      eval.scopes='[prompt]' eval.rungs='[no context, full text, raw embeddings, trained]' $lender --force >out/rates.log 2>&1
    lender="--baselines out/$name"
    .venv/bin/python -c "
import json
rows = [json.loads(line) for line in open('out/$name/rows.jsonl')]
steps = json.load(open('out/$name/provenance.json'))['train_steps']
told = [f'{row[\"rung\"]} NLL {row[\"answer_nll\"]:.3f} F1 {row[\"f1\"]:.3f}' for row in rows[2:]]
print('${START:+after }$objective, learning rate $rate, ${COMPRESSION:-8}x:', steps, 'steps,', ', '.join(told), flush=True)"
  done
done
