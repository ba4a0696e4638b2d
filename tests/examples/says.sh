#!/usr/bin/env bash
# says.sh WORDS PROGRAM...: the program ends with 0 and prints WORDS (an extended regular expression
# in which a dot stands for line ends too).
set -uo pipefail
words=$1
shift
printed=$("$@" 2>&1)
status=$?
printf '%s\n' "$printed"
[[ $status == 0 ]] || { echo "$1 ended with $status"; exit 1; }
tr '\n' ' ' <<<"$printed" | grep -qE -- "$words" || { echo "$1 did not print: $words"; exit 1; }
