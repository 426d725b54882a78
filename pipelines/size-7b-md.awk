# The sizes of LLaMA-7B as Markdown, with what the differences are.
BEGIN { FS = "\t" }
NR == 1 {
	print "| size | blocks | parameters | weights, 16 bits | published | rest | weights, W4 g128 | published, GPTQ | rest |"
	print "|---|---|---|---|---|---|---|---|---|"
	next
}
{ printf "| %s | %s | %s | %s | %s | %s | %s | %s | %s |\n", $1, $2, $3, $4, $5, $6, $7, $8, $9; w4 += $9; k4++ }
$6 < 0 { short = $1; full = $4; next }
{ rest += $6; k++ }
END {
	print "\nGiB. Weights are counted from the shapes of LLaMA-7B, embedding and head at 16 bits, scales and zero points included."
	print "Published: the peak of a GPU's memory in the chart of Kim et al. (Shortened LLaMA, arXiv 2402.02834, and its repository);"
	print "rest: what that is above our weights; its authors do not say at which batch it was measured."
	printf "At 16 bits the rest is %.1f on average, cache and activations of a run.", rest / k
	if (short) printf " The published %s is below the weights\nalone and cannot be; with the others' rest it would be %.1f.", short, full + rest / k
	printf "\nWith GPTQ the rest is %.1f: weights are nearly ours (zero points of 4 bits, not 8, and an index of 32 bits for each input\n", w4 / k4
	print "column), so that it is what AutoGPTQ takes to run."
}
