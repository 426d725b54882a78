#!/bin/bash
# timed.sh FILE COMMAND...: runs the command and writes its wall-clock seconds to FILE.
set -euo pipefail

file=$1
shift
start=$(date +%s%N)
"$@"
printf '%d.%02d\n' "$((($(date +%s%N) - start) / 1000000000))" "$((($(date +%s%N) - start) / 10000000 % 100))" >"$file"
