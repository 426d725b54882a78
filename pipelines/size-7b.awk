# awk -f size-7b.awk size-7b-published.tsv WEIGHTS: the counted bytes, in GiB, beside the published memory, and what is left of it.
BEGIN { FS = OFS = "\t"; gib = 2 ^ 30 }
/^#/ { next }
$1 == "size" || $1 == "blocks" { if ($1 == "size") print "size", "blocks", "params", "f16_GiB", "f16_published", "f16_rest", "w4_GiB", "w4_published", "w4_rest"; next }
NR == FNR { size[$2] = $1; f16[$2] = $3; w4[$2] = $4; next }
{ printf "%s\t%d\t%s\t%.2f\t%s\t%.2f\t%.2f\t%s\t%.2f\n", size[$1], $1, $2, $3 / gib, f16[$1], f16[$1] - $3 / gib, $4 / gib, w4[$1], w4[$1] - $4 / gib }
