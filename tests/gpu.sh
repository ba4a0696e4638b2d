#!/usr/bin/env bash
# Tests and measures spion on a machine with a GPU, in stages:
#     tests/gpu.sh [build] [tests] [sanitize] [bench] [peers] [accuracy]    the first four without an argument
# accuracy trains whole tasks, in as many calls as it takes (see its function).
# TEST_JOBS and SANITIZE_JOBS (6 each): how many tests, or runs of the sanitizer, go at a time.
# peers measures PyTorch's attention kernels beside ours (bench/peers.py; its flags in $PEERS).
# Everything printed goes to $OUT (default build-gpu/out), a short table comes last. Without LLVM only
# the CUDA back end is built; SPION_HOST_BACKEND=OFF asks for that. Dependencies in an unusual place:
# set CMAKE_PREFIX_PATH. Headers that such a machine lacks and cannot install, as toml++, may lie below
# .carry/include, a folder that git ignores (cp -r /usr/include/toml++ .carry/include/).
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 2

out=$(realpath -m "${OUT:-build-gpu/out}")
build='build-gpu'
mkdir -p "$out"
summary=()
failed=0

# stage NAME COMMAND...: runs it into $OUT/NAME.log, notes the time and the outcome.
stage() {
    local name=$1 start=$SECONDS outcome=ok
    shift
    if ! "$@" >"$out/$name.log" 2>&1; then
        outcome="FAILED, see $out/$name.log"
        failed=1
        tail -n 40 "$out/$name.log"
    fi
    summary+=("$(printf '%-22s %4d s  %s' "$name" $((SECONDS - start)) "$outcome")")
}

host_backend() {
    local version
    for version in 19 20 18 17 16; do
        if command -v "clang++-$version" >/dev/null && command -v "llvm-config-$version" >/dev/null
        then
            echo ON
            return
        fi
    done
    echo OFF
}

build() {
    export CMAKE_PREFIX_PATH="$PWD/.carry${CMAKE_PREFIX_PATH:+:$CMAKE_PREFIX_PATH}"
    cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release \
        -DSPION_HOST_BACKEND="${SPION_HOST_BACKEND:-$(host_backend)}" && cmake --build "$build"
}

# A skipped test is a failure here: this script is for machines with a GPU.
tests() {
    local log
    log=$(mktemp)
    ctest --test-dir "$build" -L gpu --output-on-failure --no-tests=error -j "${TEST_JOBS:-6}" 2>&1 | tee "$log"
    local status=${PIPESTATUS[0]}
    if grep -q '[*]Skipped' "$log"; then
        echo "gpu tests were skipped; is there a GPU with a driver?"
        status=1
    fi
    rm "$log"
    return "$status"
}

# sanitizer_runs PATTERN: a command a line. PATTERN: a file of 4 x 4 blocks.
sanitizer_runs() {
    local bits=$1 dtype softmax head_dim
    check() { printf '%q ' compute-sanitizer --error-exitcode 9 --tool "$@"; echo; }
    # One small problem for each dtype, with everything that is out of the ordinary: a ragged length,
    # an empty row, padded keys.
    for dtype in bf16 fp16 tf32 fp32; do
        for softmax in pruned_zero masked; do
            check memcheck "$build/spion" verify --pattern "$bits" --block 32 --length 120 --heads 2 \
                --head-dim 32 --batch 3 --lengths 120,0,77 --dtype "$dtype" --softmax "$softmax" \
                --device cuda --layout packed
        done
    done
    # Rows of shared memory whose number of chunks is no power of 2; dV and dK apart from 176 on.
    for dtype in bf16 tf32 fp32; do
        for head_dim in 48 80 176 256; do
            check memcheck "$build/spion" verify --pattern "$bits" --block 32 --length 120 --heads 2 \
                --head-dim "$head_dim" --batch 3 --lengths 120,0,77 --dtype "$dtype" \
                --device cuda --layout packed
        done
    done
    local block
    for block in 16 64 128; do
        check memcheck "$build/spion" verify --pattern "$bits" --block "$block" \
            --length $((4 * block - 5)) --heads 1 --head-dim 64 --dtype bf16 --device cuda
    done
    # Tensor copies and barriers, where the GPU has them: enough heads and blocks for every place of
    # shared memory to be used again. Blocks of 64 and 128 are computed by warpgroups, the latter with
    # all gradients together; of 32 by warps with items of their own; packed ones by warpgroups.
    local tool shape length
    for tool in memcheck racecheck; do
        for shape in '64 32 24 --pack 1' '64 64 24 --pack 1' '64 128 12' '128 64 8' '128 128 8' \
            '32 32 64 --pack 1' '32 64 64 --pack 1' '32 64 64 --pack 2' '32 128 32 --pack 2'; do
            # shellcheck disable=SC2086  # block, D, H and options
            set -- $shape
            block=$1 length=$((10 * $1 - 5))
            check "$tool" "$build/spion" verify --pattern-random 0.6 --block "$block" \
                --length "$length" --heads "$3" --head-dim "$2" --batch 3 \
                --lengths "$length,0,$((5 * block + 6))" --dtype bf16 --device cuda "${@:4}"
        done
    done
    # Calls of the library: threads and streams on one plan, and what callers get wrong. Errors that
    # the driver reports, as launches in the wrong stream, are what the tests provoke.
    check memcheck --report-api-errors no "$build/test_api_gpu" \
        --gtest_filter='*ThreadsAndStreams*:*TakesWhatTheKernelBefore*:*Mistakes*'
    local task
    for task in listops retrieval; do
        check memcheck "$build/spion" bench step --task "$task" --batch 3 --length 200 --repeat 1 \
            --device cuda
    done
}

