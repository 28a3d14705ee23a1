#!/bin/sh
# run.sh: every test of the project. The last line is `N passed, N failed`; exit status 0 when nothing failed.
#
#   sh tests/run.sh                       SN_LONG=1: long forms (more fuzzing, golden files made anew where PyTorch is installed)
#   SN_ONLY='resume fuzz' sh tests/run.sh     only these parts; PARTS at the end names all
#
# Installs what is missing by apt-get, builds a Release build (build/) and one of the readers under ASan and UBSan
# (build/asan), then runs: unit tests, text tests, both arms against PyTorch's golden files, resume and kill -9 to the same bits,
# matmul against a naive product, OpenCL where there is a device, mutation fuzz. What cannot run is skipped with its reason.
set -u
cd "$(dirname "$0")/.."
ROOT=$PWD
BUILD=${SN_BUILD:-$ROOT/build}          # where to build
SINTER=$BUILD/sinter
WORK=$(mktemp -d "${TMPDIR:-/tmp}/sinter-tests.XXXXXX")
trap 'rm -rf "$WORK"' EXIT
LONG=${SN_LONG:-0}
TINY="-D vocab=37 -D width=32 -D layers=2 -D heads=2 -D hidden=64 -D seq=16 -D batch=3"
passed=0 failed=0

pass() { passed=$((passed + 1)); echo "ok      $*"; }
fail() { failed=$((failed + 1)); echo "FAILED  $*"; }
skip() { echo "skipped $*"; }
finish() { echo "$passed passed, $failed failed"; [ "$failed" = 0 ]; exit $?; }

# check NAME COMMAND...: passes when the command does; shows its output when not
check() {
    name=$1
    shift
    if "$@" >"$WORK/out" 2>&1; then pass "$name"; else fail "$name"; tail -n 20 "$WORK/out"; fi
}

# counted NAME COMMAND...: adds the numbers of the command's last line, `N passed, N failed`
counted() {
    name=$1
    shift
    "$@" >"$WORK/out" 2>&1
    rc=$?
    p=$(sed -n 's/^\([0-9]*\) passed, \([0-9]*\) failed.*/\1/p' "$WORK/out" | tail -n 1)
    f=$(sed -n 's/^\([0-9]*\) passed, \([0-9]*\) failed.*/\2/p' "$WORK/out" | tail -n 1)
    grep -i '^skipped' "$WORK/out"
    if [ -z "$p" ]; then fail "$name: it died (exit status $rc)"; tail -n 20 "$WORK/out"; return; fi
    passed=$((passed + p)) failed=$((failed + f))
    if [ "$p" = 0 ] && [ "$f" = 0 ] && ! grep -qi '^skipped' "$WORK/out"; then fail "$name: no test ran"; return; fi
    [ "$f" = 0 ] && [ "$rc" = 0 ] && echo "ok      $name: $p" && return
    [ "$f" = 0 ] && failed=$((failed + 1))
    echo "FAILED  $name: $p passed, $f failed (exit status $rc)"
    tail -n 40 "$WORK/out"
}

install_missing() {
    missing=
    for pair in cmake:cmake ninja:ninja-build gcc:gcc ld:binutils llvm-config-19:llvm-19-dev; do
        command -v "${pair%%:*}" >/dev/null || missing="$missing ${pair#*:}"
    done
    [ -e /usr/include/xxhash.h ] || missing="$missing libxxhash-dev"
    [ -e /usr/include/jansson.h ] || missing="$missing libjansson-dev"
    [ -e /usr/include/pcre2.h ] || missing="$missing libpcre2-dev"
    [ -z "$missing" ] && return
    sudo=; [ "$(id -u)" = 0 ] || sudo=sudo
    echo "installing$missing"
    $sudo apt-get update -qq
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends $missing >/dev/null
}

# What tests of OpenCL run on; without it they are skipped.
install_opencl() {
    missing=
    [ -e /etc/OpenCL/vendors/pocl.icd ] || missing="$missing ocl-icd-libopencl1 pocl-opencl-icd"
    command -v oclgrind >/dev/null || missing="$missing oclgrind"
    [ -z "$missing" ] && return
    sudo=; [ "$(id -u)" = 0 ] || sudo=sudo
    echo "installing$missing"
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends $missing >/dev/null 2>&1 ||
        echo "could not install$missing"
}

# build FOLDER TARGETS [cmake options]
build() {
    folder=$1 targets=$2
    shift 2
    cmake -S . -B "$folder" -G Ninja "$@" >"$WORK/cmake" 2>&1 || { cat "$WORK/cmake"; return 1; }
    # shellcheck disable=SC2086
    ninja -C "$folder" $targets >"$WORK/ninja" 2>&1 || { grep -E 'error|FAILED|warning' "$WORK/ninja" | head -n 30; return 1; }
}

# Every unit test, and tile programs as thread blocks, without and with warps (by the interpreter of GPU kernel IR): as many at a time as there are
# cores, the long ones first; their results in this order.
unit_tests() {
    {
        echo "unit_tile:ptx $BUILD/unit_tile 2 ptx:sm_80"
        echo "unit_tile:opencl:gpu $BUILD/unit_tile 1 opencl:gpu"
        echo "unit_attention:bf16 $BUILD/unit_attention --autocast bf16"
        [ "$LONG" = 1 ] && echo "unit_tile:ptx:tf32 $BUILD/unit_tile 3 ptx:sm_80:tf32"
        for source in tests/unit_*.c; do
            name=$(basename "$source" .c)
            echo "$name $BUILD/$name"
        done
    } >"$WORK/list"
    together
}
# The commands of $WORK/list, a name before each, as many at a time as there are cores, each with a TMPDIR of its own.
side_by_side() {
    mkdir -p "$WORK/together"
    # shellcheck disable=SC2016
    xargs -P "$(nproc)" -L 1 sh -c 'name=$1; shift; mkdir -p "$0/$name"; TMPDIR="$0/$name" "$@" >"$0/$name.out" 2>&1; echo $? >"$0/$name.rc"' "$WORK/together" <"$WORK/list"
}
# The same, and their counts in the list's order.
together() {
    side_by_side
    while read -r name rest; do counted "$name" replay "$name"; done <"$WORK/list"
}
replay() { cat "$WORK/together/$1.out"; return "$(cat "$WORK/together/$1.rc")"; }

# golden FOLDER: loss and every gradient of both arms on the weights, batch and mask of a PyTorch run; with each fusion left out, too.
golden() {
    for arm in ar dlm; do
        for how in "--fuse all" "--fuse none" $(each_fusion) "--device eval"; do
            # shellcheck disable=SC2086
            if "$SINTER" run "models/$arm.sn" $TINY --graph train --grad $how --in "$1/$arm.in.safetensors" --out "$WORK/$arm.safetensors" >"$WORK/out" 2>&1; then
                check "golden $arm, $how: loss 1e-5, gradients 1e-4" "$BUILD/tool_compare" "$1/$arm.want.safetensors" "$WORK/$arm.safetensors" 1e-5 1e-4
            else
                fail "golden $arm, $how: sinter run"; tail -n 5 "$WORK/out"
            fi
        done
    done
}

# The other arms on small models: by the same comparison, fused, unfused and evaluated.
golden_arm() {
    model=$1 gold=$2
    shift 2
    for how in "--fuse all" "--fuse none" "--device eval"; do
        # shellcheck disable=SC2086
        if "$SINTER" run "models/$model.sn" $SMALLEST "$@" --graph train --grad $how --in "tests/golden/$gold.in.safetensors" --out "$WORK/arm.safetensors" >"$WORK/out" 2>&1; then
            check "golden $gold, $how: loss 1e-5, gradients 1e-4" "$BUILD/tool_compare" "tests/golden/$gold.want.safetensors" "$WORK/arm.safetensors" 1e-5 1e-4
        else
            fail "golden $gold, $how: sinter run"; tail -n 5 "$WORK/out"
        fi
    done
}
SMALLEST="-D vocab=19 -D width=16 -D layers=2 -D heads=2 -D hidden=24 -D seq=12 -D batch=2"
golden_arms() {
    golden_arm block_diffusion block_diffusion -D block_size=4
    golden_arm ar moe_tokens -D experts=4 -D capacity=1.0
    golden_arm dlm moe_experts -D experts=4 -D route=experts -D shared_hidden=24
}

# --fuse=-NAME for every fusion that --help lists
each_fusion() { "$SINTER" run --help | sed -n 's/^ \{25,\}\([a-z_]*\) .*/--fuse=-\1/p'; }

# The long form makes the files anew.
golden_anew() {
    [ "$LONG" = 1 ] || { skip "golden files made anew: only with SN_LONG=1"; return; }
    python3 -c 'import torch' 2>/dev/null || { skip "golden files made anew: no PyTorch here (python3-torch)"; return; }
    cp -r tests/golden "$WORK/golden"
    if sh "$WORK/golden/make.sh" >"$WORK/out" 2>&1; then golden "$WORK/golden"; else fail "golden files made anew"; tail -n 5 "$WORK/out"; fi
}

# train OUT STEPS [options]: a tiny run on the project's own sources
train() {
    out=$1 steps=$2
    shift 2
    # shellcheck disable=SC2086
    ${EXEC:-} "$SINTER" train models/dlm.sn $SMALL --data graph passes --unique 32K --val-bytes 8K --draws 1 --out "$WORK/$out" --steps "$steps" \
        --eval-every 4 --set dropout=0.1 --set warmup=4 -q "$@"
}
EXPERTS="-D experts=4 -D capacity=1.0 -D layers=1"
SMALL="-D width=32 -D layers=2 -D heads=2 -D hidden=64 -D seq=32 -D batch=4"

resume() {
    train whole 12 >"$WORK/out" 2>&1 || { fail "train 12 steps"; tail -n 5 "$WORK/out"; return; }
    pass "train 12 steps"
    train half 6 >"$WORK/out" 2>&1 && train half 12 --resume >"$WORK/out" 2>&1
    check "resume after 6 steps: the same bits" "$BUILD/tool_compare" "$WORK/whole/last.safetensors" "$WORK/half/last.safetensors" exact
    train one 12 --threads 1 >"$WORK/out" 2>&1
    check "one thread: the same bits" "$BUILD/tool_compare" "$WORK/whole/last.safetensors" "$WORK/one/last.safetensors" exact
    rows="-D documents=mask -D cut_rows=0.3 --views 2"
    # shellcheck disable=SC2086
    { train rows.whole 12 $rows && train rows.half 6 $rows && train rows.half 12 $rows --resume --threads 1; } >"$WORK/out" 2>&1
    check "documents, cut rows, two views: resumed on one thread, the same bits" "$BUILD/tool_compare" "$WORK/rows.whole/last.safetensors" "$WORK/rows.half/last.safetensors" exact
    train rows.half 13 -D documents=mask -D cut_rows=0.3 --resume >"$WORK/other" 2>&1
    check "no run goes on with other views" grep -q 'trained with --views 2, not 0' "$WORK/other"
    # Fine-tuning from the weights of a run on text; the copies of a character are learnt.
    awk 'BEGIN { for (i = 0; i < 300; i++) printf "{\"prompt\": \"%c%d:\", \"completion\": \"%c%c%c\"}\n", 97 + i % 26, i, 97 + i % 26, 97 + i % 26, 97 + i % 26 }' >"$WORK/sft.jsonl"
    train base 8 -D vocab=258 --eod >"$WORK/out" 2>&1 || { fail "train with --eod"; tail -n 5 "$WORK/out"; }
    for arm in ar dlm; do
        # shellcheck disable=SC2086
        tune() { out=$1; shift; "$SINTER" train models/$arm.sn $SMALL -D vocab=258 -D loss_on=answer --data "$WORK/sft.jsonl" --val-bytes 200 --init "$WORK/base/last.safetensors" --out "$WORK/$out" -q --set warmup=4 --set lr=3e-3 "$@"; }
        { tune tuned.$arm --steps 320 && tune tuned.half --steps 160 && tune tuned.half --steps 320 --resume --threads 1; } >"$WORK/out" 2>&1
        check "fine-tuning, $arm: resumed on one thread, the same bits" "$BUILD/tool_compare" "$WORK/tuned.$arm/last.safetensors" "$WORK/tuned.half/last.safetensors" exact
        check "fine-tuning, $arm: the loss of answers falls below 1" awk -F'"val":' '/"kind":"val"/ { split($2, v, ","); last = v[1] } END { exit !(last < 1) }' "$WORK/tuned.$arm/log.jsonl"
        rm -rf "$WORK/tuned.half"
    done
    # shellcheck disable=SC2086
    "$SINTER" train models/dlm.sn $SMALL --data "$WORK/sft.jsonl" --val-bytes 200 --steps 1 --out "$WORK/plain" >"$WORK/other" 2>&1
    check "the mask must not stand in the text" grep -q "set -D vocab=258" "$WORK/other"
    train ema.whole 6 -D ema=0.9 >"$WORK/out" 2>&1
    train ema.half 3 -D ema=0.9 >"$WORK/out" 2>&1 && train ema.half 6 -D ema=0.9 --resume >"$WORK/out" 2>&1
    check "averaged weights, resumed: the same bits" "$BUILD/tool_compare" "$WORK/ema.whole/last.safetensors" "$WORK/ema.half/last.safetensors" exact
    averages
    # Four rows twice are eight rows once: the same windows, the same masks, the loss normalised over all of them.
    train accum 6 --accum 2 --set dropout=0 >"$WORK/out" 2>&1
    train rows 6 -D batch=8 --set dropout=0 >"$WORK/out" 2>&1
    check "two micro-batches are one batch" "$BUILD/tool_compare" "$WORK/rows/last.safetensors" "$WORK/accum/last.safetensors" all 2e-3
}

