#!/usr/bin/env bats
# pipelines/ded.sh: the table of proxies beside what searching pairs of layers together brings.
load common

# table ENTROPY... / DED...: two pairs of layers with the given values in turn.
table() {
	printf 'subset\tsamples\tkind\tunit\tentropy\terror\tcross\terror_plain\terror_layerwise\terror_joint\tded\n'
	paste "$1" "$2" | awk -v OFS='\t' '{ print int((NR - 1) / 2), 8, "decoder", 5 + (NR + 1) % 2, $1, 7, -$1, 0, 0, 0, $2 }'
}

# correlation LAYERS PROXY COLUMN
correlation() {
	awk -F'\t' -v l="$1" -v p="$2" -v c="$3" \
		'$2 == "layers" { for (i = 1; i <= NF; i++) at[$i] = i } $2 == l && $3 == p { print $at[c] }' out
}

@test "correlations are those of numpy, with ties, within and between pairs" {
	printf '%s\n' 1 2 2 5 3 4 4 9 >x
	printf '%s\n' 3 1 3 8 2 9 9 7 >y
	table x y >t.tsv
	awk -f "$ROOT/pipelines/ded.awk" t.tsv >out
	[ "$(correlation all error pearson)" = NA ] # nothing varies
	[ "$(correlation all cross pearson)" = "-$(correlation all entropy pearson)" ]
	[ "$(grep -P '^#\tall' out | cut -f3-)" = "$(grep -P '^#\tdecoder' out | cut -f3-)" ]
	printf '9\t8\tvision\t1\t50\t9\t9\t0\t0\t0\t0\n' >>t.tsv
	awk -f "$ROOT/pipelines/ded.awk" t.tsv | grep decoder | cmp - <(grep decoder out)
	need_program /usr/bin/python3
	/usr/bin/python3 -c 'import numpy' || skip "no numpy"
	run -0 /usr/bin/python3 - <<'P'
import numpy as np
x, y = np.loadtxt("x"), np.loadtxt("y")
r = lambda v: np.array([(v < a).sum() + ((v == a).sum() + 1) / 2 for a in v])
c = lambda a, b: np.corrcoef(a, b)[0, 1]
m = lambda v: np.array([v[0::2].mean(), v[1::2].mean()])
print(*["%.3f" % v for v in (c(x, y), c(r(x), r(y)), c(m(x), m(y)), c(r(m(x)), r(m(y))),
      (c(x[0::2], y[0::2]) + c(x[1::2], y[1::2])) / 2)])
P
	local want=$output
	[ "$(for c in pearson spearman pearson_layers spearman_layers pearson_within; do correlation all entropy $c; done | xargs)" = "$want" ]
}

@test "every pair of neighbours is measured in every subset, and nothing is done twice" {
	export SUBSETS=2 SAMPLES=16
	local calib=$DEMO/mini-sqa/llava_train_calib_CQM-A.json
	bin=$(dirname "$(command -v vqlm-search)")
	run -0 "$ROOT/pipelines/ded.sh" "$bin" d "$DEMO/mini-llava-outlier" "$calib" 4 4 --rows 100 --sweeps 1
	[ -z "$output" ]
	# 4 vision layers have 3 pairs, 5 decoder layers 4; the projector is in none.
	[ "$(grep -v '^#' d/ded.tsv | cut -f1,4 | tail -n +2 | tr '\t\n' ': ')" = \
		"0:0 0:1 0:2 0:5 0:6 0:7 0:8 1:0 1:1 1:2 1:5 1:6 1:7 1:8 " ]
	# No cell is empty; what is searched jointly is never worse, and ded is the difference.
	awk -F'\t' '/^#/ { next } NF != 11 { exit 1 } NR > 1 { for (i = 5; i <= 11; i++) if ($i == "") exit 1
		if ($10 > $9 || $5 <= 0 || $6 <= 0 || $7 <= 0 || ($9 - $10 - $11) ^ 2 > 1e-12) exit 1 }' d/ded.tsv
	[ "$(grep -c '^#' d/ded.tsv)" -eq 7 ]
	figure "correlations with ded: $(grep -P '^#\tall' d/ded.tsv | cut -f3,4,8 | tr '\t\n' ' ;')"
	rm d/ded-1.tsv
	touch -r d/ded-0.tsv before
	cp d/ded.tsv first.tsv
	run -0 "$ROOT/pipelines/ded.sh" "$bin" d "$DEMO/mini-llava-outlier" "$calib" 4 4 --rows 100 --sweeps 1
	[ ! d/ded-0.tsv -nt before ]
	cmp d/ded.tsv first.tsv
}