# The sanitizer's runs are independent of each other, and most of their time is the compiler's and the
# sanitizer's own on the host: SANITIZE_JOBS at a time. Each prints what it found when it ends.
sanitize() {
    local bits
    command -v compute-sanitizer >/dev/null || { echo "there is no compute-sanitizer"; return 1; }
    bits=$(mktemp)
    printf '1001\n0000\n0110\n1011\n' >"$bits"
    # shellcheck disable=SC2016  # $0 is the command that xargs hands over
    sanitizer_runs "$bits" | xargs -d '\n' -n 1 -P "${SANITIZE_JOBS:-6}" bash -c '
        found=$(eval "$0" 2>&1); status=$?
        printf "%s\n%s\n" "$0" "$found"
        [ $status -eq 0 ] || echo "FAILED with $status: $0"
        exit $((status != 0))'  # xargs ends at once, without the other runs, where one ends with 255
    local status=$?
    rm "$bits"
    return "$status"
}

bench() {
    "$build/spion" doctor >"$out/doctor.txt" || true  # for the record
    local task
    for task in listops image retrieval; do
        "$build/spion" bench step --task "$task" --device cuda >"$out/step-$task.txt" || return 1
    done
    "$build/spion" bench anchors >"$out/anchors.txt" &&
        "$build/spion" bench summary --length 4096 --batch 32 --heads 2 --head-dim 32 --block 64 \
            --device cuda >"$out/summary.txt" &&
        cat "$out/anchors.txt" "$out/summary.txt" "$out"/step-*.txt
}

# Accuracy at the paper's settings, dense and SPION-CF beside each other: TASKS ("image retrieval
# pathfinder"), DATA_image and so on (none: generated), MINUTES for each run in this call (9). Called
# again, it goes on where it stopped; a run that is done is left alone. Reads $out/TASK-dense and
# TASK-cf of earlier calls.
accuracy() {
    local task kind data folder
    for task in ${TASKS:-image retrieval pathfinder}; do
        data=DATA_$task
        for kind in dense cf; do
            folder=$out/$task-$kind
            if [[ ! -e $folder/config.toml ]]; then
                # shellcheck disable=SC2086,SC2046  # flags of the task, and none
                "$build/spion" train "$task" --device cuda --minutes "${MINUTES:-9}" --scores pooled \
                    $([[ $kind == dense ]] && echo --dense) ${!data:+--data "${!data}"} ${FLAGS:-} \
                    --out "$folder" || return 1
            elif ! grep -q '"out_of_time": false' "$folder/summary.json" 2>/dev/null; then
                "$build/spion" train "$task" --minutes "${MINUTES:-9}" --resume "$folder" || return 1
            fi
            grep -h '"accuracy"' "$folder/summary.json" || true
        done
    done
}

# shellcheck disable=SC2086  # $PEERS holds several flags
peers() {
    python3 bench/peers.py --spion "$build/spion" --out "$out/peers" ${PEERS:-}
}

[[ $# -gt 0 ]] || set -- build tests sanitize bench
for name in "$@"; do
    case $name in
        build | tests | sanitize | bench | peers | accuracy) stage "$name" "$name" ;;
        *) echo "there is no stage '$name'; use build, tests, sanitize, bench, peers or accuracy" >&2; exit 2 ;;
    esac
done
echo
[[ " $* " != *" bench "* || ! -f $out/bench.log ]] || cat "$out/bench.log"
[[ " $* " != *" peers "* || ! -f $out/peers/peers.md ]] || cat "$out/peers/peers.md"
[[ " $* " != *" accuracy "* ]] || cat "$out/accuracy.log"
[[ " $* " != *" tests "* ]] || grep -E '% tests passed' "$out/tests.log"
printf '%s\n' "${summary[@]}"
exit "$failed"