# The log's val_ema is what eval --ema computes, and not what eval does.
averages() {
    logged=$(sed -n 's/.*"val_ema":\([0-9.]*\).*/\1/p' "$WORK/ema.whole/log.jsonl" | tail -n 1)
    for how in --ema ""; do
        # shellcheck disable=SC2086
        "$SINTER" eval models/dlm.sn $how --ckpt "$WORK/ema.whole/last.safetensors" --data "$WORK/ema.whole/data/val.safetensors" --draws 1 --json >"$WORK/out" 2>&1
        same=no
        grep -q "$(printf %.6s "$logged")" "$WORK/out" && same=yes
        case $how$same in --emayes | no) pass "eval $how: val_ema of the log: $same" ;; *) fail "eval $how: val_ema of the log, $logged: $same"; cat "$WORK/out" ;; esac
    done
    one_line "eval --ema: no averages" "$SINTER" eval models/dlm.sn --ema --ckpt "$WORK/whole/last.safetensors" --data "$WORK/whole/data/val.safetensors"
}

# kill -9 after a random time, again and again (fifty times in the long form), mostly in the middle of training, some while it starts or
# writes; those that struck a run past its start and before its end count. In the end every bit is as without.
kill_and_resume() {
    steps=1600 kills=4
    [ "$LONG" = 1 ] && steps=22000 kills=50
    began=$(date +%s%N)
    train calm $steps --eval-every 20 >"$WORK/out" 2>&1 || { fail "train $steps steps"; tail -n 5 "$WORK/out"; return; }
    took=$((($(date +%s%N) - began) / 1000000))          # a run's length sets the delays: all kills fall into one run, on any machine
    struck=0 tries=0 where= same=0
    while [ $struck -lt $kills ] && [ $tries -lt $((4 * kills)) ]; do
        tries=$((tries + 1))
        (EXEC=exec; train killed $steps --eval-every 20 --resume >"$WORK/out" 2>&1) &
        pid=$!
        sleep "$(od -An -N2 -tu2 /dev/urandom | awk -v ms=$took -v kills=$kills '{ printf "%.3f", 0.15 + $1 / 65536 * ms / 1000 / kills }')"
        kill -9 $pid 2>/dev/null
        wait $pid 2>/dev/null
        if [ $? != 137 ]; then                            # it got to its end: its bits count, and another run begins
            "$BUILD/tool_compare" "$WORK/calm/last.safetensors" "$WORK/killed/last.safetensors" exact >/dev/null 2>&1 || same=1
            rm -rf "$WORK/killed"
            continue
        fi
        step=$(last_step)
        [ "$step" -gt 0 ] && [ "$step" -lt $steps ] && struck=$((struck + 1)) where="$where $step"
    done
    train killed $steps --eval-every 20 --resume >"$WORK/out" 2>&1
    check "killed $struck times, in step$where of $steps or just after" test $struck -ge $kills
    "$BUILD/tool_compare" "$WORK/calm/last.safetensors" "$WORK/killed/last.safetensors" exact >"$WORK/out" 2>&1 || same=1
    check "killed $struck times, resumed: the same bits" test $same = 0
}
last_step() {
    step=$(tail -n 1 "$WORK/killed/log.jsonl" 2>/dev/null | sed -n 's/.*"step":\([0-9]*\).*/\1/p')
    echo "${step:-0}"
}

command_line() {
    check "sinter --help" "$SINTER" --help
    for command in print check ops plan run train eval generate bench report devices test; do
        check "sinter $command --help" "$SINTER" $command --help
        "$SINTER" $command --no-such-option >/dev/null 2>&1
        if [ $? = 2 ]; then pass "sinter $command: wrong usage is exit status 2"; else fail "sinter $command: wrong usage is exit status 2"; fi
    done
    "$SINTER" print no-such-file.sn >"$WORK/out" 2>&1
    if [ $? = 1 ] && [ "$(wc -l <"$WORK/out")" = 1 ]; then pass "a missing file is one line"; else fail "a missing file is one line"; cat "$WORK/out"; fi
    for model in ar dlm; do
        # shellcheck disable=SC2086
        "$SINTER" print models/$model.sn $SMALL -g train >"$WORK/a.sn" 2>"$WORK/out"
        "$SINTER" print "$WORK/a.sn" >"$WORK/b.sn" 2>>"$WORK/out"
        check "print $model, parse, print: the same" cmp "$WORK/a.sn" "$WORK/b.sn"
        # shellcheck disable=SC2086
        check "sinter check $model" "$SINTER" check models/$model.sn $TINY
    done
}

