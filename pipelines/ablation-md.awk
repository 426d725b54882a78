# The ablation's TSV as Markdown: the terms, the partitions, and the ratios that the paper's claims are about.
# ded (-v ded=FILE), where given, is the table of ded.sh, whose correlations come last.
BEGIN {
	FS = "\t"
	what["layerwise"] = "layer-wise clips"
	what["single"] = "block-wise search, blocks of one layer"
	what["cdm"] = "+ blocks by entropy (CDM)"
	what["veo"] = "+ effect on the final output (VEO)"
	what["qvlm"] = "+ both (Q-VLM)"
	what["entropy"] = "entropy"
	what["median"] = "entropy, threshold the median"
	what["upper"] = "entropy, threshold the upper quartile"
	what["error"] = "quantization error as the proxy"
	what["fixed2"] = "every two layers"
	what["fixed3"] = "every three layers"
}
function fixed(x, n) { return x == "" ? "" : sprintf("%.*f", n, x) }
function max(a, b) { return a > b ? a : b }
NR == 1 { for (i = 1; i <= NF; i++) at[$i] = i; next }
$at["method"] == "fp" { full = $at["Avg"]; full_se = $at["se"]; n = $at["n"]; next }
{
	if (!($3 in width)) { width[$3] = 1; widths[++nw] = $3 }
	if (!(($2, $4) in listed)) { listed[$2, $4] = 1; names[$2] = names[$2] " " $4 }
	for (i = 1; i <= NF; i++) cell[$2, $3, $4, at_name(i)] = $i
}
function at_name(i,    k) { for (k in at) if (at[k] == i) return k }
function get(part, w, m, k) { return cell[part, w, m, k] }
function total(part, w, m) { return get(part, w, m, "calib_s") + get(part, w, m, "quantize_s") }
function have(part, w, m) { return (part, w, m, "Avg") in cell }
function name(m) { return m in what ? what[m] : m ~ /^random/ ? "random, seed " substr(m, 7) : m }
function header(against) {
	print "| bits | search | blocks | Avg ± se | vs " against " ± se | p | KL to fp | flips | calib s | search s | block outputs | layer forwards |"
	print "|---|---|---|---|---|---|---|---|---|---|---|---|"
}
function rows(part, w,    m, k, i) {
	k = split(names[part], m, " ")
	for (i = 1; i <= k; i++) {
		if (!have(part, w, m[i])) continue
		printf "| %s | %s | %d | %s ± %s |", w, name(m[i]), get(part, w, m[i], "blocks"), fixed(get(part, w, m[i], "Avg"), 2), fixed(get(part, w, m[i], "se"), 2)
		printf " %s | %s |", get(part, w, m[i], "diff") == "" ? "" : sprintf("%+.2f ± %.2f", get(part, w, m[i], "diff"), get(part, w, m[i], "diff_se")), get(part, w, m[i], "p")
		printf " %s | %d | %.1f | %.1f | %d | %.0f |\n", get(part, w, m[i], "kl_fp"), get(part, w, m[i], "flips"), get(part, w, m[i], "calib_s"), get(part, w, m[i], "quantize_s"), get(part, w, m[i], "evaluations"), get(part, w, m[i], "forwards")
	}
}
# Cost of a over cost of b, three or four ways: layer-wise search evaluates places, not block outputs.
function ratio(part, w, a, b) {
	return (part == "terms" ? "" : sprintf("%.2f in block outputs, ", get(part, w, a, "evaluations") / get(part, w, b, "evaluations"))) \
		sprintf("%.2f in layer forwards, %.2f in seconds of search, %.2f in seconds with calibration",
		get(part, w, a, "forwards") / get(part, w, b, "forwards"), get(part, w, a, "quantize_s") / get(part, w, b, "quantize_s"), total(part, w, a) / total(part, w, b))
}
function versus(part, w, m) {
	return sprintf("accuracy %+.2f ± %.2f points (p %s), KL %s against %s", get(part, w, m, "diff"), get(part, w, m, "diff_se"), get(part, w, m, "p"), get(part, w, m, "kl_fp"), get(part, w, part == "terms" ? "layerwise" : "entropy", "kl_fp"))
}
function randoms(w,    m, k, i, s, ss, q, c, f, better, lo, hi, x) {
	k = split(names["blocks"], m, " ")
	for (i = 1; i <= k; i++)
		if (m[i] ~ /^random/ && have("blocks", w, m[i])) {
			x = get("blocks", w, m[i], "Avg"); c++; s += x; ss += x * x
			q += get("blocks", w, m[i], "kl_fp"); f += get("blocks", w, m[i], "forwards")
			if (get("blocks", w, m[i], "kl_fp") + 0 < get("blocks", w, "entropy", "kl_fp") + 0) better++
		}
	if (!c) return
	ss = (ss - s * s / c) / max(c - 1, 1)
	printf "- %s, random partitions (%d seeds): accuracy %.2f on average, standard deviation %.2f; KL %.3g; %.0f layer forwards. Entropy: %s, %s, %.0f. %d of %d random ones have a smaller KL than entropy's.\n", \
		w, c, s / c, sqrt(max(ss, 0)), q / c, f / c, fixed(get("blocks", w, "entropy", "Avg"), 2), get("blocks", w, "entropy", "kl_fp"), get("blocks", w, "entropy", "forwards"), better, c
}
END {
	printf "mini-llava-outlier, %d questions; full precision %s ± %s. Seconds are wall-clock, one row after the other.\n\n", n, fixed(full, 2), fixed(full_se, 2)
	print "**The terms one by one** (the paper's Table 1 and the row it lacks, block-wise search without either term)\n"
	header("layer-wise")
	for (i = 1; i <= nw; i++) rows("terms", widths[i])
	print "\nThe paper, LLaVA-v1.3-7B, W4A4: baseline 77.53 at cost 23.5, + CDM 78.66 at 25.9, + VEO 78.35 at 23.7, both 79.79 at 24.6 (no unit is given).\n"
	print "**The partition**, at most three layers a block, without the effect on the final output\n"
	header("entropy")
	for (i = 1; i <= nw; i++) rows("blocks", widths[i])
	print "\nThe paper's Table 5 (7B, W4A4): error as the proxy 77.97 at cost 41.2, entropy 78.66 at 25.9; it has neither fixed nor random partitions.\n"
	print "**Ratios**\n"
	for (i = 1; i <= nw; i++) {
		w = widths[i]
		if (have("terms", w, "qvlm") && have("terms", w, "layerwise"))
			printf "- %s, Q-VLM to layer-wise: cost %s (the paper: %.2f); %s.\n", w, ratio("terms", w, "qvlm", "layerwise"), 24.6 / 23.5, versus("terms", w, "qvlm")
		if (have("blocks", w, "entropy") && have("blocks", w, "fixed3"))
			printf "- %s, entropy to every three layers: cost %s; every three layers to entropy: %s.\n", w, ratio("blocks", w, "entropy", "fixed3"), versus("blocks", w, "fixed3")
		if (have("blocks", w, "upper") && have("blocks", w, "fixed3"))
			printf "- %s, entropy with the upper quartile as threshold to every three layers: cost %s; to entropy: %s.\n", w, ratio("blocks", w, "upper", "fixed3"), versus("blocks", w, "upper")
		if (have("blocks", w, "entropy") && have("blocks", w, "error"))
			printf "- %s, error as the proxy to entropy: cost %s (the paper: %.2f); calibration with errors measured takes %.2f times as long as without; %s.\n", w, ratio("blocks", w, "error", "entropy"), 41.2 / 25.9, get("blocks", w, "error", "calib_s") / get("blocks", w, "entropy", "calib_s"), versus("blocks", w, "error")
		randoms(w)
	}
	if (ded) correlations()
}
# ded.sh's lines behind "#", a header first.
function correlations(    text, f, k, n) {
	print "\n**Proxies beside the measured dependency**: the pair's output error after layer-wise search less that after the joint one\n"
	while ((getline text < ded) > 0) {
		if (text !~ /^#/) continue
		k = split(text, f, "\t")
		printf "|"
		for (i = 2; i <= k; i++) printf " %s |", f[i]
		print ""
		if (n++) continue
		printf "|"
		for (i = 2; i <= k; i++) printf "---|"
		print ""
	}
	close(ded)
	print "\npearson, spearman: over all pairs of layers and subsets of samples; _layers: over pairs of layers, each the mean of its subsets;"
	print "_within: within a pair over subsets, mean over pairs, as the paper's figures show it: 0.97 for entropy, 0.81 for error."
}
