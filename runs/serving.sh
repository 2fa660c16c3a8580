#!/bin/sh
# The server's figures: [PARTS="..."] runs/serving.sh. Parts:
#   load, overload, soak   locust's clients against `latentwire serve` (runs/serving/measure.py); an hour in all on 2 cores
#   openapi                schemathesis against the OpenAPI page: no request ends in a 5xx
#   vllm                   the same answers from a real vLLM server, in an environment of its own
#   fuzz                   10 million inputs for the reader of messages, or an hour of them
set -eu
cd "$(dirname "$0")/.."
PARTS=${PARTS:-load overload soak openapi vllm fuzz}
TOOLS=out/serving-env
VLLM=out/vllm-env

if [ ! -e "$TOOLS/.installed" ]; then
  python3 -m venv "$TOOLS"
  "$TOOLS/bin/pip" install --quiet -r runs/serving/requirements.txt
  touch "$TOOLS/.installed"
fi

for part in $PARTS; do
  command="PARTS=$part runs/serving.sh"
  case "$part" in
    load | overload | soak)
      .venv/bin/python runs/serving/measure.py "$part" --locust "$TOOLS/bin/locust" --command "$command"
      ;;
    vllm)
      if [ ! -e "$VLLM/.installed" ]; then
        python3 -m venv "$VLLM"
        "$VLLM/bin/pip" install --quiet -r runs/serving/vllm-requirements.txt
        "$VLLM/bin/pip" uninstall --quiet --yes torchvision torchaudio torchcodec
        touch "$VLLM/.installed"
      fi
      VLLM_PYTHON="$PWD/$VLLM/bin/python" VLLM_RESULT="results/serving/vllm.json" VLLM_COMMAND="$command" \
        .venv/bin/python -m pytest -m vllm tests/test_vllm.py
      ;;
    openapi | fuzz)
      .venv/bin/python runs/serving/attack.py "$part" --schemathesis "$TOOLS/bin/schemathesis" --command "$command"
      ;;
    *)
      echo "expected parts of those that runs/serving.sh names in its first lines, got '$part'" >&2
      exit 2
      ;;
  esac
done
