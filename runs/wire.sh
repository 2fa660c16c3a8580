#!/bin/sh
# The wire's figures: DATA=<folder> [PARTS="..."] runs/wire.sh. A part goes on where it was stopped with RESUME=--resume. Parts:
#   pretrain-facts, pretrain-real   wires/facts, which ships, and from it wires/real: PRETRAIN steps of 8 questions with both readers (on
#                                   Wikipedia alone), some for another adapter for Gemma alone, then more with both (on reddit too)
#   pretrain-light                  wires/light, which ships: as many steps from nothing, with an encoder that stops after its first layer
#   llmlingua-facts, llmlingua-real the contexts of the next two as LLMLingua shortens them, in an environment of its own
#   facts, real                     the whole ladder: STEPS more of 8 questions from those wires, tuned rungs trained as long;
#                                   LLMLingua's rungs only where the part before ran
#   light                           wires/light as the part facts takes wires/facts, without tuned rungs, and the two beside each other
#   dedicated                       one wire for both readers, for each alone, and each attached to the other's: ALONE steps a reader
#   hotpotqa                        the wire of the part real, as trained there, on contexts of some 1,300 tokens, as they come
#   codecs                          what fp32, int8, int4 and learnt codes cost wires/facts and wires/real, whose readers compute in bfloat16 or float32
#   demo                            recipes/wire_demo.yaml
set -eu
cd "$(dirname "$0")/.."
PARTS=${PARTS:-pretrain-facts pretrain-real pretrain-light llmlingua-facts llmlingua-real facts real light dedicated hotpotqa demo}
PRETRAIN=${PRETRAIN:-1800}
STEPS=${STEPS:-100}
ALONE=${ALONE:-200}
case "$PARTS" in *real* | *llmlingua* | *hotpotqa*) : "${DATA:?set DATA to the folder with the SQuAD-format files}" ;; esac
FEW='[no context, full text, raw embeddings, wire 4x, wire 8x, wire 16x, "wire 4x, shuffled"]'
LONG='[no context, full text, raw embeddings, "no context, tuned", "full text, tuned", wire 4x, wire 8x, wire 16x, "wire 4x, shuffled"]'
BRIEF='[no context, full text, raw embeddings, wire 4x, wire 8x, "wire 4x, shuffled"]'
BARE='[no context, full text, raw embeddings, wire 4x, "wire 4x, shuffled", "wire 4x, zero"]'
ONE='[no context, full text, raw embeddings, wire 4x]'
WIKI="data.train=[{name: squad, path: ${DATA:-}/squadshifts_wiki.json}]"
LIGHT='method.layers=[0, 1]'
GEMMA='{name: gemma-3-270m, style: plain, shots: 2}'

wire() { # name, then what latentwire takes
  name=$1
  shift
  if [ -z "${RESUME:-}" ] || [ ! -e "out/$name/report.html" ]; then
    .venv/bin/latentwire run "$@" name="$name" "${RESUME:---force}"
  fi
}

attach() { # wire, reader, name, then what is changed: an adapter of its own for the reader, trained on latents that no longer change
  wire=$1 reader=$2 name=$3
  shift 3
  if [ -z "${RESUME:-}" ] || [ ! -e "out/$name/report.html" ]; then
    .venv/bin/latentwire attach "$wire" --reader "$reader" name="$name" "$@" "${RESUME:---force}"
  fi
}

ship() { # a run's wire, for those who do not train
  rm -rf "wires/$1"
  mkdir -p wires
  cp -r "out/wires/$1/wire" "wires/$1"
  sed -i "s|${DATA:-[$]DATA}/|\$DATA/|" "wires/$1/recipe.yaml"
}

collect() { # run, variant, then further arguments
  run=$1 variant=$2
  shift 2
  .venv/bin/python runs/collect.py "out/$run" --variant "$variant" "$@" \
    --command "DATA=<folder> PARTS=$part runs/wire.sh"
}

further() { # wire, steps: training goes on from it
  echo "train.start_from=$1 train.steps=$2 train.batch_examples=8 train.micro_examples=4"
}

