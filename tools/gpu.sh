#!/bin/sh
# gpu.sh: everything that wants a card, in one call: are the kernels right, and how fast are they.
#
#   sh tools/gpu.sh pack [-s "80 90"] [--only ..] [--quick] OUT.tar.gz | DIR    on a machine with LLVM, for cards sm_80, 86, 89 and 90
#   sh tools/gpu.sh [run] [-o DIR] [-b SECONDS] [--only "PART PART"] [--quick]
#
# A pack is a small copy of this tree: sinter, the test programs and the models, and a cache in which every kernel that `run` asks for is
# compiled already (codegen/compile_host.c), so a machine with a driver alone runs the same commands as this one; python3 with PyTorch, if it is there, is compared
# with. In a tree that is built, `run` works in place. `pack` finds the kernels by doing `run` over a driver without a card
# (tests/fake_cuda.c) whose launches do nothing.
#
# `run` goes through PARTS (below), first whether results are right, then how fast they come; each has a time limit, and one that fails leaves the
# others. It ends within SECONDS (540), leaves gpu.json (every row), gpu.md (tables) and gpu.log in DIR (gpu-DATE), and fails if
# a part did. --quick: a tenth of the tests and tiny sizes, to see that all of it works. What is missing is skipped, with the reason.
set -u
COMMAND="sh tools/gpu.sh $*" HERE=$PWD
cd "$(dirname "$0")/.." || exit 1
ROOT=$PWD
BUILD=${SN_BUILD:-$ROOT/build}
SINTER=$BUILD/sinter
RIGHT="ops text masks models mixed golden training pairs"
FAST="gemm attention step fused load"
PARTS="$RIGHT $FAST"
path() { case $1 in /*) echo "$1" ;; *) echo "$HERE/$1" ;; esac; }         # as the caller means it
fail_usage() { echo "gpu.sh: error: $*; see the head of tools/gpu.sh" >&2; exit 2; }

# -- What each part runs: the same commands for `run` and `pack`. Rows of benchmarks go to stdout -------------------------------------

sizes() {
    every=1 tiny=0 steps=8 ARMS="ar dlm"
    LARGE="-D layers=12 -D width=768 -D heads=12 -D hidden=2048 -D seq=1024 -D vocab=50304 -D tied=1 -D qk_norm=0"      # 124M weights
    LARGE_TORCH="--layers 12 --width 768 --heads 12 --hidden 2048 --seq 1024 --vocab 50304"
    MIDDLE="-D layers=2 -D width=768 -D heads=12 -D hidden=2048 -D seq=1024 -D vocab=4096 -D batch=2"
    BATCH=32 FUSED_BATCH=8
    GEMM="4096x4096x4096 8192x8192x8192 4096x4096x4096ta 4096x4096x4096tb 32768x768x768 32768x4096x768 32768x768x2048 768x2048x32768ta"
    ATTENTION="--seq 4096 --batch 2 --heads 16" DIM="64 128" MASK=full,causal,window:256,document:8,block-diffusion:32
    [ "$QUICK" = 1 ] || return
    every=40 tiny=1 steps=1 ARMS=dlm GEMM="64x64x64 33x65x17 64x64x64ta" ATTENTION="--seq 128 --batch 1 --heads 1" DIM=32 MASK=causal,window:16 BATCH=2 FUSED_BATCH=2
    LARGE="-D layers=1 -D width=32 -D heads=1 -D hidden=32 -D seq=32 -D vocab=64 -D tied=1 -D qk_norm=0" MIDDLE="$LARGE -D batch=2"
    LARGE_TORCH="--layers 1 --width 32 --heads 1 --hidden 32 --seq 32 --vocab 64 --seconds 0.05"
}

# Several processes: each has its own share of the cases, and of the driver's compiling.
do_ops() {
    n=$(nproc 2>/dev/null || echo 2) k=0
    [ "$n" -gt 8 ] && n=8
    [ "$tiny" = 1 ] && n=2
    [ "$FILL" = 1 ] && n=1
    while [ $k -lt "$n" ]; do
        "$BUILD/unit_ops" --device cuda --every $every --part $k/"$n" >"$TEMP/ops.$k" 2>&1 &
        k=$((k + 1))
    done
    wait
    k=0
    while [ $k -lt "$n" ]; do cat "$TEMP/ops.$k"; grep -q ' passed, ' "$TEMP/ops.$k" || echo "0 passed, 1 failed"; k=$((k + 1)); done
}
do_text() { # shellcheck disable=SC2086
    if [ "$tiny" = 1 ]; then "$SINTER" test --device cuda tests/text/diff_rows.sn; else "$SINTER" test --device cuda tests/text/diff_*.sn; fi; }
do_masks() { # shellcheck disable=SC2046
    "$BUILD/unit_attention" --device cuda $([ "$tiny" = 1 ] && echo window); }
do_models() { # shellcheck disable=SC2046
    "$BUILD/unit_models" --device cuda $([ "$tiny" = 1 ] && echo models/ar.sn); }
do_mixed() { if [ "$tiny" = 1 ]; then echo "skipped: --quick"; else "$BUILD/unit_mixed" --device cuda; fi; }

# good COMMAND...: counts it as a test
good() { if "$@" >"$TEMP/out" 2>&1; then echo "1 passed, 0 failed"; else echo "FAILED $*"; tail -n 5 "$TEMP/out"; echo "0 passed, 1 failed"; fi; }

# Loss and every gradient, against PyTorch's of tests/golden.
do_golden() {
    small="-D vocab=37 -D width=32 -D layers=2 -D heads=2 -D hidden=64 -D seq=16 -D batch=3"
    for arm in $ARMS; do
        for fuse in all none; do
            # shellcheck disable=SC2086
            "$SINTER" run models/$arm.sn $small --graph train --grad --fuse $fuse --device cuda --in tests/golden/$arm.in.safetensors --out "$TEMP/golden" ||
                { echo "0 passed, 1 failed"; continue; }
            good "$BUILD/tool_compare" tests/golden/$arm.want.safetensors "$TEMP/golden" 1e-5 1e-4
        done
    done
}

# Six steps of both arms from a bundle, against the host's: of a pack, those of the machine that made it.
TRAIN="--data docs --unique 32K --val-bytes 1K --draws 1 --steps 6 --eval-every 100 --set dropout=0.1 --set warmup=4 -q"
SMALL="-D width=32 -D layers=2 -D heads=2 -D hidden=64 -D seq=32 -D batch=4"
do_training() {
    for arm in $ARMS; do
        rm -rf "$TEMP/train" "$TEMP/host"
        if [ -e bundles/$arm.snb ]; then
            want=bundles/$arm.safetensors from=bundles/$arm.snb
        else # shellcheck disable=SC2086
            want=$TEMP/host/last.safetensors from=$TEMP/$arm.snb
            "$SINTER" build models/$arm.sn $SMALL --train -t "ptx:sm_$(card_sm)" -o "$from" &&
                "$SINTER" train models/$arm.sn $SMALL $TRAIN --out "$TEMP/host" || { echo "0 passed, 1 failed"; continue; }
        fi
        # shellcheck disable=SC2086
        "$SINTER" train "$from" $TRAIN --device cuda --out "$TEMP/train" || { echo "0 passed, 1 failed"; continue; }
        good "$BUILD/tool_compare" "$want" "$TEMP/train/last.safetensors" all 1e-3
    done
}

# Real tile sizes: every weight and moment after a step, fused against unfused, f32 and bf16; they may differ by rounding.
do_pairs() {
    for arm in $ARMS; do
        for cast in none bf16; do # shellcheck disable=SC2086,SC2046
            good "$SINTER" bench models/$arm.sn $MIDDLE $([ $cast = bf16 ] && echo --autocast bf16) --device cuda --steps 1
        done
    done
}

# Rows: one that is missing fails the part, of PyTorch's it is a note.
rc=0
ours() { "$SINTER" "$@" || rc=1; }
theirs() {
    [ "$FILL" = 1 ] || [ -z "$TORCH" ] || python3 tools/gpu_torch.py "$@" --device "$TORCH" 2>"$TEMP/torch" ||
        echo "note: PyTorch: $(grep -v '^ *$' "$TEMP/torch" | tail -n 1)"
}

do_gemm() {
    for shape in $GEMM; do ours bench gemm --device cuda --dtype bf16 --shapes "$shape" --json; done
    ours bench gemm --device cuda --shapes "${GEMM%% *}" --json
    theirs gemm --shapes "$(echo "$GEMM" | tr ' ' ,)"
    theirs gemm --shapes "${GEMM%% *}" --dtype f32
    return $rc
}

do_attention() { # shellcheck disable=SC2086
    for dim in $DIM; do ours bench attention --device cuda --dtype bf16 --alone $ATTENTION --dim "$dim" --mask $MASK --steps $steps --json; done
    for dim in $DIM; do # shellcheck disable=SC2086
        theirs attention $ATTENTION --dim "$dim" --mask $MASK --seconds 0.2
        MASK=full,causal                         # FlexAttention takes seconds to compile each
    done
    return $rc
}

one_step() { # shellcheck disable=SC2086
    ours bench models/$1.sn $LARGE -D batch=$2 --autocast bf16 --alone --fuse $3 --device cuda --steps $steps --json; }

do_step() {
    for arm in $ARMS; do
        one_step $arm $BATCH all
        # shellcheck disable=SC2086
        for how in eager compile; do theirs step --arm $arm --how $how --batch $BATCH $LARGE_TORCH; done
    done
    return $rc
}
do_fused() { for arm in $ARMS; do one_step $arm $FUSED_BATCH all; one_step $arm $FUSED_BATCH none; done; return $rc; }

# From a file to the first step.
do_load() {
    from=bundles/dlm.snb
    if [ ! -e $from ]; then # shellcheck disable=SC2086
        from=$TEMP/load.snb && "$SINTER" build models/dlm.sn $SMALL --train -t "ptx:sm_$(card_sm)" -o "$from"; fi
    "$SINTER" bench "$from" --device cuda --json --steps 3
}

limit_of() { case $1 in ops | masks | models | pairs | fused) echo 120 ;; attention | step) echo 200 ;; gemm) echo 90 ;; *) echo 60 ;; esac; }

# -- The machine --------------------------------------------------------------------------------------------------------------------------

card() { "$SINTER" devices --quick 2>/dev/null | sed -n 's/^cuda:0 *[0-9]* *[^A-Za-z]*//p' | head -n 1; }
card_sm() {
    sm=$(card | sed -n 's/.*sm_\([0-9]*\).*/\1/p')
    if [ "${sm:-0}" -ge 90 ]; then echo 90; elif [ "${sm:-0}" -ge 89 ]; then echo 89; elif [ "${sm:-0}" -ge 86 ]; then echo 86; else echo 80; fi
}
torch_version() { python3 -c 'import torch; print("PyTorch " + torch.__version__)' 2>/dev/null || echo "no PyTorch"; }
# PyTorch that sees a card is compared with; SN_GPU_TORCH=cpu takes any, to try this script.
find_torch() {
    TORCH=
    case $(torch_version) in
    no*) echo "skipped: comparisons with PyTorch: python3 here has none" ;;
    *)  TORCH=cuda
        python3 -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' 2>/dev/null && return
        TORCH=${SN_GPU_TORCH:-}
        [ -n "$TORCH" ] || echo "skipped: comparisons with PyTorch: $(torch_version) sees no card" ;;
    esac
}

