#!/bin/bash
# What `make bench` runs: a stream beside the plain pipe that carries it, the integer and the float products beside the
# peaks of the processor, the transforms of inputs beside the products, a whole model beside the machine's limits, and the
# model of the demo from checkpoint to answers.  BUILD names the build folder.
set -euo pipefail

cd "$(dirname "$0")/../.."
BUILD=$(realpath "${BUILD:-build}")
demo=pipelines/demo
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

echo "== streams"
"$BUILD/bench/stream"
echo "== integer products"
"$BUILD/bench/qgemm_bench"
echo "== float products"
"$BUILD/bench/gemm16_bench"
echo "== transforms of inputs"
"$BUILD/bench/transform_bench"
echo "== a model of 1.1B parameters with random weights, and CLIP-L/14-336"
GOMP_SPINCOUNT=3000 "$BUILD/bench/model_bench"
echo "== attention"
"$BUILD/bench/attention_bench"
echo "== mini-llava, 2,000 questions"
"$BUILD/bin/vqlm-calib" -q -n 0 -m "$demo/mini-llava" \
	| "$BUILD/bin/vqlm-search" -q --method rtn -w 4 -a 8 \
	| "$BUILD/bin/vqlm-pack" -q -o "$scratch/m.vqm"
for m in "$demo/mini-llava" "$scratch/m.vqm"; do
	"$BUILD/bin/vqlm-infer" -q -m "$m" -d "$demo/mini-sqa/llava_test_CQM-A.json" \
		| tail -n 1 \
		| jq -r --arg m "$(basename "$m")" '"\($m): \(.seconds) s, prefill \(.prefill_tokens_per_second) tokens/s, decode \(.decode_tokens_per_second) tokens/s, peak \(.peak_anon_bytes) bytes"'
done