ladder() { # facts or real: the recipe and what is changed in it
  case $1 in
    facts) echo "recipes/wire_facts.yaml train.start_from=wires/facts data.seed=1 data.eval_limit=100 eval.max_new_tokens=16" ;;
    real) echo "recipes/wire.yaml train.start_from=wires/real data.seed=1" ;;
  esac
  echo "data.limit=$((STEPS * 8)) train.steps=$STEPS train.batch_examples=8 train.micro_examples=8 train.lr=1.0e-4"
}

shorten() { # facts or real: LLMLingua on the contexts that it trains and is evaluated on
  # shellcheck disable=SC2046
  .venv/bin/python runs/contexts.py $(ladder "$1") >"out/contexts-$1.jsonl"
  out/llmlingua-env/bin/python runs/llmlingua/compress.py "$(converted)" "out/contexts-$1.jsonl" 4 >"out/llmlingua-$1.partial"
  mv "out/llmlingua-$1.partial" "out/llmlingua-$1.jsonl"
}

converted() { # the folder of the packaged reader
  .venv/bin/python -c 'from latentwire.reader.load import load_model; print(load_model("smollm2-135m").model.name_or_path)'
}

lingua() { # facts or real: further rungs for eval.rungs, where the text is there
  of="{name: rewritten, path: out/llmlingua-$1.jsonl}"
  if [ -e "out/llmlingua-$1.jsonl" ]; then
    echo "{name: LLMLingua 4x, of: $of}, {name: 'LLMLingua 4x, tuned', of: {name: tuned, task_tokens: 8, of: $of}}"
  fi
}

versus() { # variant, margin, tested runs, then reference runs
  # shellcheck disable=SC2086
  .venv/bin/python runs/versus.py $3 --reference $4 --margin "$2" --variant "$1" --command "PARTS=$part runs/wire.sh"
}

