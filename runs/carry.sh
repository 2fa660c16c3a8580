#!/bin/sh
# A run whose training is done and whose evaluation is not, as one small file that goes to another machine and on there:
# DATA=<folder> runs/carry.sh pack NAME | unpack NAME. What resumes in out/NAME needs no checkpoint and no stages of the wire;
# without those its learning curve holds the end alone. Its weights are those of the published wire, which is in the file.
# Learned queries, too large to go along, are trained again. PARTS=... RESUME=--resume runs/wire.sh then goes on.
set -eu
cd "$(dirname "$0")/.."
: "${DATA:?set DATA to the folder with the SQuAD-format files}"
name=$2 packed=runs/carried/$2.tar.xz
case $1 in
  pack)
    copy=$(mktemp -d)
    trap 'rm -rf "$copy"' EXIT
    mkdir -p "$copy/$name" "$(dirname "$packed")"
    (cd "out/$name" && tar c --exclude=checkpoint.pt --exclude='./stage-*' --exclude='./tuned/learned-queries*' --exclude=./weights.safetensors --exclude=.lock .) | tar x -C "$copy/$name"
    find "$copy" -name recipe.yaml -exec sed -i "s|$DATA/|\$DATA/|" {} +
    tar cJf "$packed" -C "$copy" "$name"
    ;;
  unpack)
    mkdir -p out
    tar xJf "$packed" -C out
    find "out/$name" -name recipe.yaml -exec sed -i "s|\$DATA/|$DATA/|" {} +
    .venv/bin/python -c "
from pathlib import Path
from safetensors.torch import save_file
from latentwire.wire_folder import read_wire
save_file(dict(read_wire(Path('out/$name/wire')).tensors), 'out/$name/weights.safetensors')"
    ;;
  *)
    echo "expected pack or unpack, got '$1'" >&2
    exit 2
    ;;
esac
