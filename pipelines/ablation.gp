# Chart of the ablation: what each search costs and how far from full precision its model is, one panel a width.
# gnuplot -e "table='ablation.tsv'; picture='ablation.svg'" ablation.gp
set datafile separator "\t"
place(name) = int(system(sprintf("awk -F'\\t' 'NR == 1 { for (i = 1; i <= NF; i++) if ($i == \"%s\") print i }' '%s'", name, table)))
widths = system(sprintf("awk -F'\\t' 'NR > 1 && $4 != \"fp\" && !seen[$3]++ { print $3 }' '%s'", table))
kl = place("kl_fp")
forwards = place("forwards")
points(part, w, re) = sprintf("< awk -F'\\t' '$2 == \"%s\" && $3 == \"%s\" && $4 ~ /%s/ { print $%d \"\\t\" $%d \"\\t\" $4 }' '%s'", part, w, re, forwards, kl, table)
set terminal svg size 1100,480 font "sans-serif,13" background rgb "white"
set output picture
set grid lc rgb "#d8d8d8"
set border 3 lc rgb "#606060"
set tics nomirror out
set key outside below center horizontal Left reverse samplen 1.5
set xlabel "cost of the search, layer forwards"
set xrange [0:*]
set yrange [0:*]
set offsets graph 0, graph 0.12, graph 0.1, 0
set multiplot layout 1,words(widths)
do for [w in widths] {
	set title sprintf("%s: distance from full precision", w)
	set ylabel "mean KL divergence, nats"
	plot points("terms", w, ".") using 1:2 with points pt 7 ps 1.2 lc rgb "#d9822b" title "terms", \
		points("blocks", w, "^[efr]") using 1:2 with points pt 5 ps 1 lc rgb "#6f9bd1" title "partitions", \
		points("terms", w, ".") using 1:2:3 with labels left offset 0.8,0.4 font ",10" notitle, \
		points("blocks", w, "^[ef]") using 1:2:3 with labels left offset 0.8,-0.4 font ",10" notitle
}
unset multiplot