# -- Running a part -------------------------------------------------------------------------------------------------------------------------

now() { date +%s; }
quoted() { sed 's/[\\"]/\\&/g' | tr -d '\000-\037'; }

# sum FILE: passed and failed of all its lines `N passed, N failed`
sum() { sed -n 's/^\([0-9]*\) passed, \([0-9]*\) failed.*/\1 \2/p' "$1" | awk '{ p += $1; f += $2 } END { print p + 0, f + 0 }'; }

# The part runs in a shell of its own, this script, so that `timeout` ends all of it.
run_part() {
    name=$1 limit=$(limit_of "$1") left=$((END - $(now)))
    [ "$FILL" = 1 ] && limit=$left
    [ "$left" -lt "$limit" ] && limit=$left
    if [ "$limit" -lt 5 ]; then say_part "$name" skipped 0 0 0 "no time left"; return; fi
    began=$(now)
    SN_GPU_TEMP=$TEMP SN_GPU_TORCH=$TORCH timeout -k 5 "$limit" sh tools/gpu.sh part "$name" "$QUICK" "$FILL" >"$TEMP/$name.out" 2>"$TEMP/$name.err"
    rc=$? took=$(($(now) - began))
    grep '^{' "$TEMP/$name.out" >"$TEMP/$name.jsonl"
    { echo "== $name"; cat "$TEMP/$name.out" "$TEMP/$name.err"; } >"$TEMP/$name.log"
    # shellcheck disable=SC2046
    set -- $(sum "$TEMP/$name.out")
    why=$(grep -h 'FAILED\|error' "$TEMP/$name.err" "$TEMP/$name.out" | head -n 1 | cut -c 1-150)
    if [ $rc = 124 ] || [ $rc = 137 ]; then say_part "$name" "out of time" "$1" "$2" $took "after $limit s"
    elif [ "$2" != 0 ] || [ $rc != 0 ]; then say_part "$name" failed "$1" "$2" $took "$why"
    elif [ "$1" = 0 ] && [ ! -s "$TEMP/$name.jsonl" ]; then say_part "$name" "$(grep -q '^skipped' "$TEMP/$name.out" && echo skipped || echo failed)" 0 0 $took "nothing ran"
    else say_part "$name" ok "$1" "$2" $took "$(grep '^note:' "$TEMP/$name.out" | head -n 1 | cut -c 1-150)"; fi
}

