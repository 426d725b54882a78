# Sizes as Markdown (awk -v heal=WAY): each model as it is and with GPTQ, and what GPTQ costs it.
BEGIN { FS = "\t" }
function fixed(x, n) { return x == "" ? "" : sprintf("%.*f", n, x) }
NR == 1 {
	for (i = 1; i <= NF; i++) at[$i] = i
	print "| model | blocks | parameters | bits | weights MiB | peak MiB, answering | Avg ± se | GPTQ costs, points ± se | p |"
	print "|---|---|---|---|---|---|---|---|---|"
	next
}
{
	ours = $at["removed"] == 0 ? "Original" : "Ours (pruned)"
	printf "| %s | %d | %.2f M | %s |", $at["method"] == "fp" ? ours : ours " + GPTQ", $at["n_blocks"], $at["params"] / 1e6, $at["bits"]
	printf " %s | %s | %s ± %s |", fixed($at["weights_MiB"], 2), fixed($at["peak_MiB"], 0), fixed($at["Avg"], 2), fixed($at["se"], 2)
	n = $at["n"]
	if ($at["method"] == "fp") { print "  |  |"; next }
	# Nothing to pair where every answer is the same.
	cost = $at["diff"] == "" ? 0 : -$at["diff"]
	printf " %s | %s |\n", $at["diff"] == "" ? "0.00" : sprintf("%.2f ± %.2f", cost, $at["diff_se"]), $at["p"]
	if ($at["removed"] > 0 && (!seen++ || cost > most)) { most = cost; where = $at["n_blocks"] }
}
END {
	printf "\nAccuracy in percent on %d questions. Weights: bytes of the model's tensors, head and embeddings at 16 bits; peak: resident\n", n
	print "memory of vqlm-infer. GPTQ costs: points against the same model at 16 bits on the same questions, p by McNemar's mid-p."
	printf "Blocks go by the perplexity of calibration answers, one at a time; healing: %s.\n", heal
	if (seen) printf "The most that GPTQ costs a pruned model is %.2f points (%d blocks).\n", most, where
}
