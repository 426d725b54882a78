#!/bin/bash
# zeroshot.sh TASK [FILE]: questions of a zero-shot task for vqlm-infer --choices.  FILE (or standard input) has the rows of
# the task's split: JSON Lines or one list, as Hugging Face has them, as they were first released, or of LLM-Adapters'
# instruction files.  TASK: boolq, piqa, hellaswag, winogrande, arc_easy, arc_challenge or openbookqa; of LLM-Adapters' boolq,
# which has no passages, boolq-no-passage.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
case ${1-} in
boolq | piqa | hellaswag | winogrande | arc_easy | arc_challenge | openbookqa | boolq-no-passage) ;;
*)
	echo "usage: zeroshot.sh TASK [FILE], TASK boolq, piqa, hellaswag, winogrande, arc_easy, arc_challenge, openbookqa or boolq-no-passage" >&2
	exit 2
	;;
esac
jq -cn --arg task "$1" -f "$here/zeroshot.jq" "${2:-/dev/stdin}" || exit 3