for part in $PARTS; do
  case "$part" in
    pretrain-facts)
      short='data.eval_limit=100 eval.max_new_tokens=16 verdict.measure=f1'
      # shellcheck disable=SC2086
      wire wires/facts-first recipes/wire_facts.yaml data.limit=$((PRETRAIN * 8)) train.steps="$PRETRAIN" train.batch_examples=8 $short eval.rungs="$BRIEF"
      collect wires/facts-first pretrain-first
      attach out/wires/facts-first/wire gemma-3-270m wires/facts-first-gemma train.steps=400 eval.rungs="$BRIEF"
      collect wires/facts-first-gemma pretrain-anew
      # shellcheck disable=SC2046,SC2086
      wire wires/facts recipes/wire_facts.yaml $(further out/wires/facts-first/wire 600) data.limit=4800 data.seed=3 $short eval.rungs="$BRIEF"
      collect wires/facts pretrain
      ship facts
      ;;
    pretrain-light)
      short='data.eval_limit=100 eval.max_new_tokens=16 verdict.measure=f1'
      # shellcheck disable=SC2086
      wire wires/light recipes/wire_facts.yaml "$LIGHT" data.limit=$((PRETRAIN * 8)) train.steps="$PRETRAIN" train.batch_examples=8 $short eval.rungs="$BRIEF"
      collect wires/light pretrain-light
      ship light
      ;;
    pretrain-real)
      # shellcheck disable=SC2046
      wire wires/wiki recipes/wire.yaml "$WIKI" $(further wires/facts "$PRETRAIN") data.eval_limit=200 eval.rungs="$FEW"
      collect wires/wiki pretrain-wiki
      attach out/wires/wiki/wire gemma-3-270m wires/wiki-gemma train.steps=120 eval.rungs="$FEW"
      # shellcheck disable=SC2046
      wire wires/real recipes/wire.yaml $(further out/wires/wiki/wire 1500) data.eval_limit=200 eval.rungs="$FEW"
      collect wires/real pretrain
      ship real
      ;;
    llmlingua-facts | llmlingua-real)
      if [ ! -e out/llmlingua-env/.installed ]; then
        python3 -m venv out/llmlingua-env
        out/llmlingua-env/bin/pip install --quiet -r runs/llmlingua/requirements.txt
        touch out/llmlingua-env/.installed
      fi
      shorten "${part#llmlingua-}"
      ;;
    facts)
      # shellcheck disable=SC2046
      wire wire-facts $(ladder facts) eval.rungs="[$(lingua facts)]"
      collect wire-facts ladder --target "wire 4x=0.90"
      ;;
    light)
      # shellcheck disable=SC2046
      wire wire-light $(ladder facts) train.start_from=wires/light "$LIGHT" eval.rungs="$BRIEF" verdict.measure=f1
      collect wire-light light
      # shellcheck disable=SC2046
      wire wire-whole $(ladder facts) eval.rungs="$ONE" verdict.measure=f1 --baselines out/wire-light
      versus light-against-whole 0.02 out/wire-light out/wire-whole
      ;;
    real)
      # shellcheck disable=SC2046
      wire wire $(ladder real) eval.rungs="[$(lingua real)]"
      collect wire ladder --target "wire 4x=0.60" --target "wire 8x=0.45"
      if [ -e out/wires/real ]; then # the curve of its pretraining, as shares of the gap
        part='"pretrain-real real"' && collect wires/real pretrain --gap out/wire
      fi
      ;;
    dedicated)
      # shellcheck disable=SC2086
      alone="data.limit=$((ALONE * 16)) data.eval_limit=600 eval.max_new_tokens=16 train.batch_examples=8 train.micro_examples=8 verdict.measure=f1"
      wire shared recipes/wire_facts.yaml $alone train.steps=$((2 * ALONE)) eval.rungs="$BARE"
      wire smollm2-alone recipes/wire_facts.yaml $alone train.steps="$ALONE" further_readers='[]' eval.rungs="$ONE" --baselines out/shared
      wire gemma-alone recipes/wire_facts.yaml $alone train.steps="$ALONE" further_readers='[]' eval.rungs="$ONE" --baselines out/shared \
        reader="$GEMMA" method.encoder=smollm2-135m
      if [ -z "${RESUME:-}" ] || [ ! -e out/joined ]; then # copies, since attaching adds to a wire
        rm -rf out/joined out/joined.partial && mkdir out/joined.partial
        cp -r out/smollm2-alone/wire out/joined.partial/smollm2 && cp -r out/gemma-alone/wire out/joined.partial/gemma
        mv out/joined.partial out/joined
      fi
      attach out/joined/smollm2 gemma-3-270m gemma-attached eval.rungs="$ONE"
      attach out/joined/gemma smollm2-135m smollm2-attached eval.rungs="$ONE"
      versus shared-against-dedicated 0.02 out/shared "out/smollm2-alone out/gemma-alone"
      versus joined-against-dedicated 0.02 "out/gemma-attached out/smollm2-attached" "out/smollm2-alone out/gemma-alone"
      versus attached-against-joint 0.05 "out/gemma-attached out/smollm2-attached" out/shared
      ;;
    hotpotqa)
      if [ -z "${RESUME:-}" ] || [ ! -e out/wire-hotpotqa ]; then
        rm -rf out/wire-hotpotqa && cp -r out/wire out/wire-hotpotqa # the same training, other questions
        rm -rf out/wire-hotpotqa/ladder*.jsonl out/wire-hotpotqa/stage-* out/wire-hotpotqa/tuned/*/stage-* # the curve is the part real's
      fi
      # shellcheck disable=SC2046
      .venv/bin/latentwire eval $(ladder real) name=wire-hotpotqa eval.rungs="$LONG" --force \
        data.eval="{name: hotpotqa, path: $DATA/hotpotqa_distractor_sample.json}"
      .venv/bin/latentwire report out/wire-hotpotqa
      collect wire-hotpotqa hotpotqa
      ;;
    codecs)
      for shipped in facts real; do
        case $shipped in
          facts) set -- recipes/wire_facts.yaml data.limit=3200 ;;
          real) set -- recipes/wire.yaml "$WIKI" data.limit=400 ;;
        esac
        for dtype in auto float32; do
          .venv/bin/python runs/codecs.py "wires/$shipped" "$@" --readers smollm2-135m gemma-3-270m --questions 100 --dtype $dtype \
            --command "DATA=<folder> PARTS=codecs runs/wire.sh"
        done
      done
      ;;
    demo)
      wire wire-demo recipes/wire_demo.yaml
      collect wire-demo demo
      ;;
    *)
      echo "expected parts of those that runs/wire.sh names in its first lines, got '$part'" >&2
      exit 2
      ;;
  esac
done