say_part() {
    printf '%-10s %-12s %5s passed %3s failed %4s s  %s\n' "$1" "$2" "$3" "$4" "$5" "$6" >"$TEMP/$1.say"
    printf '{"kind":"part","name":"%s","status":"%s","passed":%s,"failed":%s,"seconds":%s,"why":"%s"}\n' "$1" "$2" "$3" "$4" "$5" "$(printf %s "$6" | quoted)" >"$TEMP/$1.part"
}

# What is right does not depend on who else is at work: with cores enough, those parts run side by side. Times are taken alone.
run_parts() {
    together=
    [ "$(nproc)" -ge 8 ] && [ "$FILL" = 0 ] && for part in $only; do case " $RIGHT " in *" $part "*) together="$together $part" ;; esac; done
    for part in $together; do run_part "$part" & done
    wait
    for part in $only; do
        case " $together " in *" $part "*) ;; *) run_part "$part" ;; esac
        cat "$TEMP/$part.say"
        cat "$TEMP/$part.log" >>"$TEMP/gpu.log" 2>/dev/null
        cat "$TEMP/$part.part" >>"$TEMP/parts.jsonl"
    done
    bad=$(grep -cv '"status":"ok"\|"status":"skipped"' "$TEMP/parts.jsonl")
}

about() {
    driver=$( (nvidia-smi --query-gpu=driver_version --format=csv,noheader 2>/dev/null || echo "of unknown version") | head -n 1)
    commit=$(cat commit 2>/dev/null || git rev-parse --short HEAD 2>/dev/null || echo unknown)
    printf '{"kind":"about","date":"%s","card":"%s","driver":"%s","torch":"%s","commit":"%s","command":"%s","cores":%s}\n' "$(date -u +%Y-%m-%dT%H:%MZ)" \
        "$(card | quoted)" "$driver" "$(torch_version)" "$commit" "$(printf %s "$COMMAND" | quoted)" "$(nproc)" >"$TEMP/about.jsonl"
}