# A mixture of experts trains: with two micro-batches as with one, on one thread to the same bits; the log has its balance and what was lost.
experts() {
    for route in tokens experts; do
        moe="-D experts=4 -D route=$route -D hidden=24 -D capacity=1.0 --set aux_loss=0.02"
        # shellcheck disable=SC2086
        train moe 8 $moe >"$WORK/out" 2>&1
        # shellcheck disable=SC2086
        check "experts, route=$route: one thread" train moe.one 8 $moe --threads 1
        check "experts, route=$route: the same bits" "$BUILD/tool_compare" "$WORK/moe/last.safetensors" "$WORK/moe.one/last.safetensors" exact
        check "experts, route=$route: the log has the lost share" grep -q '"outputs":{"balance":[0-9.]*,"lost":0[.0-9]*}' "$WORK/moe/log.jsonl"
        check "experts, route=$route: weights that a token uses" grep -q '"active_weights": 34336,' "$WORK/moe/config.json"
        check "experts, route=$route: eval, a route of its checkpoint" "$SINTER" eval models/dlm.sn --ckpt "$WORK/moe/last.safetensors" --data "$WORK/moe/data/val.safetensors" --draws 1
        rm -rf "$WORK/moe" "$WORK/moe.one"
    done
    for bad in experts.gate_over=best experts.route_over=rows experts.route=token experts.capacity=0 noise.noise_schedule=cos rows.cut_rows=2 transformer.ema=1 transformer.dropout=1; do
        option=${bad#*.}
        refused "${bad%%.*}.sn:.*${option%%=*}" print models/dlm.sn -D loss_form=elbo -D "$option"
    done
    refused 'block_diffusion.sn:.*whole number of blocks.*T = 128, block_size = 7' print models/block_diffusion.sn -D block_size=7
    for model in ar any_order block_diffusion; do
        one_line "experts choose in $model.sn" "$SINTER" print models/$model.sn -D experts=4 -D route=experts
    done
}

# The paper's two large runs by name: planned, with the memory that a build plans; one step at reduced depth, in the long form at full width.
plans() {
    long="--autocast bf16 --recompute block --accum 32 --rate 400e12 --json"
    # shellcheck disable=SC2086
    check "plan: 1.7B, 10B tokens, 154 epochs" "$SINTER" plan models/dlm.sn -D preset=1.7b --unique 10e9 --epochs 154 $long
    cp "$WORK/out" "$WORK/plan.json"
    check "plan: 1.7B has 1.7328343e9 weights, the run 1.6e22 FLOP" grep -q '"weights":1.7328343e9,.*"steps":2937317.0,"flops_6nd":1.60113895e22' "$WORK/plan.json"
    # shellcheck disable=SC2086
    check "plan: 1B, 1B tokens, 480 epochs" "$SINTER" plan models/ar.sn -D preset=1b --unique 1e9 --epochs 480 $long
    cp "$WORK/out" "$WORK/plan.json"
    check "plan: 1B has 1.08613427e9 weights, the run 3.1e21 FLOP" grep -q '"weights":1.08613427e9,.*"steps":915528.0,"flops_6nd":3.12806895e21' "$WORK/plan.json"
    # shellcheck disable=SC2086
    "$SINTER" build models/dlm.sn $SMALL --train -o "$WORK/plan.snb" >/dev/null 2>&1
    built=$("$SINTER" print "$WORK/plan.snb" | awk '/graph train/ { for (i = 1; i < NF; i++) if ($i == "arena") print $(i + 1) }')
    # shellcheck disable=SC2086
    planned=$("$SINTER" plan models/dlm.sn $SMALL --rate 1 --json | sed 's/.*"arena_bytes":\([0-9]*\).*/\1/' | awk '{ printf "%.2f", $1 / 1e6 }')
    check "plan: the arena of a build, $built MB" test "$built" = "$planned"
    # shellcheck disable=SC2086
    check "plan: the active weights of a mixture" sh -c "'$SINTER' plan models/dlm.sn $SMALL -D experts=8 --rate 1 | grep -q '124 K weights, 50 K of them active'"
    one_line "plan: no such run" "$SINTER" plan models/dlm.sn --like "$WORK/none"
    one_line "an unknown preset" "$SINTER" plan models/dlm.sn -D preset=2b
    reduced="-D layers=1 -D seq=32 -D batch=1 -D width=256 -D heads=2 -D hidden=384 -D vocab=300"
    [ "$LONG" = 1 ] && reduced="-D layers=2 -D seq=64 -D batch=1"
    for preset in 1b 1.7b; do
        # shellcheck disable=SC2086
        check "preset $preset, reduced ($reduced): a step" "$SINTER" train models/dlm.sn -D preset=$preset $reduced --data graph --unique 4K --val-bytes 0 --steps 1 -q --out "$WORK/preset"
        tied=$([ $preset = 1b ] && echo 1 || echo 0)
        check "preset $preset: tied=$tied is its own" grep -q "\"tied\": \"$tied\"" "$WORK/preset/config.json"
        check "plan: like that run" "$SINTER" plan models/dlm.sn -D preset=1m --epochs 2 --unique 1e6 --like "$WORK/preset"
        rm -rf "$WORK/preset"
    done
}

# bench: both sides agree, every line is JSON, the keys are there; what is wrong is one line
benchmarks() {
    rows() { name=$1; shift; check "bench $name" "$SINTER" bench "$@" --json; cp "$WORK/out" "$WORK/bench.json"; keys "$name"; }
    keys() { command -v python3 >/dev/null || { skip "bench $1: JSON: no python3"; return; }; check "bench $1: JSON" python3 -c 'import json, sys; [json.loads(l) for l in open(sys.argv[1])]' "$WORK/bench.json"; }
    rows "gemm, odd shapes, right numbers" gemm --shapes 33x65x17,64x64x64ta,129x31x70tb
    for arm in ar dlm; do
        # shellcheck disable=SC2086
        rows "$arm, fused against unfused" models/$arm.sn $TINY --steps 2
    done
    for picture in svg html; do
        # shellcheck disable=SC2086
        check "bench --picture .$picture" "$SINTER" bench models/ar.sn $TINY --steps 2 --picture "$WORK/bench.$picture"
        check "bench --picture .$picture: both timelines, both ceilings" grep -q 'unfused.*FMA peak' <<EOF
$(tr '\n' ' ' <"$WORK/bench.$picture")
EOF
        well_formed "$WORK/bench.$picture"
    done
    for key in '"kind":"step"' '"speedup"' '"tokens_per_s"' '"activation_bytes"' '"unfused_ms"' '"ratio"' '"peak_gbs"'; do
        check "bench: the rows have $key" grep -q "$key" "$WORK/bench.json"
    done
    # shellcheck disable=SC2086
    rows "each fusion" models/dlm.sn $TINY --steps 2 --fuse each
    rows "rows" rows --shapes 33x65 --steps 2
    rows "xent" xent --shapes 9x16x33,8x16x40@0.5 --steps 2
    rows "attention" attention --seq 67 --dim 16 --heads 4 --kv-heads 2 --batch 2 --steps 2 \
        --mask full,causal,window:5,prefix:9,document:3,causal-document:3,dilated:3
    rows "attention, block diffusion" attention --seq 64 --dim 16 --heads 2 --mask block-diffusion:8 --steps 2
    for wrong in "models/ar.sn --fuse nonsense" "attention --mask nonsense" "rows --shapes 3by5" "xent --shapes 3x5"; do
        # shellcheck disable=SC2086
        "$SINTER" bench $wrong >/dev/null 2>"$WORK/out"
        rc=$?
        if [ $rc != 0 ] && [ "$(wc -l <"$WORK/out")" = 1 ]; then pass "bench $wrong: one line"; else fail "bench $wrong: $rc"; cat "$WORK/out"; fi
    done
}

# The dumps in a page are what its commands print.
well_formed() {
    command -v python3 >/dev/null || { skip "$(basename "$1") is well-formed: no python3 here"; return; }
    check "$(basename "$1") is well-formed" python3 -c 'import sys, xml.dom.minidom as m; m.parse(sys.argv[1])' "$1"
}

pages() {
    awk -v sinter="$SINTER" -f tests/page.awk docs/fusion.md >"$WORK/page.md" 2>"$WORK/out"
    check "docs/fusion.md is up to date (tests/page.awk renews it)" diff "$WORK/page.md" docs/fusion.md
}

# The chain of the demo, tiny: two arms on the same shards, an anneal, the report; and what a wrong run says.
study() {
    small="$SMALL --unique 8K --val-bytes 2K --test-bytes 2K --draws 1 --score-test --eval-every 16 -q"
    # shellcheck disable=SC2086
    check "study: AR" "$SINTER" train models/ar.sn $small --data graph passes --steps 48 --out "$WORK/study/ar"
    # shellcheck disable=SC2086
    check "study: DLM on the AR arm's shards" "$SINTER" train models/dlm.sn $small --data "$WORK/study/ar/data" --steps 48 --out "$WORK/study/dlm"
    # shellcheck disable=SC2086
    check "study: anneal" "$SINTER" train models/ar.sn $small --from "$WORK/study/ar/best.safetensors" --decay 8 --out "$WORK/study/ar.anneal"
    check "study: report" "$SINTER" report "$WORK/study"
    for key in '"paper"' '"strict"' '"paired_se"' '"flops"' '"draws"' '"unique_bytes"' '"anneals"'; do
        check "study: summary.json has $key" grep -q "$key" "$WORK/study/summary.json"
    done
    check "eval: the best checkpoint" "$SINTER" eval models/ar.sn --ckpt "$WORK/study/ar/best.safetensors" --data "$WORK/study/ar/data/val.safetensors"
    refused "study/dlm/best.safetensors: is a checkpoint of models/dlm.sn; models/ar.sn has no param 'noise_schedule'" eval models/ar.sn --ckpt "$WORK/study/dlm/best.safetensors" --data "$WORK/study/ar/data/val.safetensors"
    refused "study/ar/best.safetensors: is a checkpoint of models/ar.sn; models/dlm.sn has no param 'input_mask_form'" generate models/dlm.sn --ckpt "$WORK/study/ar/best.safetensors" -n 4
    # shellcheck disable=SC2086
    refused "study/ar/best.safetensors: is a checkpoint of models/ar.sn; models/dlm.sn has no param" train models/dlm.sn $small --from "$WORK/study/ar/best.safetensors" --decay 4 --out "$WORK/study/crossed"
    # shellcheck disable=SC2086
    "$SINTER" build models/dlm.sn $SMALL -o "$WORK/study.snb" >"$WORK/out" 2>&1
    refused "study/ar/best.safetensors: is a checkpoint of models/ar.sn; .*study.snb has no param" eval "$WORK/study.snb" --ckpt "$WORK/study/ar/best.safetensors" --data "$WORK/study/ar/data/val.safetensors"
    # shellcheck disable=SC2086
    "$SINTER" train models/ar.sn $small --data graph --steps 40 --set lr=1e6 --set warmup=0 --set clip=0 --out "$WORK/nan" >"$WORK/out" 2>&1
    if [ $? = 1 ] && grep -q 'step [0-9]*: lower lr' "$WORK/out"; then pass "a NaN stops the run with a message"; else fail "a NaN stops the run"; cat "$WORK/out"; fi
    # shellcheck disable=SC2086
    "$SINTER" train models/ar.sn $small --data graph --steps 4 --set no_such=1 --out "$WORK/wrong" >"$WORK/out" 2>&1
    if [ $? = 1 ] && grep -q 'no_such' "$WORK/out"; then pass "an unknown --set is named"; else fail "an unknown --set is named"; cat "$WORK/out"; fi
}

# OpenCL on PoCL: every op of kernel IR bit for bit, generated op tests, a model, 200 steps beside the host's.
opencl() {
    if ! "$SINTER" devices --quick | grep -q '^opencl:'; then skip "OpenCL: no device here (Debian: apt-get install pocl-opencl-icd)"; return; fi
    every=16 blocks=32 models=models/dlm.sn masks=window
    [ "$LONG" = 1 ] && every=1 blocks=1 models="models/ar.sn models/dlm.sn" masks=
    counted "OpenCL: kernel IR, bit for bit" "$BUILD/unit_kir" --device opencl ops vectors philox
    counted "OpenCL: every ${every}th op test" "$BUILD/unit_ops" --device opencl --every $every
    # shellcheck disable=SC2086
    counted "OpenCL: masks" "$BUILD/unit_attention" -t opencl $masks
    # shellcheck disable=SC2086
    counted "OpenCL: models" "$BUILD/unit_models" --device opencl $models
    # shellcheck disable=SC2086
    for device in opencl opencl:gpu; do
        counted "$device: routing" "$SINTER" test --device $device tests/text/diff_routing.sn
        [ "$LONG" = 1 ] && counted "$device: experts, token choice" "$BUILD/unit_models" --device $device $EXPERTS models/ar.sn
        [ "$LONG" = 1 ] && counted "$device: experts, expert choice" "$BUILD/unit_models" --device $device $EXPERTS -D route=experts models/dlm.sn
    done
    # The same as blocks of threads, which is what a GPU gets.
    counted "OpenCL, thread blocks: every ${blocks}th op test" "$BUILD/unit_ops" --device opencl:gpu --every $blocks
    counted "OpenCL, thread blocks: masks" "$BUILD/unit_attention" -t opencl:gpu $masks
    # shellcheck disable=SC2086
    counted "OpenCL, thread blocks: models" "$BUILD/unit_models" --device opencl:gpu $models
    train steps.host 200 --eval-every 100 >"$WORK/out" 2>&1 || { fail "train 200 steps"; tail -n 5 "$WORK/out"; return; }
    train steps.cl 200 --eval-every 100 --device opencl >"$WORK/out" 2>&1 || { fail "OpenCL: train 200 steps"; tail -n 5 "$WORK/out"; return; }
    train steps.cl1 200 --eval-every 100 --device opencl --threads 1 >"$WORK/out" 2>&1
    check "OpenCL: 200 steps, one group or all: the same bits" "$BUILD/tool_compare" "$WORK/steps.cl/last.safetensors" "$WORK/steps.cl1/last.safetensors" exact
    # Vectors as long as the host's: the same kernels, the same bits. Else sums differ in order.
    if "$BUILD/tool_compare" "$WORK/steps.host/last.safetensors" "$WORK/steps.cl/last.safetensors" exact >/dev/null 2>&1; then
        pass "OpenCL: 200 steps as on the host, bit for bit"
    else
        check "OpenCL: 200 steps as on the host, to rounding" "$BUILD/tool_compare" "$WORK/steps.host/last.safetensors" "$WORK/steps.cl/last.safetensors" all 1e-3
    fi
}

# Kernels for NVIDIA cards in the emulator, which stops at races, bounds, uninitialised memory; blocks compared with each other as well.
emu() {
    counted "emu: text tests" "$SINTER" test --device emu tests/text/diff_rows.sn tests/text/diff_gather.sn tests/text/diff_routing.sn tests/text/diff_matmul.sn tests/text/diff_place.sn tests/text/diff_norm_backward.sn tests/text/diff_masking.sn \
        tests/text/diff_half.sn tests/text/diff_tf32.sn
    counted "emu: every op test" env SN_EMU_BLOCKS=1 "$BUILD/unit_ops" --device emu
    counted "emu: masks, bf16" "$BUILD/unit_attention" --autocast bf16 --device emu
    [ "$LONG" = 1 ] && counted "emu: masks" "$BUILD/unit_attention" --device emu
    [ "$LONG" = 1 ] && counted "emu: masks, tf32" "$BUILD/unit_attention" --autocast tf32 --device emu
    counted "emu: models" "$BUILD/unit_models" --device emu models/ar.sn models/dlm.sn
    # shellcheck disable=SC2086
    counted "emu: experts, token choice" "$BUILD/unit_models" --device emu $EXPERTS models/ar.sn
    # shellcheck disable=SC2086
    [ "$LONG" = 1 ] && counted "emu: experts, expert choice" "$BUILD/unit_models" --device emu $EXPERTS -D route=experts models/dlm.sn
    small="--val-bytes 512 --eval-every 100"
    # shellcheck disable=SC2086
    train emu.host 6 $small >"$WORK/out" 2>&1 && train emu.steps 6 $small --device emu >"$WORK/out" 2>&1
    check "emu: 6 steps as on the host, to rounding" "$BUILD/tool_compare" "$WORK/emu.host/last.safetensors" "$WORK/emu.steps/last.safetensors" all 1e-3
    # shellcheck disable=SC2086
    train emu.one 6 $small --device emu --threads 1 >"$WORK/out" 2>&1
    check "emu: one thread or all: the same bits" "$BUILD/tool_compare" "$WORK/emu.steps/last.safetensors" "$WORK/emu.one/last.safetensors" exact
}

# The device cuda over a driver without a card, whose kernels the emulator executes: the bits of the device emu, one line for whatever call fails.
cuda() {
    every=40 models=models/dlm.sn
    [ "$LONG" = 1 ] && every=4 models="models/ar.sn models/dlm.sn"
    fake="env LD_LIBRARY_PATH=$BUILD/fake"
    if $fake "$SINTER" devices --quick | grep -q '^cuda:0 *132 .*Fake card'; then pass "cuda: the card of the tests is listed"; else fail "cuda: the card of the tests is not listed"; fi
    counted "cuda: text tests" $fake "$SINTER" test --device cuda tests/text/diff_rows.sn tests/text/diff_gather.sn tests/text/diff_matmul.sn
    counted "cuda: every ${every}th op test" $fake "$BUILD/unit_ops" --device cuda --every $every
    # shellcheck disable=SC2086
    counted "cuda: models" $fake "$BUILD/unit_models" --device cuda $models
    small="--val-bytes 512 --eval-every 100"
    # shellcheck disable=SC2086
    train cuda.emu 4 $small --device emu >"$WORK/out" 2>&1 && (EXEC=$fake; train cuda.steps 4 $small --device cuda) >"$WORK/out" 2>&1
    check "cuda: 4 steps as on emu, bit for bit" "$BUILD/tool_compare" "$WORK/cuda.emu/last.safetensors" "$WORK/cuda.steps/last.safetensors" exact
    check "cuda: bench gemm" $fake SN_FAKE_CUDA=memory=100000000 "$SINTER" bench gemm --device cuda --dtype bf16 --shapes 33x65x17,64x64x64ta
    # A small bundle; without a device named, it finds the card. Every call of the driver fails once, and then with all that follow.
    printf 'graph g {\n  weight w: f32[300] = normal(1)\n  input lr: f32[] = 0.5\n  output y = sum(w) * lr\n  update w = w * lr\n}\n' >"$WORK/cuda.sn"
    "$SINTER" build "$WORK/cuda.sn" -t ptx:sm_80,ptx:sm_90 -o "$WORK/cuda.snb" 2>"$WORK/out"
    $fake SN_FAKE_CUDA_COUNT="$WORK/calls" "$SINTER" run "$WORK/cuda.snb" --out "$WORK/cuda.st" >"$WORK/out" 2>&1
    calls=$(cat "$WORK/calls" 2>/dev/null)
    check "cuda: a bundle for cards runs on the card ($calls calls of the driver)" test "${calls:-0}" -gt 50
    wrong= n=1
    while [ $n -le "${calls:-0}" ]; do
        for which in $n -$n; do
            $fake SN_FAKE_CUDA_FAIL=$which "$SINTER" run "$WORK/cuda.snb" --device cuda --out "$WORK/cuda.st" >"$WORK/out" 2>&1
            rc=$?
            lines=$(wc -l <"$WORK/out")
            { [ $rc = 1 ] && [ "$lines" = 1 ] && grep -q '^sinter: error: ' "$WORK/out"; } || { [ $rc = 0 ] && [ "$lines" -le 1 ] && ! grep -q 'fake cuda\|error' "$WORK/out"; } ||
                { wrong="$wrong $which"; cp "$WORK/out" "$WORK/wrong"; }
        done
        n=$((n + 1))
    done
    if [ -z "$wrong" ]; then pass "cuda: each of $calls calls fails: one line, nothing left"; else fail "cuda: calls $wrong fail otherwise"; cat "$WORK/wrong"; fi
    # A machine with a driver alone: sinter and the file, no LLVM, no tools; then a program of one's own over libsinter_rt.
    mkdir -p "$WORK/alone" "$WORK/include" && cp "$SINTER" "$WORK/alone/" && ln -sfn "$ROOT/runtime" "$WORK/include/sinter"
    bare="env -i LD_LIBRARY_PATH=$BUILD/fake PATH=/nowhere SN_FAKE_CUDA_COUNT=$WORK/calls"
    $bare "$WORK/alone/sinter" run "$WORK/cuda.snb" --out "$WORK/alone.st" >"$WORK/out" 2>&1
    check "cuda: a bundle without LLVM, the same bits" "$BUILD/tool_compare" "$WORK/cuda.st" "$WORK/alone.st" exact
    rm -f "$WORK/calls"
    "$SINTER" build models/ar.sn --train -D width=16 -D layers=1 -D heads=1 -D hidden=16 -D vocab=19 -D seq=8 -D batch=2 -t ptx:sm_80 -o "$WORK/rt.snb" 2>"$WORK/out"
    ninja -C "$BUILD" sinter_rt_static >>"$WORK/out" 2>&1
    gcc -Wall -Werror -I"$WORK/include" docs/example.c "$BUILD/libsinter_rt.a" -lpthread -ldl -lm -o "$WORK/alone/example" 2>>"$WORK/out" &&
        $bare "$WORK/alone/example" "$WORK/rt.snb" 2 8 >"$WORK/on.card" 2>>"$WORK/out" && env -i "$WORK/alone/example" "$WORK/rt.snb" 2 8 >"$WORK/on.emu" 2>>"$WORK/out"
    check "cuda: docs/example.c trains from a bundle on the card, as on emu ($(cat "$WORK/calls" 2>/dev/null) calls of the driver)" \
        test -s "$WORK/calls" -a -s "$WORK/on.card" -a "$(cat "$WORK/on.card")" = "$(cat "$WORK/on.emu")"
    # With a cubin: it is loaded on cards of its generation, PTX on others, and where the driver does not take it.
    printf '#!/bin/sh\nwhile [ $# -gt 1 ]; do case $1 in *.ptx) in=$1 ;; esac; shift; done\n{ printf "\\177ELFfake"; cat "$in"; } >"$1"\n' >"$WORK/ptxas"
    chmod +x "$WORK/ptxas"
    check "build --cubin" env SN_PTXAS="$WORK/ptxas" "$SINTER" build "$WORK/cuda.sn" -t ptx:sm_80 --cubin -o "$WORK/cubin.snb"
    check "a cubin is printed" grep -q 'cubin 0.0' <<END
$("$SINTER" print "$WORK/cubin.snb")
END
    for sm in 80 86 90; do
        $fake SN_FAKE_CUDA=sm=$sm SN_FAKE_CUDA_COUNT="$WORK/calls" "$SINTER" run "$WORK/cubin.snb" --out "$WORK/cubin.st" >"$WORK/out" 2>&1
        check "cuda: sm_$sm loads $([ $sm = 90 ] && echo PTX || echo a cubin) of sm_80" test "$?$(grep -c 'a cubin was loaded' "$WORK/out")" = $([ $sm = 90 ] && echo 00 || echo 01)
        check "cuda: and gives the same bits" "$BUILD/tool_compare" "$WORK/cuda.st" "$WORK/cubin.st" exact
    done
    SN_PTXAS="$WORK/none" refused 'no ptxas here' build "$WORK/cuda.sn" -t ptx:sm_80 --cubin -o "$WORK/cubin.snb"
    refused 'cubin is of targets ptx' build "$WORK/cuda.sn" --cubin -o "$WORK/cubin.snb"
    for pair in 'cards=0:finds no card' 'sm=75:none for cuda (sm_75)' 'memory=100:out of memory: 0.00 GB asked' 'ptx=70:update the driver'; do
        LD_LIBRARY_PATH=$BUILD/fake SN_FAKE_CUDA=${pair%%:*} refused "${pair#*:}" run "$WORK/cuda.snb" --device cuda
    done
}

# tools/gpu.sh as on a machine with a card and no LLVM: a pack's cache stands in for the compiler. What it lacks, and parts that fail, are said.
gpu_script() {
    command -v python3 >/dev/null || { skip "gpu.sh: no python3 here, which writes its report"; return; }
    fake="env LD_LIBRARY_PATH=$BUILD/fake" some="ops gemm"
    [ "$LONG" = 1 ] && some=
    check "gpu.sh pack" sh tools/gpu.sh pack -s 90 --quick ${some:+--only "$some"} "$WORK/gpu"
    check "a pack holds no LLVM" test ! -e "$WORK/gpu/build/libsinter_llvm.so" -a -z "$(ls "$WORK/gpu/lib" | grep -i llvm)"
    check "gpu.sh of a pack, over the driver of the tests" $fake sh "$WORK/gpu/tools/gpu.sh" run --quick -o "$WORK/gpu.out" ${some:+--only "$some"}
    check "gpu.sh: kernels are right" grep -q '^| ops | ok | [1-9]' "$WORK/gpu.out/gpu.md"
    check "gpu.sh: products are timed" grep -q '^| 64 x 64 x 64 | bf16 | [0-9]' "$WORK/gpu.out/gpu.md"
    check "gpu.sh: gpu.json is JSON" python3 -c 'import json, sys; r = json.load(open(sys.argv[1])); assert r["parts"] and r["rows"] and "Fake card" in r["card"]' "$WORK/gpu.out/gpu.json"
    export SN_CACHE="$WORK/gpu/cache"
    EXEC="$BUILD/fake" && (SINTER="$WORK/gpu/build/sinter" LD_LIBRARY_PATH=$EXEC refused 'not in the cache .*gpu/cache, and no code generator' run models/ar.sn -D width=16 -D heads=1 --graph eval --device cuda) >"$WORK/refused"
    grep -q '^ok' "$WORK/refused" && pass "a kernel that a cache lacks is named" || { fail "a kernel that a cache lacks is named"; cat "$WORK/refused"; }
    unset SN_CACHE EXEC
    # Another card than the pack was made for: every part fails by itself, and the report is whole.
    $fake SN_FAKE_CUDA=sm=80 sh "$WORK/gpu/tools/gpu.sh" run --quick -o "$WORK/gpu.bad" --only "ops gemm" >"$WORK/out" 2>&1
    if [ $? = 1 ] && grep -q '^2 parts failed' "$WORK/out" && grep -q '^| gemm | failed .*code generator' "$WORK/gpu.bad/gpu.md"; then
        pass "gpu.sh: parts that fail"; else fail "gpu.sh: parts that fail"; cat "$WORK/out"; fi
    SN_FAKE_CUDA=cards=0 LD_LIBRARY_PATH=$BUILD/fake sh tools/gpu.sh run -o "$WORK/gpu.none" >"$WORK/out" 2>&1
    if [ $? = 1 ] && grep -q 'nothing to run on: .*no card' "$WORK/out"; then pass "gpu.sh without a card"; else fail "gpu.sh without a card"; cat "$WORK/out"; fi
    # The report on a product that took us 2 ms and PyTorch 1 ms, a step, a mask as fast as our causal.
    mkdir -p "$WORK/report" && cat >"$WORK/report/a.jsonl" <<END
{"kind":"gemm","m":8,"n":8,"k":8,"ta":false,"tb":false,"dtype":"bf16","ms":2.0,"gflops":1000,"ratio":0.25}
{"kind":"gemm","by":"PyTorch","m":8,"n":8,"k":8,"ta":false,"tb":false,"dtype":"bf16","ms":1.0,"gflops":2000}
{"kind":"step","name":"models/ar.sn","fuse":"all","batch":4,"ms":10,"tokens_per_s":100,"peak_bytes":2e9}
{"kind":"step","name":"models/ar.sn","fuse":"none","batch":4,"ms":30,"tokens_per_s":33,"peak_bytes":2e9}
{"kind":"step","by":"PyTorch, eager","name":"ar","batch":4,"ms":25,"tokens_per_s":40,"peak_bytes":3e9}
{"kind":"attention","mask":"causal","dir":"fwd","seq":64,"dim":8,"batch":1,"heads":1,"visited":0.5,"ms":1,"gflops":5000}
{"kind":"attention","mask":"full","dir":"fwd","seq":64,"dim":8,"batch":1,"heads":1,"visited":1,"ms":2,"gflops":4000}
{"kind":"attention","by":"SDPA","mask":"full","dir":"fwd","seq":64,"dim":8,"batch":1,"heads":1,"ms":1}
{"kind":"gemm","by":"Py
END
    python3 tools/gpu_torch.py report "$WORK/report" >"$WORK/out" 2>&1
    for line in '8 x 8 x 8 | bf16 | 2.000 | 1 | 0.25 | 2 | 0.50' 'ar | 4 | Sinter | 10.0 | 100 |  | 2.0' 'ar | 4 | Sinter, unfused | 30.0 | 33 | 3.00x | 2.0' \
        'ar | 4 | PyTorch, eager | 25.0 | 40 | 2.50x | 3.0' 'full | fwd | 64 | 8 | 1.000 | 2.000 | 4 | 0.80 | 1.000 | 0.50 |  | '; do
        check "gpu_torch.py report: $line" grep -qF "| $line |" "$WORK/report/gpu.md"
    done
}

# A step predicted for a card that is not here.
prediction() {
    "$SINTER" bench models/dlm.sn -D layers=2 --autocast bf16 --predict h200 --counted 0.5 >"$WORK/predicted" 2>&1
    check "bench --predict: a step" grep -q '^[1-9][0-9]* tokens/s predicted, [1-9]' "$WORK/predicted"
    "$SINTER" bench models/ar.sn -D layers=1 --predict rtx4090 --json >"$WORK/predicted" 2>"$WORK/out"
    check "bench --predict --json: kernels and their sum" awk -F'"ms":' '/"kind":"prediction"/ { sum += $2 } /"kind":"predicted_step"/ { all = $2 + 0 }
        END { exit !(all > 0 && sum > 0.999 * all && sum < 1.001 * all) }' "$WORK/predicted"
    check "bench --predict --json: no kernel is faster than its floor" awk -F'"ratio":' '$2 + 0 > 1 { exit 1 }' "$WORK/predicted"
    refused 'predict knows a100, h100, h200, rtx4090' bench models/ar.sn --predict h20
    refused 'a card runs ptx:sm_NN' bench models/ar.sn --predict h200 -t host
}

# Every kernel of both arms assembles for every card, without a register spilled. The long form: at the shapes of 124M and 1.7B weights, too.
ptx() {
    ptxas=$(command -v ptxas || ls /usr/local/cuda/bin/ptxas 2>/dev/null)
    [ -n "$ptxas" ] || { skip "PTX is not assembled: no ptxas here (CUDA toolkit)"; return; }
    if [ "$LONG" = 1 ]; then
        for sm in 80 89 90; do
            PATH="$PATH:$(dirname "$ptxas")" counted "ptxas sm_$sm: masks" "$BUILD/unit_attention" --assemble -t ptx:sm_$sm
            PATH="$PATH:$(dirname "$ptxas")" counted "ptxas sm_$sm: masks, bf16" "$BUILD/unit_attention" --autocast bf16 --assemble -t ptx:sm_$sm
        done
    else
        PATH="$PATH:$(dirname "$ptxas")" counted "ptxas sm_80: masks of documents, bf16" "$BUILD/unit_attention" --autocast bf16 --assemble -t ptx:sm_80 documents
    fi
    shapes="-Dlayers=2"
    [ "$LONG" = 1 ] && shapes="$shapes -Dlayers=2,width=768,heads=12,hidden=2048,seq=1024,batch=4,vocab=50304 -Dlayers=2,width=2048,heads=16,hidden=6144,seq=2048,batch=4,vocab=50304"
    for shape in $shapes; do
        defines=$(echo "$shape" | sed 's/^-D/-D /; s/,/ -D /g')
        for arm in ar dlm; do
            for cast in "" "--autocast bf16" "--autocast tf32"; do
                [ "$cast" = "--autocast tf32" ] && [ "$LONG" != 1 ] && continue
                for sm in 80 89 90; do
                    # shellcheck disable=SC2086
                    "$SINTER" build models/$arm.sn $defines $cast --train -t ptx:sm_$sm -o "$WORK/ptx.snb" >"$WORK/out" 2>&1 &&
                        "$SINTER" print "$WORK/ptx.snb" --code >"$WORK/k.ptx" && "$ptxas" -v -arch=sm_$sm "$WORK/k.ptx" -o "$WORK/k.cubin" >"$WORK/out" 2>&1
                    rc=$?
                    spills=$(grep spill "$WORK/out" | grep -vc ' 0 bytes spill stores, 0 bytes spill loads')
                    kernels=$(grep -c 'Used [0-9]* registers' "$WORK/out")
                    check "ptxas sm_$sm $arm $cast $shape: $kernels kernels, $spills spill" test "$rc" = 0 -a "$spills" = 0 -a "$kernels" -gt 20
                done
            done
        done
    done
}

# The same kernels under oclgrind, as a driver of the loader's: races between groups, accesses out of bounds, wrong calls. Its exit
# status says nothing: a report is a line in its log. Without optimisation, for version 21.10 widens vectors of i1 wrongly. Not
# its check of uninitialised values: the CPU form computes padding that nobody reads.
oclgrind_checks() {
    icd=/usr/lib/oclgrind/liboclgrind-rt-icd.so log=$WORK/oclgrind.log every=80 masking=
    [ -e $icd ] || { skip "oclgrind: not installed (Debian: apt-get install oclgrind)"; return; }
    [ "$LONG" = 1 ] && every=5 masking=tests/text/diff_masking.sn
    under="env OCL_ICD_VENDORS=$icd OCLGRIND_DATA_RACES=1 OCLGRIND_CHECK_API=1 OCLGRIND_BUILD_OPTIONS=-cl-opt-disable SN_CACHE="
    if OCLGRIND_LOG=$log $under "$SINTER" devices --quick | grep -q 'Oclgrind'; then pass "oclgrind: is the platform"; else fail "oclgrind: is not the platform"; return; fi
    for fault in race bounds none; do
        rm -f "$log"
        OCLGRIND_LOG=$log $under "$BUILD/tool_planted" $fault >"$WORK/out" 2>&1
        if [ $fault = none ]; then quiet "oclgrind: without a fault no report"
        elif grep -qiE 'data race|invalid write' "$log"; then pass "oclgrind: a planted fault is found: $fault"
        else fail "oclgrind: a planted fault is missed: $fault"; fi
    done
    rm -f "$log"
    {
        echo "oclgrind:opencl:gpu:ops env OCLGRIND_LOG=$WORK/blocks.log $under $BUILD/unit_ops --device opencl:gpu --every $every"
        echo "oclgrind:opencl:ops env OCLGRIND_LOG=$WORK/ops.log $under $BUILD/unit_ops --device opencl --every $every"
        echo "oclgrind:text env OCLGRIND_LOG=$WORK/text.log $under $SINTER test --device opencl tests/text/diff_rows.sn tests/text/diff_gather.sn" \
            "tests/text/diff_matmul.sn tests/text/diff_place.sn tests/text/diff_norm_backward.sn $masking"
    } >"$WORK/list"
    together
    for what in blocks ops text; do
        log=$WORK/$what.log
        quiet "oclgrind: $what without a report"
    done
}
quiet() { if [ -s "$log" ]; then fail "$1"; head -n 20 "$log"; else pass "$1"; fi }

# Completions of a task file, as the scorer of HumanEval reads them: a line a task, its id, valid JSON; what is wrong is one line.
generation() {
    printf '{"task_id":"T/0","prompt":"def f(x):\\n"}\n\n{"task_id":"T/1","prompt":"\\u00e9"}\n' >"$WORK/tasks.jsonl"
    for arm in ar dlm; do
        # shellcheck disable=SC2086
        check "generate $arm: completions" "$SINTER" generate models/$arm.sn $SMALL --tasks "$WORK/tasks.jsonl" -n 12 -t 1 --samples 2 --out "$WORK/$arm.jsonl"
        if [ "$(cut -c1-32 "$WORK/$arm.jsonl" | cut -d, -f1 | tr -d '\n')" = '{"task_id":"T/0"{"task_id":"T/0"{"task_id":"T/1"{"task_id":"T/1"' ]; then pass "generate $arm: ids"; else fail "generate $arm: ids"; cat "$WORK/$arm.jsonl"; fi
        # shellcheck disable=SC2086
        "$SINTER" generate models/$arm.sn $SMALL --tasks "$WORK/tasks.jsonl" -n 12 -t 1 --samples 2 --threads 1 >"$WORK/again.jsonl"
        check "generate $arm: the same bits with one thread" cmp "$WORK/$arm.jsonl" "$WORK/again.jsonl"
    done
    # AR by the network of other orders: token by token over the cache, or each from a prompt anew.
    # shellcheck disable=SC2086
    "$SINTER" train models/any_order.sn $SMALL -D orders=mixed --views 2 --data graph --unique 16K --val-bytes 0 --steps 60 --set lr=5e-3 --out "$WORK/orders" -q >"$WORK/out" 2>&1
    says() { "$SINTER" generate models/any_order.sn --ckpt "$WORK/orders/last.safetensors" -p "$1" -n "$2" 2>/dev/null; }
    text='  for (int i'
    for _ in 1 2 3 4; do text=$text$(says "$text" 1; echo .) text=${text%.}; text=${text%"
"}; done
    check "generate any_order: over the cache as anew" test "$text" = "  for (int i$(says '  for (int i' 4)" -a ${#text} -ge 16
    # shellcheck disable=SC2086
    check "generate: infilling" "$SINTER" generate models/dlm.sn $SMALL -p 'a = ' --suffix ' + 1' -n 8 --block 4 --guidance 0.5
    # shellcheck disable=SC2086
    one_line "generate: a suffix of an AR model" "$SINTER" generate models/ar.sn $SMALL -p 'a = ' --suffix ' + 1' -n 8
    # shellcheck disable=SC2086
    one_line "generate: diffusion's steps of an AR model" "$SINTER" generate models/ar.sn $SMALL -p x -n 8 --steps 4
    # shellcheck disable=SC2086
    one_line "generate: AR's top-k of a diffusion model" "$SINTER" generate models/dlm.sn $SMALL -p x -n 8 --top-k 4
    # shellcheck disable=SC2086
    check "generate: block diffusion" "$SINTER" generate models/block_diffusion.sn $SMALL -D block_size=8 -p 'int x' -n 21 --steps 9 -t 1
    # shellcheck disable=SC2086
    one_line "generate: another block than the model's" "$SINTER" generate models/block_diffusion.sn $SMALL -D block_size=8 -p x --block 4
    # shellcheck disable=SC2086
    uniform="models/dlm.sn $SMALL -D kernel=uniform" prompt="-p x -n 24"
    # shellcheck disable=SC2086
    check "generate: uniform kernel" sh -c "'$SINTER' generate $uniform $prompt --steps 6 -t 1 >'$WORK/a.txt' && '$SINTER' generate $uniform $prompt --steps 6 -t 1 --threads 1 | cmp - '$WORK/a.txt'"
    for option in '--block 4' '--remask random' '--guidance 1' '--top-k 3'; do
        # shellcheck disable=SC2086
        refused "$(echo "$option" | sed 's/ .*//;s/^--//') is an option of .* kernel=uniform is none" generate $uniform $prompt $option
    done
    for bad in '[1]' '{"task_id":"x","prompt":"x","suffix":3}' '{"task_id":1,"prompt":"x"}' '{"task_id":"x"}' '{"task_id' ''; do
        echo "$bad" >"$WORK/bad.jsonl"
        # shellcheck disable=SC2086
        one_line "generate --tasks '$bad'" "$SINTER" generate models/ar.sn $SMALL --tasks "$WORK/bad.jsonl"
    done
}
# Checkpoints on text and questions, with their own params; every line of --json is JSON; what is wrong is one line, or wrong usage.
evaluation() {
    for arm in ar dlm; do
        # shellcheck disable=SC2086
        check "evaluation: train $arm" "$SINTER" train models/$arm.sn $SMALL --data graph --unique 8K --val-bytes 2K --draws 1 --steps 8 --save-every 4 -q --out "$WORK/eval.$arm"
    done
    printf '{"activity_label":"A","ctx_a":"B.","ctx_b":"c","label":1,"endings":["d e","f","gg hh"]}\n{"question":"Q","choices":["1","2"],"answer":0,"subject":"anatomy"}\n{"context":"x","options":[" yy"," z"],"label":0,"suffix":"w"}\n' >"$WORK/choice.jsonl"
    printf 'Dev?,1,2,B\n' >"$WORK/anatomy_dev.csv"
    for arm in ar dlm; do
        check "eval $arm: questions and text, two checkpoints" "$SINTER" eval models/$arm.sn --ckpt "$WORK/eval.$arm"/step-*.safetensors --data "$WORK/eval.$arm/data/val.safetensors" \
            --tasks "$WORK/choice.jsonl" --window 200 --draws 2 --json
        cp "$WORK/out" "$WORK/eval.json"
        json_lines_of "eval $arm" 8
        for key in '"acc_norm"' '"gap_token_se"' '"step":8' '"anatomy"' '"mask_se"' '"high"'; do check "eval $arm: $key" grep -q "$key" "$WORK/eval.json"; done
        "$SINTER" eval models/$arm.sn --ckpt "$WORK/eval.$arm/last.safetensors" --tasks "$WORK/choice.jsonl" --draws 3 --out "$WORK/options.one" --threads 1 >/dev/null
        "$SINTER" eval models/$arm.sn --ckpt "$WORK/eval.$arm/last.safetensors" --tasks "$WORK/choice.jsonl" --draws 3 --out "$WORK/options.all" >/dev/null
        check "eval $arm: the same bits with one thread" cmp "$WORK/options.one" "$WORK/options.all"
    done
    check "eval: --fit of text" "$SINTER" eval models/ar.sn --ckpt "$WORK/eval.ar/last.safetensors" --data "$WORK/eval.ar/data/val.safetensors" --limit 4 --fit tools/cmd.h --temp "$WORK/new/temp"
    head -2 "$WORK/choice.jsonl" | tail -1 >"$WORK/mmlu.jsonl"
    check "eval: shots" "$SINTER" eval models/dlm.sn --ckpt "$WORK/eval.dlm/last.safetensors" --tasks "$WORK/mmlu.jsonl" --shots 1 --shots-from "$WORK/anatomy_dev.csv"
    for order in random left right; do
        check "eval: --order $order" "$SINTER" eval models/dlm.sn --ckpt "$WORK/eval.dlm/last.safetensors" --tasks "$WORK/choice.jsonl" --draws 2 --order $order --guidance 0.5
    done
    for arm in ar dlm; do
        held=$WORK/eval.$arm/data
        check "eval $arm: measures of text" "$SINTER" eval models/$arm.sn --ckpt "$WORK/eval.$arm/last.safetensors" --data "$held/val.safetensors" --limit 9 --next-token 3 \
            --fit "$held/train.safetensors" --continuations 6 --infills 6 --order left --json --draws 2
        cp "$WORK/out" "$WORK/eval.json"
        json_lines_of "eval $arm: measures" 5
        for kind in order next_token temperature; do check "eval $arm: $kind" grep -q "\"kind\":\"$kind\"" "$WORK/eval.json"; done
        printf '{"task_id":"T/0","prompt":"a"}\n{"task_id":"T/1","prompt":"b"}\n' >"$WORK/prompts.jsonl"
        "$SINTER" generate models/$arm.sn --ckpt "$WORK/eval.$arm/last.safetensors" --tasks "$WORK/prompts.jsonl" -n 40 -t 1 -o "$WORK/texts.jsonl"
        check "eval: generated texts of $arm before a judge" "$SINTER" eval models/ar.sn --ckpt "$WORK/eval.ar/last.safetensors" --texts "$WORK/texts.jsonl" --json
        cp "$WORK/out" "$WORK/eval.json"
        check "eval: perplexity and entropy" grep -q '"perplexity":.*"entropy":' "$WORK/eval.json"
    done
    printf '{"completion":""}\n' >"$WORK/empty.jsonl"
    printf '{"completion":3}\n' >"$WORK/number.jsonl"
    for file in empty number; do one_line "eval --texts: $file" "$SINTER" eval models/ar.sn --texts "$WORK/$file.jsonl"; done
    one_line "eval: a text that is the same everywhere" "$SINTER" eval models/ar.sn -D seq=8 --data "$WORK/eval.ar/data/val.safetensors" --limit 2 --continuations 4 --span 1 --options 26
    one_line "eval: no shots of the subject" "$SINTER" eval models/ar.sn --tasks "$WORK/mmlu.jsonl" --shots 2 --shots-from "$WORK/anatomy_dev.csv"
    one_line "eval: another model's checkpoint" "$SINTER" eval models/ar.sn -D layers=3 --ckpt "$WORK/eval.ar/last.safetensors" --tasks "$WORK/choice.jsonl"
    one_line "eval: the uniform kernel has no masks" "$SINTER" eval models/dlm.sn -D kernel=uniform --tasks "$WORK/choice.jsonl"
    one_line "eval: guidance of an AR model" "$SINTER" eval models/ar.sn --tasks "$WORK/choice.jsonl" --guidance 1
    for wrong in "" "--tasks $WORK/choice.jsonl --order up" "--tasks $WORK/choice.jsonl --shots 3" "--tasks $WORK/choice.jsonl --guidance=-1" "--next-token 3" "--data x --tasks y --out z"; do
        # shellcheck disable=SC2086
        "$SINTER" eval models/ar.sn $wrong >/dev/null 2>"$WORK/out"
        if [ $? = 2 ] && [ "$(wc -l <"$WORK/out")" = 1 ]; then pass "eval $wrong: wrong usage"; else fail "eval $wrong: wrong usage"; cat "$WORK/out"; fi
    done
}
# json_lines_of NAME N: eval.json has N lines, each JSON
json_lines_of() {
    command -v python3 >/dev/null || { skip "$1: JSON: no python3"; return; }
    check "$1: $2 lines of JSON" python3 -c 'import json, sys; n = len([json.loads(l) for l in open(sys.argv[1])]); sys.exit(n != int(sys.argv[2]))' "$WORK/eval.json" "$2"
}

# one_line NAME COMMAND...: fails with exit status 1 and one line
one_line() {
    name=$1
    shift
    "$@" >"$WORK/out" 2>&1
    rc=$?
    if [ $rc = 1 ] && [ "$(wc -l <"$WORK/out")" = 1 ]; then pass "$name: one line"; else fail "$name: exit status $rc"; head -n 3 "$WORK/out"; fi
}

text_tests() { counted "text tests" "$SINTER" test tests; }
golden_files() { golden tests/golden; }

fuzz() {
    build "$BUILD/asan" "tool_fuzz unit_emu_kernels unit_faults unit_cuda" -DCMAKE_BUILD_TYPE=Debug -DSN_SANITIZE=ON || { fail "build under ASan and UBSan"; return; }
    count=40
    [ "$LONG" = 1 ] && count=2000
    "$SINTER" train models/ar.sn $SMALL --data graph --unique 4K --val-bytes 0 --out "$WORK/fuzz" --steps 1 -q >/dev/null 2>&1
    seeds=$(ls tests/text/*.sn tests/passes/*.sn models/*.sn tests/codegen/*.kir tests/codegen/*.kt 2>/dev/null)
    # shellcheck disable=SC2086
    "$SINTER" build models/ar.sn -D vocab=17 -D width=16 -D layers=1 -D heads=2 -D hidden=32 -D seq=8 -D batch=2 --train -o "$WORK/fuzz.snb" 2>/dev/null
    for format in llm.c megatron; do "$SINTER" tokens tests/text -o "$WORK/fuzz_$format.bin" --format $format >/dev/null; done
    printf '{"prompt": "What is 2+2? \\u00e9", "completion": "4"}\n\n{"completion": "b\\u0000", "prompt": ""}\n{"prompt": "x", "completion": "yz", "more": [1]}\n' >"$WORK/fuzz.jsonl"
    {
        echo faults "$BUILD/asan/unit_faults"
        echo cuda env LD_LIBRARY_PATH="$BUILD/asan/fake" "$BUILD/asan/unit_cuda" 8
        echo texts "$BUILD/asan/tool_fuzz" 1 $count $seeds
        echo ptx "$BUILD/asan/unit_emu_kernels" fuzz $((count * 20))
        echo bundles "$BUILD/asan/tool_fuzz" 3 $((count * 20)) "$WORK/fuzz.snb"
        echo tensors "$BUILD/asan/tool_fuzz" 2 $((count * 20)) "$WORK/fuzz/data/train.safetensors" tests/golden/*.safetensors
        echo configs "$BUILD/asan/tool_fuzz" 4 $((count * 10)) tests/golden/hf/*/*.json
        echo tokens "$BUILD/asan/tool_fuzz" 5 $((count * 20)) "$WORK/fuzz_llm.c.bin" "$WORK/fuzz_megatron.idx"
        echo records "$BUILD/asan/tool_fuzz" 7 $((count * 20)) "$WORK/fuzz.jsonl"
        echo tokenizers "$BUILD/asan/tool_fuzz" 6 $count tests/golden/tokens/*.json
    } >"$WORK/list"
    side_by_side
    for name in faults cuda ptx; do counted "under ASan and UBSan: $name" replay $name; done
    check "fuzz under ASan and UBSan: $count mutations of every text" replay texts
    check "fuzz: $((count * 20)) mutations of a bundle" replay bundles
    check "fuzz: $((count * 20)) mutations of tensor files" replay tensors
    check "fuzz: $((count * 10)) mutations of config.json and an index" replay configs
    check "fuzz: $((count * 20)) mutations of token files" replay tokens
    check "fuzz: $((count * 20)) mutations of records" replay records
    check "fuzz: $count mutations of tokenizers" replay tokenizers
}

# A bundle runs, trains, evaluates and resumes without the compiler, with the source's bits; equal builds are equal files; what is
# wrong with a file is said in one line.
bundles() {
    b=$WORK/dlm.snb
    # shellcheck disable=SC2086
    check "build: host, x86-64-v3, OpenCL in one file" "$SINTER" build models/dlm.sn $SMALL --train -t host,host:x86-64-v3,opencl:x8 -o "$b"
    # shellcheck disable=SC2086
    "$SINTER" build models/dlm.sn $SMALL --train -t host,host:x86-64-v3,opencl:x8 -o "$WORK/again.snb" 2>/dev/null
    check "build: the same bytes twice" cmp "$b" "$WORK/again.snb"
    mkdir -p "$WORK/bin"
    cp "$SINTER" "$WORK/bin/sinter"                      # alone: libsinter_llvm.so does not lie beside it
    alone="env LD_LIBRARY_PATH= $WORK/bin/sinter"
    options="--unique 32K --val-bytes 8K --draws 1 --eval-every 4 --set dropout=0.1 --set warmup=4 -q --data graph passes"
    # shellcheck disable=SC2086
    "$SINTER" train models/dlm.sn $SMALL $options --steps 12 --out "$WORK/from_source" >"$WORK/out" 2>&1
    # shellcheck disable=SC2086
    check "a bundle trains without a compiler" $alone train "$b" $options --steps 12 --out "$WORK/from_bundle"
    check "a bundle trains: the source's bits" "$BUILD/tool_compare" "$WORK/from_source/last.safetensors" "$WORK/from_bundle/last.safetensors" exact
    # shellcheck disable=SC2086
    "$SINTER" train models/dlm.sn $SMALL $options --steps 6 --out "$WORK/mixed" >"$WORK/out" 2>&1
    # shellcheck disable=SC2086
    check "a bundle resumes a run of the source" $alone train "$b" $options --steps 12 --resume --out "$WORK/mixed"
    check "a bundle resumes: the same bits" "$BUILD/tool_compare" "$WORK/from_source/last.safetensors" "$WORK/mixed/last.safetensors" exact
    check "a bundle evaluates" $alone eval "$b" --ckpt "$WORK/from_bundle/best.safetensors" --data "$WORK/from_bundle/data/val.safetensors"
    check "a bundle runs a graph" $alone run "$b" --graph apply --set lr=1e-3
    check "a bundle is printed" $alone print "$b" --kernels ir
    $alone print "$b" --source >"$WORK/source.sn" && check "its source is a model" "$SINTER" print "$WORK/source.sn"
    check "bench X.snb" $alone bench "$b" --steps 2 --json
    head -c 3000 "$b" >"$WORK/short.snb"
    { head -c 8 "$b"; printf '\011'; tail -c +10 "$b"; } >"$WORK/newer.snb"
    { head -c 900 "$b"; printf 'XX'; tail -c +903 "$b"; } >"$WORK/damaged.snb"
    refused "cut short" run "$WORK/short.snb"
    refused "format 9, this runtime reads 1" run "$WORK/newer.snb"
    refused "is damaged" run "$WORK/damaged.snb"
    refused "is compiled already, -D" eval "$b" -D layers=3 --data graph
    refused "none for emu" run "$b" --device emu
    refused "no graph 'none'" run "$b" --graph none
    refused "cannot create" build models/ar.sn $SMALL -o "$WORK/no/such/folder.snb"
}

# The runtime as others get it: installed into a folder, nothing but libc behind it, sn_* alone to be seen, and the example built against it.
library() {
    ninja -C "$BUILD" >"$WORK/out" 2>&1 || { fail "build of the libraries"; tail -n 5 "$WORK/out"; return; }
    check "cmake --install" cmake --install "$BUILD" --prefix "$WORK/prefix"
    lib=$(dirname "$(find "$WORK/prefix" -name libsinter_rt.a)")
    size=$(strip -o "$WORK/rt.so" "$lib/libsinter_rt.so" && wc -c <"$WORK/rt.so")
    check "libsinter_rt.so: $size bytes stripped, under 500 KB" test "$size" -lt 500000
    ldd "$lib/libsinter_rt.so" | awk '{ print $1 }' | grep -vE '^(linux-vdso|libm|libc|libdl|libpthread|/lib.*/ld-linux)' >"$WORK/out"
    check "libsinter_rt.so needs libc, libm, libdl and libpthread alone" test ! -s "$WORK/out"
    { nm -D --defined-only "$lib/libsinter_rt.so"; nm -g --defined-only "$lib/libsinter_rt.a"; } | awk 'NF == 3 && $3 !~ /^sn_/' >"$WORK/out"
    check "libsinter_rt defines sn_* alone" test ! -s "$WORK/out"
    ldd "$WORK/prefix/bin/sinter" | grep -i llvm >"$WORK/out"
    check "sinter links no LLVM" test ! -s "$WORK/out"
    "$WORK/prefix/bin/sinter" build models/ar.sn --train -D width=32 -D layers=1 -D heads=2 -D seq=32 -D batch=4 -o "$WORK/ar.snb" >"$WORK/out" 2>&1
    check "an installed sinter builds" test -s "$WORK/ar.snb"
    # shellcheck disable=SC2046
    if command -v pkg-config >/dev/null; then
        export PKG_CONFIG_PATH="$lib/pkgconfig"
        gcc -Wall -Werror docs/example.c $(pkg-config --cflags --libs sinter_rt) -o "$WORK/shared_example" 2>"$WORK/out"
        check "the example, shared, by pkg-config" env LD_LIBRARY_PATH="$lib" "$WORK/shared_example" "$WORK/ar.snb" 4 32
    else skip "the example by pkg-config: not installed here"; fi
    mkdir -p "$WORK/user"
    cat >"$WORK/user/CMakeLists.txt" <<END
cmake_minimum_required(VERSION 3.16)
project(user C)
find_package(sinter_rt REQUIRED)
foreach(kind sinter_rt static)
  add_executable(example_\${kind} $ROOT/docs/example.c)
  target_link_libraries(example_\${kind} PRIVATE sinter_rt::\${kind})
endforeach()
END
    check "find_package(sinter_rt)" cmake -S "$WORK/user" -B "$WORK/user/build" -DCMAKE_PREFIX_PATH="$WORK/prefix"
    check "the example builds by CMake" cmake --build "$WORK/user/build"
    for kind in sinter_rt static; do
        check "the example, $kind, by CMake" env LD_LIBRARY_PATH= "$WORK/user/build/example_$kind" "$WORK/ar.snb" 4 32
    done
}

# refused TEXT ARGUMENTS...: exit status 1 and one line that holds the text
refused() {
    text=$1
    shift
    "$SINTER" "$@" >"$WORK/out" 2>&1
    if [ $? = 1 ] && grep -q "$text" "$WORK/out" && [ "$(grep -c error "$WORK/out")" = 1 ]; then pass "refused: $text"; else fail "refused: $text"; cat "$WORK/out"; fi
}

# Models of Hugging Face transformers: logits, the way there and back, in several files and in bf16; what our models cannot represent is refused.
hf_weights() {
    for shape in llama qwen3 llada; do
        gold=tests/golden/hf/$shape model=models/ar.sn
        [ $shape = llada ] && model=models/dlm.sn
        check "import $shape" "$SINTER" import "$gold" -o "$WORK/$shape.safetensors"
        "$SINTER" run $model --graph logits -D seq=20 --in "$WORK/$shape.safetensors" --in "$gold/in.safetensors" --out "$WORK/logits.safetensors" >"$WORK/out" 2>&1
        check "$shape: the logits of transformers, 1e-4" "$BUILD/tool_compare" "$gold/want.safetensors" "$WORK/logits.safetensors" all 1e-4
        check "export $shape, in several files" "$SINTER" export "$WORK/$shape.safetensors" -o "$WORK/$shape" --shard 20K
        "$SINTER" import "$WORK/$shape" -o "$WORK/again.safetensors" 2>"$WORK/out"
        check "$shape there and back: the same bytes" cmp "$WORK/$shape.safetensors" "$WORK/again.safetensors"
        "$SINTER" export "$WORK/$shape.safetensors" -o "$WORK/$shape.bf16" --dtype bf16 2>"$WORK/out" && "$SINTER" import "$WORK/$shape.bf16" -o "$WORK/$shape.bf16.safetensors" 2>>"$WORK/out"
        check "$shape in bf16: weights to 1/256" "$BUILD/tool_compare" "$WORK/$shape.safetensors" "$WORK/$shape.bf16.safetensors" all 4e-3
    done
    for arm in ar dlm; do
        # shellcheck disable=SC2086
        "$SINTER" train models/$arm.sn $SMALL --data graph --unique 4K --val-bytes 2K --steps 4 --out "$WORK/hf.$arm" -q >"$WORK/out" 2>&1
        "$SINTER" export "$WORK/hf.$arm/last.safetensors" -o "$WORK/hf.$arm.out" 2>>"$WORK/out" && "$SINTER" import "$WORK/hf.$arm.out" -o "$WORK/back.safetensors" 2>>"$WORK/out"
        for ckpt in "$WORK/hf.$arm/last.safetensors" "$WORK/back.safetensors"; do
            "$SINTER" eval models/$arm.sn --ckpt "$ckpt" --data "$WORK/hf.$arm/data/val.safetensors" 2>>"$WORK/out" | sed 's/; [0-9.]* s)//' >"$WORK/$(basename "$ckpt").nll"
        done
        check "$arm, trained here, exported, imported: its loss" cmp "$WORK/last.safetensors.nll" "$WORK/back.safetensors.nll"
        check "$arm: there is a loss" grep -q 'nats per token' "$WORK/back.safetensors.nll"
    done
    "$SINTER" export "$WORK/llada.safetensors" -o "$WORK/as_llama" --type llama && check "another type's names" "$SINTER" import "$WORK/as_llama" -o "$WORK/again.safetensors"
    for i in $(seq 400); do printf "\\$(printf %03o $((i * 7 % 31)))\\000"; done >"$WORK/few.bin"
    check "fine-tuning of an import, its shape from the file" "$SINTER" train models/dlm.sn --init "$WORK/llada.safetensors" -D seq=8 -D batch=2 --data "$WORK/few.bin" --steps 2 --out "$WORK/tuned" -q
    if python3 -c 'import torch, transformers' 2>/dev/null; then
        for shape in llama qwen3; do check "$shape, exported, in transformers" python3 tests/golden/hf_small.py check "$WORK/$shape" tests/golden/hf/$shape; done
    else skip "exported models in transformers: not installed"; fi
    hf_mixture
    hf_refused
}

# A mixture of experts trained here, under Qwen3-MoE's names: the logits of that model's computation in plain Python, there and back the same; what
# that type has no layout for is refused.
hf_mixture() {
    moe="$SMALL -D kv_heads=1 -D experts=4 -D hidden=24" in=tests/golden/hf/qwen3/in.safetensors
    for gate in chosen all; do
        # shellcheck disable=SC2086
        "$SINTER" train models/ar.sn $moe -D gate_over=$gate --data graph --unique 4K --val-bytes 2K --steps 24 --set lr=2e-2 --set warmup=4 --out "$WORK/moe" -q >"$WORK/out" 2>&1
        rm -rf "$WORK/moe.hf"
        check "export a mixture, gate_over=$gate" "$SINTER" export "$WORK/moe/last.safetensors" -o "$WORK/moe.hf"
        "$SINTER" import "$WORK/moe.hf" -o "$WORK/moe.safetensors" 2>"$WORK/out"
        "$SINTER" run models/ar.sn --graph logits -D seq=20 --in "$WORK/moe.safetensors" --in $in --out "$WORK/logits.safetensors" >>"$WORK/out" 2>&1
        if command -v python3 >/dev/null; then check "gate_over=$gate: the logits of Qwen3-MoE in Python, 1e-4" python3 tests/golden/hf_moe.py "$WORK/moe.hf" $in "$WORK/logits.safetensors"
        else skip "Qwen3-MoE in Python: no python3"; fi
        if python3 -c 'import torch, transformers' 2>/dev/null; then
            mkdir -p "$WORK/gold" && cp $in "$WORK/gold/in.safetensors" && cp "$WORK/logits.safetensors" "$WORK/gold/want.safetensors"
            check "gate_over=$gate: the same in transformers" python3 tests/golden/hf_small.py check "$WORK/moe.hf" "$WORK/gold"
        fi
        "$SINTER" export "$WORK/moe.safetensors" -o "$WORK/moe.again" --shard 20K 2>"$WORK/out" && "$SINTER" import "$WORK/moe.again" -o "$WORK/again.safetensors" 2>>"$WORK/out"
        check "gate_over=$gate: there and back the same bytes" cmp "$WORK/moe.safetensors" "$WORK/again.safetensors"
        rm -rf "$WORK/moe" "$WORK/moe.again"
    done
    refused "the model is a mixture of experts, qwen3 is dense" export "$WORK/moe.safetensors" --type qwen3 -o "$WORK/no"
    refused "the model is dense, qwen3_moe is a mixture" export "$WORK/qwen3.safetensors" --type qwen3_moe -o "$WORK/no"
    refused "by expert choice" export "$WORK/moe.safetensors" -D route=experts -o "$WORK/no"
    refused "qwen3_moe has none" export "$WORK/moe.safetensors" -D shared_hidden=8 -o "$WORK/no"
    for bad in 's/"decoder_sparse_step": 1/"decoder_sparse_step": 2/|layers without experts' 's/"mlp_only_layers": ../"mlp_only_layers": [0]/|layers without experts' \
               's/"num_experts_per_tok": 2/"num_experts_per_tok": 5/|"num_experts_per_tok" is out of range' 's/"num_experts": 4/"num_experts": 4096/|more than its' \
               's/"num_experts": 4/"num_experts": 5/|has not the shape'; do
        cp "$WORK/moe.hf/config.json" "$WORK/config.json"
        sed -i "${bad%%|*}" "$WORK/moe.hf/config.json"
        refused "${bad#*|}" import "$WORK/moe.hf" -o "$WORK/no.safetensors"
        cp "$WORK/config.json" "$WORK/moe.hf/config.json"
    done
}

# hf_edit SED: the Llama model with another config.json
hf_edit() {
    rm -rf "$WORK/edit"
    cp -r tests/golden/hf/llama "$WORK/edit" && sed "$1" tests/golden/hf/llama/config.json >"$WORK/edit/config.json"
}
hf_refused() {
    while IFS='|' read -r edit line; do
        hf_edit "$edit"
        refused "$line" import "$WORK/edit" -o "$WORK/no.safetensors"
    done <<'END'
s/"attention_bias": false/"attention_bias": true/|have no biases
s/"mlp_bias": false/"mlp_bias": true/|have no biases
s/"rope_type": "default"/"rope_type": "llama3", "factor": 8/|scaled RoPE (llama3)
s/"rope_theta": 500.0/"rope_theta": -1/|"rope_theta" must be a number above 0
s/"hidden_act": "silu"/"hidden_act": "gelu"/|our models have silu alone
s/"vocab_size": 37/"vocab_size": 37, "sliding_window": 8/|our models see all positions
s/"vocab_size": 37/"vocab_size": 37, "layer_types": ["sliding_attention"]/|layer 0 of "layer_types"
s/"vocab_size": 37/"vocab_size": 38/|has not the shape that config.json says, .38, 24
s/"num_hidden_layers": 2/"num_hidden_layers": 3/|no file has the tensor 'model.layers.2.input_layernorm.weight'
s/"num_hidden_layers": 2/"num_hidden_layers": 1/|'model.layers.1.[a-z_.]*' has no place
s/"hidden_size": 24/"hidden_size": 99999999999/|"hidden_size" is out of range
s/"hidden_size": 24/"hidden_size": "24"/|"hidden_size" is something else
s/"hidden_size": 24,//|"hidden_size" is missing
s/"num_attention_heads": 4/"num_attention_heads": 3/|cannot share 2 key-value heads
s/"head_dim": 6/"head_dim": 7/|RoPE wants an even number
s/"bos_token_id": 1/"bos_token_id": 37/|BOS token is outside the vocabulary
s/"model_type": "llama"/"model_type": "gpt2"/|models of the type 'gpt2' are not known
s/"model_type": "llama",//|has no "model_type"
s/"use_cache": true,/"use_cache": true/|config.json:[0-9]*: error: not a JSON object
END
    hf_edit 's/x/x/' && printf '{"weight_map": {"lm_head.weight": "../llama/model.safetensors"}}' >"$WORK/edit/model.safetensors.index.json"
    refused "is no name of a file beside it" import "$WORK/edit" -o "$WORK/no.safetensors"
    printf '{"weight_map": 3}' >"$WORK/edit/model.safetensors.index.json"
    refused 'has no "weight_map"' import "$WORK/edit" -o "$WORK/no.safetensors"
    refused "has no averaged weights" export "$WORK/llama.safetensors" --ema -o "$WORK/no"
    refused "llada wants a mask token" export "$WORK/llama.safetensors" --type llada -o "$WORK/no"
    refused "the model has QK-norm, llama has none" export "$WORK/qwen3.safetensors" --type llama -o "$WORK/no"
    refused "the param vocab is missing" export tests/golden/ar.in.safetensors -o "$WORK/no"
}

# Tokenizers: ids of Hugging Face's tokenizers, the standard library of Python there and back; token files of other trainers, written, read,
# trained on. unit_bpe has GPT-2's published ids.
tokens() {
    gold=tests/golden/tokens
    grep -q '^PCRE2:.*NOTFOUND' "$BUILD/CMakeCache.txt" && { skip "tokenizers: no PCRE2 here (libpcre2-dev)"; return; }
    for pair in plain:plain.json split:split.json nfc:nfc.json gpt2:gpt2 gpt2:gpt2/merges.txt; do
        "$SINTER" tokens $gold/text.txt --tokenizer "$gold/${pair#*:}" -o "$WORK/ids.bin" --format nanogpt >"$WORK/out" 2>&1
        check "${pair#*:}: the ids of Hugging Face's tokenizers" cmp "$WORK/ids.bin" "$gold/${pair%%:*}.bin"
    done
    lib=$(ls -d /usr/lib/python3*/ 2>/dev/null | head -n 1)
    if [ -n "$lib" ]; then check "Python's standard library there and back, byte for byte" "$SINTER" tokens "$lib" --tokenizer $gold/gpt2 --verify
    else skip "Python's standard library: not installed"; fi
    if python3 -c 'import tokenizers, safetensors' 2>/dev/null; then
        for t in plain.json split.json nfc.json gpt2/merges.txt; do check "$t: ids of the documents and of random texts" python3 tests/golden/tokens.py check "$SINTER" "$gold/$t" docs; done
    else skip "ids beside Hugging Face's tokenizers: not installed"; fi
    "$SINTER" tokens docs --tokenizer $gold/gpt2 --eod -o "$WORK/sinter.safetensors" >"$WORK/out"
    docs=$(sed -n 's/.* in \([0-9]*\) documents, \([0-9]*\) tokens.*/sinter, \2 tokens, the largest [0-9]*, \1 documents/p' "$WORK/out")
    check "a shard is read: $docs" sh -c "'$SINTER' tokens '$WORK/sinter.safetensors' | grep -q ': $docs\$'"
    one_line "a file without tokens" "$SINTER" tokens tests/golden/ar.want.safetensors
    one_line "a shard is no shard to be" "$SINTER" tokens "$WORK/sinter.safetensors" -o "$WORK/again.safetensors"
    for format in llm.c nanogpt megatron; do
        "$SINTER" tokens docs --tokenizer $gold/gpt2 --eod -o "$WORK/$format.bin" --format $format >"$WORK/out"
        "$SINTER" tokens "$WORK/$format.bin" --tokenizer $gold/gpt2 -o "$WORK/back.safetensors" >"$WORK/out"
        check "$format written and read: the same tokens and documents" "$BUILD/tool_compare" "$WORK/sinter.safetensors" "$WORK/back.safetensors" exact
    done
    tokens_trained
    printf 'common -D width=32 -D layers=1 -D heads=2 -D hidden=64 -D seq=16 -D batch=4 -D vocab=902 --tokenizer %s/plain.json --unique 8K --val-bytes 2K --eval-every 4 --steps 4 --draws 1\nseeds 1\narm ar %s/models/ar.sn\narm dlm %s/models/dlm.sn\n' "$ROOT/$gold" "$ROOT" "$ROOT" >"$WORK/bpe.study"
    check "a study with a tokenizer" "$SINTER" study "$WORK/bpe.study" --data docs --out "$WORK/bpe.runs" -q
    tokens_refused
}

# Trained with a tokenizer, a model is scored and generates with it, and goes on to the same bits; a .bin is as good as a shard.
tokens_trained() {
    small="-D width=32 -D layers=1 -D heads=2 -D hidden=64 -D seq=16 -D batch=4" with="--tokenizer $gold/plain.json --data docs --val-bytes 4K --eod -q"
    for steps in 4 8; do
        # shellcheck disable=SC2086
        "$SINTER" train models/ar.sn $small -D vocab=902 $with --steps $steps --set total=8 --resume --out "$WORK/bpe" >"$WORK/out" 2>&1 || tail -n 3 "$WORK/out"
    done
    # shellcheck disable=SC2086
    "$SINTER" train models/ar.sn $small -D vocab=902 $with --steps 8 --out "$WORK/bpe8" >"$WORK/out" 2>&1
    check "trained with a tokenizer, and resumed: the same bits" "$BUILD/tool_compare" "$WORK/bpe/last.safetensors" "$WORK/bpe8/last.safetensors" exact
    check "eval takes the checkpoint's tokenizer" "$SINTER" eval models/ar.sn --ckpt "$WORK/bpe/last.safetensors" --data docs/study.md --temp "$WORK/eval-bpe"
    check "generate, too" "$SINTER" generate models/ar.sn --ckpt "$WORK/bpe/last.safetensors" -p 'the model' -n 8
    refused "was trained with the tokenizer" generate models/ar.sn --ckpt "$WORK/bpe/last.safetensors" --tokenizer $gold/split.json
    mkdir -p "$WORK/bins"
    cp "$WORK/llm.c.bin" "$WORK/bins/train.bin"
    for data in sinter.safetensors llm.c.bin megatron.idx bins; do
        # shellcheck disable=SC2086
        "$SINTER" train models/dlm.sn $small -D vocab=50258 --data "$WORK/$data" --unique 640 --epochs 1 -q --out "$WORK/on.$data" >"$WORK/out" 2>&1 || tail -n 3 "$WORK/out"
    done
    for data in llm.c.bin megatron.idx bins; do
        check "trained on $data: the bits of the shard" "$BUILD/tool_compare" "$WORK/on.sinter.safetensors/last.safetensors" "$WORK/on.$data/last.safetensors" exact
    done
}

tokens_refused() {
    head -c 3000 "$WORK/llm.c.bin" >"$WORK/short.bin"
    refused "its header says" tokens "$WORK/short.bin"
    printf 'abc' >"$WORK/odd.bin"
    refused "neither llm.c's format nor an even number" tokens "$WORK/odd.bin"
    : >"$WORK/empty.bin"
    refused "is empty" tokens "$WORK/empty.bin"
    cp "$WORK/megatron.bin" "$WORK/cut.bin"
    head -c 60 "$WORK/megatron.idx" >"$WORK/cut.idx"
    refused "cut off?" tokens "$WORK/cut.idx"
    head -c 1000 "$WORK/megatron.bin" >"$WORK/less.bin"
    cp "$WORK/megatron.idx" "$WORK/less.idx"
    refused "does not follow the one before it" tokens "$WORK/less.idx"
    refused "has no token that ends a text" tokens docs --eod
}

# What --set says is held to the input's range when it is launched: from source, by the evaluator, from a bundle, and of a study before anything runs.
settings() {
    # shellcheck disable=SC2086
    check "a bundle that trains" "$SINTER" build models/ar.sn $TINY -D vocab=257 --train -o "$WORK/set.snb"
    for bad in dropout=1 dropout=-0.1 dropout=0.99999999999 input_mask=1.5 lr=-1e-3 lr=1e39 wd=inf beta2=1 schedule=1.5 schedule=4 adam_eps=0; do
        # shellcheck disable=SC2086
        refused "set ${bad%%=*}=.*must be" train models/ar.sn $TINY -D vocab=257 --data graph --steps 2 -q --set "$bad" --out "$WORK/set"
        refused "set ${bad%%=*}=.*must be" train "$WORK/set.snb" --data graph --steps 2 -q --set "$bad" --out "$WORK/set"
    done
    # shellcheck disable=SC2086
    refused "set dropout=1: it must be at least 0 and below 1" run models/ar.sn $TINY --graph train --device eval --set dropout=1
    "$SINTER" train models/ar.sn --data graph --steps 2 --set lr=nan >"$WORK/out" 2>&1
    if [ $? = 2 ] && grep -q 'name=number' "$WORK/out"; then pass "NaN is no number"; else fail "NaN is no number"; cat "$WORK/out"; fi
    printf 'data docs\ncommon --set lr=1e-3\nvary d a: --set dropout=0\n\nvary d b: --set=dropout=1\narm ar %s/models/ar.sn\n' "$PWD" >"$WORK/set.study"
    refused "set.study:5: error: arm 'ar': --set dropout=1: it must be at least 0 and below 1" study "$WORK/set.study" --out "$WORK/set.runs"
    sed -i 's/dropout=1/drop=1/' "$WORK/set.study"
    refused "set.study:5: error: arm 'ar': --set drop: .*no such input" study "$WORK/set.study" --out "$WORK/set.runs"
    check "nothing was begun" test ! -e "$WORK/set.runs"
}

# Two arms, an anneal, two values of an axis, two seeds; stopped on the way, it goes on and ends with the bits of the study that was not.
studies() {
    cat >"$WORK/tiny.study" <<END
common $SMALL --val-bytes 2K --test-bytes 2K --draws 1 --score-test --eval-every 16 --steps 48
seeds 1 2
vary unique 4K: --unique 4K
vary unique 8K: --unique 8K
arm ar $ROOT/models/ar.sn
arm dlm $ROOT/models/dlm.sn
anneal ar.anneal ar best --decay 8
END
    check "a study of 12 runs" "$SINTER" study "$WORK/tiny.study" --data graph passes --out "$WORK/studies" -q
    "$SINTER" study "$WORK/tiny.study" --data graph passes --out "$WORK/stopped" -q >"$WORK/out" 2>&1 &
    pid=$!
    tries=0
    until [ -e "$WORK/stopped/unique=4K/s1/dlm/log.jsonl" ] || [ $tries -gt 600 ]; do tries=$((tries + 1)); sleep 0.05; done
    kill -INT $pid 2>/dev/null
    wait $pid
    sed 's/--steps 48/--steps 100000/' "$WORK/tiny.study" >"$WORK/endless.study"
    "$SINTER" study "$WORK/endless.study" --data graph --out "$WORK/killed" -q >"$WORK/out" 2>&1 &
    pid=$!
    tries=0
    until [ -e "$WORK/killed/unique=4K/s1/ar/log.jsonl" ] || [ $tries -gt 600 ]; do tries=$((tries + 1)); sleep 0.05; done
    kill -KILL $pid
    tries=0
    while grep -qa "$WORK/killed" /proc/[0-9]*/cmdline 2>/dev/null && [ $tries -lt 200 ]; do tries=$((tries + 1)); sleep 0.05; done
    check "a study that is killed leaves no run behind" test $tries -lt 200 -a -e "$WORK/killed/unique=4K/s1/ar/last.safetensors"
    check "a study goes on" "$SINTER" study "$WORK/tiny.study" --data graph passes --out "$WORK/stopped" -q
    for run in unique=4K/s1/dlm unique=4K/s1/ar.anneal unique=8K/s2/ar; do
        check "a study that was stopped: $run, the same bits" "$BUILD/tool_compare" "$WORK/studies/$run/last.safetensors" "$WORK/stopped/$run/last.safetensors" exact
    done
    check "a study's report" "$SINTER" report "$WORK/studies"
    well_formed "$WORK/studies/report.html"
    sed 's/eval-every 16/eval-every 8/' "$WORK/tiny.study" >"$WORK/other.study"
    "$SINTER" study "$WORK/other.study" --data graph passes --out "$WORK/studies" -q >"$WORK/out" 2>&1
    if [ $? = 1 ] && grep -q 'begun with other options' "$WORK/out"; then pass "a study that changed is told apart"; else fail "a study that changed is told apart"; cat "$WORK/out"; fi
    # Two texts, corrupted or not, and one text held out: every run is evaluated on the same.
    cat >"$WORK/tiers.study" <<END
common $SMALL --unique 8K --val-bytes 2K --draws 1 --steps 4 --held $PWD/graph
vary   tier near: --data $PWD/passes
vary   tier far:  --data $PWD/tools $PWD/runtime --corrupt words:0.5
arm    ar  $PWD/models/ar.sn
arm    dlm $PWD/models/dlm.sn
measure --continuations 8 --span 4 --draws 1
END
    check "a study of two texts" "$SINTER" study "$WORK/tiers.study" --out "$WORK/tiers" -q
    val() { sed -n '/"val": {/,/}/s/.*"xxh3": "\([0-9a-f]*\)".*/\1/p' "$WORK/tiers/$1/config.json"; }
    check "what is measured after training" grep -q '"kind":"choice".*"step":4' "$WORK/tiers/tier=far/s1/dlm/measure.jsonl"
    rm -f "$WORK/tiers/tier=far/s1/dlm/measure.jsonl"
    check "a study measures what it has not" "$SINTER" study "$WORK/tiers.study" --out "$WORK/tiers" -q
    check "it is there again" test -s "$WORK/tiers/tier=far/s1/dlm/measure.jsonl"
    check "its report" "$SINTER" report "$WORK/tiers"
    well_formed "$WORK/tiers/report.html"
    well_formed "$WORK/tiers/plots/tier=far.accuracy-epochs.svg"
    check "the validation text is the same for all" test "$(val tier=near/s1/ar)" = "$(val tier=far/s1/dlm)" -a -n "$(val tier=near/s1/ar)"
    check "the training text is not" test "$("$BUILD/tool_compare" "$WORK/tiers/tier=near/s1/ar/data/train.safetensors" "$WORK/tiers/tier=far/s1/ar/data/train.safetensors" exact >/dev/null 2>&1; echo $?)" != 0
    worked_example
    printf 'data docs\nseeds 1\narm ar nowhere.sn\n' >"$WORK/lost.study"
    one_line "a study of a model that is not there" "$SINTER" study "$WORK/lost.study" --dry-run
    for file in models/studies/*.study; do check "$file is read" "$SINTER" study "$file" --dry-run; done
}

# docs/study.md as it is written; in the short form with fewer steps.
worked_example() {
    rm -rf "$WORK/example"
    mkdir "$WORK/example"
    ln -s "$PWD/models" "$WORK/example/models"
    sed -n 's/^    //p' docs/study.md >"$WORK/example/page.sh"
    [ "$LONG" = 1 ] || sed -i 's/--steps 1280 --eval-every 128/--steps 8 --eval-every 4/; s/--decay 96/--decay 2/; s/^common -D width=64/common -D width=16/; s/^seeds  1 2/seeds  1/; /vary   lr 6e-3/d' "$WORK/example/page.sh"
    check "docs/study.md, as it is written" sh -c "cd '$WORK/example' && PATH='$(dirname "$SINTER")':\$PATH sh -e page.sh"
    check "its plot" test -s "$WORK/example/runs/window/plots/unique=8K.loss-epochs.svg"
}

install_missing
install_opencl
if ! build "$BUILD" "sinter tests" -DCMAKE_BUILD_TYPE=Release; then fail "Release build"; finish; fi
pass "Release build"
PARTS="unit_tests text_tests golden_files golden_arms golden_anew resume kill_and_resume command_line experts plans generation evaluation hf_weights tokens benchmarks pages study settings studies
    bundles library opencl oclgrind_checks emu cuda gpu_script prediction ptx fuzz"
for part in ${SN_ONLY:-$PARTS}; do
    since=$(date +%s)
    $part
    echo "        $part: $(($(date +%s) - since)) s"
done
finish
