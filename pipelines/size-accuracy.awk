# awk -f size-accuracy.awk OUT/*/size.tsv -: the rows of compare.mk (stdin) with what each size.tsv says of their
# variant: blocks that were removed, blocks that are left, weights.
BEGIN { FS = OFS = "\t" }
FILENAME != "-" { size[$1] = $2 OFS $3 OFS $4; next }
$1 == "variant" { print $0, "removed", "n_blocks", "params"; next }
{ print $0, size[$1] }
