#!/bin/bash
# ablation.sh [-j JOBS] BIN OUT [VARIABLE=VALUE...]: what each term of Q-VLM brings and costs, and its partition beside
# others, on the variant with outliers; ablation.tsv, ablation.md and ablation.svg in OUT.  Rows run one after the
# other, each with all the cores, so that their seconds mean something, unless JOBS says otherwise.
set -euo pipefail

# shellcheck source=pipelines/compare.sh
. "$(dirname "$0")/compare.sh"
compare_main ablation.mk 1 ablation "$@"
