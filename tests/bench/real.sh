#!/bin/bash
# real.sh [OUT]: two real models, ViT-Tiny and stories260K, quantized by every method, in tables.
#
# OUT (default build/real) gets vit.tsv, stories.tsv and tables.md.  A row that is there already is not made again.
# MODELS, METHODS, SCHEMES (weight bits - activation bits) and SIZES (of groups; 0 is a channel, or a token) choose the
# rows; BUILD names the build folder, VQLM_DATA the public data.
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
build=$(realpath "${BUILD:-$root/build}")
data=${VQLM_DATA:-$root/../shared/data}
out=${1:-$build/real}
read -ra models <<<"${MODELS:-vit stories}"
read -ra methods <<<"${METHODS:-rtn nf4 awq gptq gptq+ best}"
read -ra sizes <<<"${SIZES:-64 0}"
declare -A schemes=([vit]=${SCHEMES:-4-16 4-4} [stories]=${SCHEMES:-4-16 4-4 3-16})
declare -A folder=([vit]=vit-tiny [stories]=stories260k)
declare -A flags=(
	[rtn]='--method rtn'
	[layerwise]='--method layerwise'
	[nf4]='--method nf4'
	[awq]='--method awq --awq-loss joint'
	[gptq]='--method gptq'
	[gptq+]='--method gptq --act-order --gptaq 0.25 --polish 3 --w-clip mse'
	[best]='--method best'
)
declare -A threads=([vit]=0 [stories]=1) # the second is too small to be shared
PATH=$build/bin:$PATH
export GOMP_SPINCOUNT=${GOMP_SPINCOUNT:-3000} # as the tools set it for themselves

for model in "${models[@]}"; do
	[ -n "${folder[$model]:-}" ] || { echo "real.sh: no model '$model'" >&2; exit 2; }
	[ -d "$data/${folder[$model]}" ] || { echo "real.sh: no ${folder[$model]} under VQLM_DATA" >&2; exit 4; }
done
for method in "${methods[@]}"; do
	[ -n "${flags[$method]:-}" ] || { echo "real.sh: no method '$method'; there are ${!flags[*]}" >&2; exit 2; }
done
mkdir -p "$out"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# whole FILE COMMAND...: FILE is what the command prints, or is not there.
whole() {
	local file=$1
	shift
	[ -e "$file" ] || { "$@" >"$file.part" && mv "$file.part" "$file"; }
}
vit() { "$build/bench/vit" "$1" "$data/${folder[vit]}" "${@:2}"; }
stories() { "$build/bench/stories" "$1" "$data/${folder[stories]}" "${@:2}"; }

# What the model is judged by: pictures, same top 1 and mean KL divergence; or tokens and perplexity.
judge_vit() {
	vit logits "$@" >"$scratch/logits"
	"$build/bench/vit" compare "$scratch/logits" "$out/vit-float.vqs" | cut -f1-3
}
judge_stories() { stories ppl "$@" | cut -f2-3; }

# row MODEL METHOD W-A GROUP
row() {
	local model=$1 method=$2 w=${3%-*} a=${3#*-} group=$4 start how
	read -ra how <<<"${flags[$method]}"
	[ "$model" != vit ] || how+=(--parts vision)
	start=$(date +%s.%N)
	vqlm-search -q -t "${threads[$model]}" --rows 0 "${how[@]}" -w "$w" -a "$a" --group "$group" --act-group "$group" <"$out/$model.vqs" \
		| vqlm-pack -q -o "$scratch/m.vqm" || return
	printf '%s\t%s\t%s\t%s\t%.1f\n' "$method" "W${w}A$a" "$group" "$("judge_$model" "$scratch/m.vqm")" \
		"$(bc <<<"$(date +%s.%N) - $start")"
}

declare -A head=([vit]=$'pictures\tsame_top1\tkl' [stories]=$'tokens\tperplexity')
for model in "${models[@]}"; do
	whole "$out/$model.vqs" "$model" stream
	[ "$model" != vit ] || whole "$out/vit-float.vqs" vit logits
	whole "$out/$model-float.row" "judge_$model"
	rows=()
	for scheme in ${schemes[$model]}; do
		for size in "${sizes[@]}"; do
			for method in "${methods[@]}"; do
				[ "$method" != nf4 ] || [ "$size" = 64 ] || continue # its blocks are of 64
				name=$out/$model-$method-$scheme-g$size.row
				[ -e "$name" ] || echo "real: $model $method $scheme, groups of $size" >&2
				whole "$name" row "$model" "$method" "$scheme" "$size"
				rows+=("$name")
			done
		done
	done
	# Of what rounding to nearest lost in the same scheme, the share that a method has back.
	{
		printf 'method\tscheme\tgroup\t%s\tseconds\trecovered\n' "${head[$model]}"
		printf 'float32\t-\t-\t%s\t-\t-\n' "$(cat "$out/$model-float.row")"
		cat "${rows[@]}"
	} | awk -F'\t' -v OFS='\t' '
		NR == 1 { for (i = 1; i <= NF; i++) if ($i == "kl" || $i == "perplexity") at = i }
		NR == 2 { float = $at }
		NR > 2 {
			if ($1 == "rtn") rtn[$2 $3] = $at
			lost = rtn[$2 $3] - float
			$(NF + 1) = $1 != "rtn" && lost > 0 ? sprintf("%.0f %%", 100 * (rtn[$2 $3] - $at) / lost) : "-"
		}
		{ print }' >"$out/$model.tsv"
done

for model in "${models[@]}"; do
	printf '## %s\n\n' "${folder[$model]}"
	awk -F'\t' '{ gsub(/\t/, " | "); print "| " $0 " |" } NR == 1 { gsub(/[^|]+/, " --- "); print "|" $0 "|" }' "$out/$model.tsv"
	echo
done >"$out/tables.md"
cat "$out/tables.md"
