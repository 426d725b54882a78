#!/bin/bash
# size-accuracy.sh [-j JOBS] BIN OUT [VARIABLE=VALUE...]: size and accuracy of the embedded model with blocks of its
# decoder removed, each size as it is and with four-bit weights; size-accuracy.tsv, .md and .svg in OUT.  JOBS sizes are
# made side by side (default: one after the other).  REMOVED='0 1 2' says how many blocks go, HEAL=lora or linear heals
# what is left, MODEL is another checkpoint; the others are those of compare.mk.
set -euo pipefail

# shellcheck source=pipelines/compare.sh
. "$(dirname "$0")/compare.sh"
compare_main size-accuracy.mk 1 size-accuracy "$@"
