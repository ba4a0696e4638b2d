#!/usr/bin/env bash
# exported_symbols.sh LIBSPION: the library exports the functions of spion_c.h and its parts and nothing
# else, so that no other LLVM, fmt or C++ library in the process can meet its own.
set -euo pipefail
headers=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)/include/spion
exported=$(nm --dynamic --defined-only --extern-only "$1" | awk '$2 != "A" {print $3}' | sed 's/@.*//' | sort -u)
declared=$(cat "$headers"/spion_c*.h | tr '\n' ' ' | grep -oE 'SPION_API [^;(]*\(' | grep -oE 'spion_[a-z0-9_]+\(' |
    tr -d '(' | sort -u)
[[ $(wc -l <<<"$declared") -gt 20 ]] || { echo "few functions were found in $headers" >&2; exit 1; }
if [[ $exported != "$declared" ]]; then
    echo "exported (<) and declared (>) differ:" >&2
    diff <(echo "$exported") <(echo "$declared") >&2
    exit 1
fi
echo "$(wc -l <<<"$exported") functions"
