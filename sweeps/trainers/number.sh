#!/bin/sh
# The least that a trainer can be: sh number.sh PARAMS TOKENS OUT writes a size and a loss, here of a formula.
set -eu
loss=$(awk -v n="$1" -v d="$2" 'BEGIN { printf "%.5f", 1.4 + 9 / n ^ 0.2 + 3000 / d ^ 0.65 }')
printf '{"params": %s, "tokens": %s, "loss": %s, "loss_on": "a formula"}\n' "$1" "$2" "$loss" > "$3/result.json"
