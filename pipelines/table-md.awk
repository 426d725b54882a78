# The demo's TSV as Markdown, with the accuracy and its standard error in one column.
BEGIN { FS = "\t" }
function row(bits, name) {
	printf "| %s | %s |", name, bits
	for (i = 3; i <= 8; i++) printf " %s |", fixed($i, 2)
	printf " %s ± %s |", fixed($10, 2), fixed($11, 2)
	printf " %s | %s | %s |", $12 == "" ? "" : sprintf("%+.2f", $12), $13, $14
	printf " %s | %s | %s | %s |\n", fixed($16, 2), fixed($17, 0), fixed($19, 1), fixed($21, 1)
}
function fixed(x, n) { return x == "" ? "" : sprintf("%.*f", n, x) }
NR == 1 {
	print "| method | bits | NAT | SOC | LAN | TXT | IMG | NO | Avg ± se | vs rtn | p | KL to fp | weights MiB | peak MiB | quantize core s | answer core s |"
	print "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|"
	next
}
{ row($2, $1); n = $22 }
END {
	print ""
	printf "Accuracy in percent on %d questions; vs rtn: points against round-to-nearest of the same bits, on the same\n", n
	print "questions, with McNemar's mid-p; KL: mean divergence of the next-token distribution from full precision, in nats;"
	print "weights: bytes of the model's weights, head and embeddings at 16 bits included; peak: largest resident memory of"
	print "the run; core s: seconds computed on all cores together, for the quantization (after a calibration that all rows"
	print "share) and for the answers to all questions."
}
