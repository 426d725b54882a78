#!/bin/bash
# table4.sh [-j JOBS] BIN OUT [VARIABLE=VALUE...]: memory, time and accuracy of full precision, W8A8 and W4A4 for each
# method on the variant with outliers; table4.tsv, table4.md and table4.svg in OUT.  Rows run one after the other, each
# with all the cores, so that their seconds mean something, unless JOBS says otherwise.
set -euo pipefail

# shellcheck source=pipelines/compare.sh
. "$(dirname "$0")/compare.sh"
compare_main compare.mk 1 table4 VARIANTS=outlier SCHEMES=group "BITS=w8a8 w4a4" "$@"
