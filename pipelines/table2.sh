#!/bin/bash
# table2.sh [-j JOBS] BIN OUT [VARIABLE=VALUE...]: methods by widths by activation schemes on both variants of the
# embedded model; table2.tsv, table2.md and table2.svg in OUT.  JOBS rows run side by side (default: one a core, each
# with its share of the cores).  VARIABLEs are those of compare.mk: METHODS='rtn qvlm' BITS=w4a4 SCHEMES=group ...
# What is finished is kept: run it again after an interruption, or after `rm OUT/outlier/group/w4a4/qvlm.*`.
set -euo pipefail

# shellcheck source=pipelines/compare.sh
. "$(dirname "$0")/compare.sh"
compare_main compare.mk "$(nproc)" table2 "$@"