run_all() {
    out=$HERE/gpu-$(date -u +%Y-%m-%d) budget=540 only=$PARTS QUICK=0 FILL=0
    while [ $# -gt 0 ]; do
        case $1 in
        -o | -b | --only) [ $# -gt 1 ] || fail_usage "$1 wants a value"
            case $1 in -o) out=$(path "$2") ;; -b) budget=$2 ;; *) only=$2 ;; esac
            shift ;;
        --quick) QUICK=1 ;;
        --fill) FILL=1 ;;                                # of `pack`: compile, compare with nothing
        *) fail_usage "run does not know '$1'" ;;
        esac
        shift
    done
    case $budget in '' | *[!0-9]*) fail_usage "-b wants seconds, not '$budget'" ;; esac
    for part in $only; do case " $PARTS " in *" $part "*) ;; *) fail_usage "there is no part '$part' (parts: $PARTS)" ;; esac; done
    [ -x "$SINTER" ] || { echo "gpu.sh: error: no $SINTER: build first, or run the gpu.sh of a pack" >&2; exit 1; }
    [ -n "$(card)" ] || { echo "gpu.sh: error: nothing to run on: $("$SINTER" run models/ar.sn --device cuda 2>&1 | sed 's/^sinter: error: //' | head -n 1)" >&2; exit 1; }
    END=$(($(now) + budget))
    mkdir -p "$out" || exit 1
    TEMP=$(mktemp -d "${TMPDIR:-/tmp}/sinter-gpu.XXXXXX")
    trap 'rm -rf "$TEMP"' EXIT
    find_torch
    about
    echo "$(card); $(torch_version)"
    { nvidia-smi 2>/dev/null; [ $FILL = 1 ] || timeout 60 "$SINTER" devices 2>&1; } >"$TEMP/gpu.log"
    run_parts
    cp "$TEMP/gpu.log" "$out/gpu.log"
    if python3 tools/gpu_torch.py report "$TEMP" >"$TEMP/report" 2>&1; then
        cp "$TEMP/gpu.json" "$TEMP/gpu.md" "$out/"
        sed '1,/^## Parts/d' "$TEMP/report" | sed -n '/^## /,$p'
    else
        cat "$TEMP"/*.jsonl >"$out/gpu.jsonl"
        echo "skipped: gpu.json and gpu.md, python3 said: $(tail -n 1 "$TEMP/report"); all rows are in $out/gpu.jsonl"
    fi
    echo "$bad parts failed; $out"
    [ $bad = 0 ]
}

# -- Packing ----------------------------------------------------------------------------------------------------------------------------------


copy_tree() {
    mkdir -p "$to/tools" "$to/build" "$to/docs" "$to/tests/text" "$to/tests/golden" "$to/bundles" "$to/cache" "$to/lib"
    cp tools/gpu.sh tools/gpu_torch.py "$to/tools/"
    for program in sinter unit_ops unit_attention unit_models unit_mixed tool_compare; do
        cp "$BUILD/$program" "$to/build/" || return 1
        strip "$to/build/$program" 2>/dev/null
        ldd "$BUILD/$program"
    done | sed -n 's/.* => \(\/[^ ]*\) .*/\1/p' | sort -u | grep -v '/lib\(c\|m\|pthread\|dl\|rt\)\.so' | while read -r lib; do cp -L "$lib" "$to/lib/"; done
    cp -r models "$to/"
    cp docs/*.md "$to/docs/"
    cp tests/text/diff_*.sn "$to/tests/text/"
    cp tests/golden/*.safetensors "$to/tests/golden/"
    git rev-parse --short HEAD >"$to/commit" 2>/dev/null
    return 0
}

# A bundle of both arms for all cards, and six steps of it on this CPU.
make_bundles() {
    targets=$(for sm in $sms; do printf ',ptx:sm_%s' "$sm"; done)
    for arm in ar dlm; do
        # shellcheck disable=SC2086
        "$SINTER" build models/$arm.sn $SMALL --train -t "${targets#,}" -o "$to/bundles/$arm.snb" && rm -rf "$TEMP/host" &&
            (cd "$to" && "$SINTER" train models/$arm.sn $SMALL $TRAIN --out "$TEMP/host") && cp "$TEMP/host/last.safetensors" "$to/bundles/$arm.safetensors" || return 1
    done
}

pack() {
    sms="80 86 89 90" quick= only=$PARTS
    while [ $# -gt 1 ]; do
        case $1 in -s) sms=$2; shift ;; --only) only=$2; shift ;; --quick) quick=--quick ;; *) fail_usage "pack does not know '$1'" ;; esac
        shift
    done
    [ $# = 1 ] || fail_usage "pack wants a name"
    set -- "$(path "$1")"
    [ -x "$SINTER" ] && [ -e "$BUILD/fake/libcuda.so.1" ] || { echo "gpu.sh: error: build first: ninja -C build sinter tests" >&2; exit 1; }
    TEMP=$(mktemp -d "${TMPDIR:-/tmp}/sinter-gpu.XXXXXX")
    trap 'rm -rf "$TEMP"' EXIT
    case $1 in *.tar.gz) to=$TEMP/sinter-gpu ;; *) to=$1 ;; esac
    mkdir -p "$to" && to=$(cd "$to" && pwd) && copy_tree && make_bundles >"$TEMP/out" 2>&1 || { echo "gpu.sh: error: cannot pack: $(tail -n 1 "$TEMP/out")" >&2; exit 1; }
    for sm in $sms; do
        echo "kernels for sm_$sm"
        SN_CACHE=$to/cache LD_LIBRARY_PATH=$BUILD/fake SN_FAKE_CUDA=sm=$sm,idle=1,memory=140000000000 sh tools/gpu.sh run --fill $quick --only "$only" -b 100000 -o "$TEMP/fill" >"$TEMP/fill.log" 2>&1
    done
    # Kernels are found one by one: programs made of them are the same again.
    for file in "$to"/cache/*; do [ "$(grep -a -c '^\.visible \.entry' "$file")" -le 1 ] || rm "$file"; done
    echo "$(find "$to/cache" -type f | wc -l) kernels, $(du -sm "$to" | cut -f 1) MB"
    case $1 in *.tar.gz) tar -C "$TEMP" -czf "$1" sinter-gpu && ls -l "$1" ;; esac
}

# -----------------------------------------------------------------------------------------------------------------------------------------------

if [ -d cache ] && [ -d bundles ]; then                  # a pack
    export SN_CACHE="$ROOT/cache" LD_LIBRARY_PATH="${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$ROOT/lib"
fi
case ${1:-run} in
pack) shift; pack "$@" ;;
part) QUICK=$3 FILL=$4 TEMP=$SN_GPU_TEMP/work.$2 TORCH=${SN_GPU_TORCH:-}; mkdir -p "$TEMP"; sizes; "do_$2" ;;
run) [ $# = 0 ] || shift; run_all "$@" ;;
-h | --help) sed -n '2,/^set/s/^# \{0,1\}//p' tools/gpu.sh ;;
*) run_all "$@" ;;
esac
