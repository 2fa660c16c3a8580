#!/bin/sh
# The server's figures: [PARTS="..."] runs/serving.sh. Parts:
#   load, overload, soak   locust's clients against `latentwire serve` (runs/serving/measure.py); an hour in all on 2 cores
#   openapi                schemathesis against the OpenAPI page: no request ends in a 5xx
#   fuzz                   10 million inputs for the reader of messages
set -eu
cd "$(dirname "$0")/.."
PARTS=${PARTS:-load overload soak openapi fuzz}
TOOLS=out/serving-env

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
    openapi | fuzz)
      .venv/bin/python runs/serving/attack.py "$part" --schemathesis "$TOOLS/bin/schemathesis" --command "$command"
      ;;
    *)
      echo "expected parts of those that runs/serving.sh names in its first lines, got '$part'" >&2
      exit 2
      ;;
  esac
done
