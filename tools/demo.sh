#!/bin/sh
# demo.sh: trains an autoregressive and a masked-diffusion transformer on the same 64 KiB of Python source, and measures
# where their validation losses cross.
#
#   sh tools/demo.sh [OUT]        OUT: where runs land (default: demo); runs that are finished are not done again
#
# Installs what is missing by apt-get (Debian 12), builds into build/, trains three arms, matched: AR, AR with 30 % of its input
# masked, and the DLM; then linear anneals branched from the AR arms near their minimum and from the DLM's end.
# Prints a table, draws the curves, writes OUT/summary.json. What was compared is said at the end; no result is built in.
set -eu
cd "$(dirname "$0")/.."
OUT=${1:-demo}
BUILD=${SN_BUILD:-build}
SHAPE="-D width=128 -D layers=4 -D heads=4 -D hidden=352 -D seq=128 -D batch=8"     # 0.87M weights, 13 per unique byte
TEXT="--unique 64K --val-bytes 32K --test-bytes 32K"
TRAIN="--draws 2 --seed 1 --score-test --set lr=2e-3 --set warmup=100"
EPOCH=64                             # steps: 64 KiB / (8 x 128)
AR_EPOCHS=${SN_DEMO_AR_EPOCHS:-30}
MASK_EPOCHS=${SN_DEMO_MASK_EPOCHS:-26}
DLM_EPOCHS=${SN_DEMO_DLM_EPOCHS:-36}

say() { printf '\n== %s\n' "$*"; }

install_missing() {
    missing=
    for pair in cmake:cmake ninja:ninja-build gcc:gcc ld:binutils gnuplot:gnuplot-nox python3:python3 llvm-config-19:llvm-19-dev; do
        command -v "${pair%%:*}" >/dev/null || missing="$missing ${pair#*:}"
    done
    [ -e /usr/include/xxhash.h ] || missing="$missing libxxhash-dev"
    [ -e /usr/include/jansson.h ] || missing="$missing libjansson-dev"
    [ -e /usr/include/pcre2.h ] || missing="$missing libpcre2-dev"
    [ -z "$missing" ] && return
    say "installing$missing"
    sudo=; [ "$(id -u)" = 0 ] || sudo=sudo
    $sudo apt-get update -qq || true
    for package in $missing; do      # one by one: without gnuplot there is no picture, everything else works
        DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends "$package" >/dev/null ||
            echo "could not install $package" >&2
    done
}

build() {
    say "building"
    cmake -S . -B "$BUILD" -G Ninja -DCMAKE_BUILD_TYPE=Release >/dev/null
    ninja -C "$BUILD" sinter | tail -n 1
}

# Python's standard library: its top-level modules and packages, without its tests and site-packages.
find_text() {
    for dir in /usr/lib/python3.[0-9]*; do
        [ -e "$dir/os.py" ] && break
    done
    [ -e "$dir/os.py" ] || { echo "demo.sh: no Python standard library below /usr/lib: apt-get install python3" >&2; exit 1; }
    FILES=$(find "$dir" -name '*.py' -size +1k -not -path '*/test/*' -not -path '*/tests/*' -not -path '*/dist-packages/*' \
                 -not -path '*/site-packages/*' -not -path '*/__pycache__/*' -not -path '*/_sysconfigdata*' | LC_ALL=C sort)
    say "text: $(echo "$FILES" | wc -l) files of $dir"
}

# arm NAME MODEL EPOCHS [options]: skipped when it has ended; continued when it was cut off
arm() {
    name=$1 model=$2 epochs=$3
    shift 3
    grep -qs '"kind":"end"' "$OUT/$name/log.jsonl" && { echo "$name: done before"; return; }
    say "$name"
    # shellcheck disable=SC2086
    $SINTER train "models/$model.sn" $SHAPE --data $DATA --out "$OUT/$name" --epochs "$epochs" \
        --eval-every $((2 * EPOCH)) --resume $TEXT $TRAIN "$@"
}

# anneal NAME MODEL CKPT EPOCHS: a short linear decay to 0 from a checkpoint
anneal() {
    grep -qs '"kind":"end"' "$OUT/$1/log.jsonl" && { echo "$1: done before"; return; }
    say "$1"
    # shellcheck disable=SC2086
    $SINTER train "models/$2.sn" $SHAPE --data $DATA --out "$OUT/$1" --from "$3" --decay $(($4 * EPOCH)) \
        --eval-every $((2 * EPOCH)) --resume $TEXT $TRAIN
}

install_missing
build
SINTER=$BUILD/sinter
start=$(date +%s)
find_text
mkdir -p "$OUT"
DATA=$FILES
arm ar ar "$AR_EPOCHS"
DATA=$OUT/ar/data                    # every arm reads the same shards
arm ar-mask30 ar "$MASK_EPOCHS" --set input_mask=0.3
arm dlm dlm "$DLM_EPOCHS"
anneal ar.anneal ar "$OUT/ar/best.safetensors" 3
anneal ar-mask30.anneal ar "$OUT/ar-mask30/best.safetensors" 4
anneal dlm.anneal dlm "$OUT/dlm/last.safetensors" 6
say "result"
$SINTER report "$OUT"
echo "$(($(date +%s) - start)) s from the demo's own start"
