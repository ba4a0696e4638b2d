#!/usr/bin/env bash
# Runs one report: its `cmd` in a copy of its folder, then its `check`, which holds what was said
# and left behind against `expect`. tests/reports/README.md describes both.
#     run.sh SPION FOLDER CACHE
# CACHE keeps the kernels that reports share. Exit code 77: skipped, and the reason is printed.
set -u
export SPION=$1
folder=$(cd -- "$2" && pwd) || exit 1
scratch=$(mktemp -d) || exit 1
trap 'rm -rf -- "$scratch"' EXIT
mkdir -p -- "$scratch/tmp" "$3"
cp -r -- "$folder" "$scratch/report" && chmod -R u+w "$scratch/report"
export TMPDIR=$scratch/tmp HOME=$scratch LC_ALL=C SPION_CACHE_DIR=$3
unset SPION_VERBOSE XDG_CACHE_HOME

faults=0
fault() {
    printf 'NOT AS EXPECTED: %s\n' "$*"
    faults=$((faults + 1))
}
skip() {
    printf 'skipped: %s\n' "$*"
    exit 77
}
# What cmd printed, stdout and stderr together, holds this text or does not.
said() {
    grep -qF -- "$1" said || fault "it does not say: $1"
}
never_said() {
    ! grep -qF -- "$1" said || fault "it says: $1"
}
# It is these lines and no others.
said_exactly() {
    [[ $(<said) == "$1" ]] || fault "it does not say exactly: $1"
}
# The numbers in its lines "rc N", in order.
exit_codes() {
    local found
    found=$(sed -n 's/^rc \([0-9]*\)$/\1/p' said | tr '\n' ' ')
    [[ $found == "$* " ]] || fault "exit codes are $found, not $*"
}
# So many lines that match a basic regular expression.
lines() {
    local found
    found=$(grep -c -- "$2" said)
    [[ $found == "$1" ]] || fault "$found lines match $2, not $1"
}

cd -- "$scratch/report" || exit 1
bash cmd >"$scratch/said" 2>&1 </dev/null
code=$?
mv -- "$scratch/said" said
[[ $code != 77 ]] || skip "$(tail -1 said)"
# Whatever the report: no fault of ours may be told, nor the process die of it.
never_said 'internal error'
never_said 'terminate called'
source ./check
if ((faults > 0)); then
    printf -- '--- expected:\n%s\n--- said:\n' "$(<expect)"
    cat said
    exit 1
fi
