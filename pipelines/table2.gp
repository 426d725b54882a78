# Chart of the comparison on the first variant: accuracy and KL divergence of each method at each width, one row of
# panels a scheme.  gnuplot -e "table='table2.tsv'; picture='table2.svg'" table2.gp
set datafile separator "\t"
list(cond, col) = system(sprintf("awk -F'\\t' 'NR > 1 && %s && !seen[$%d]++ { print $%d }' '%s'", cond, col, col, table))
variant = word(list("1", 1), 1)
here = sprintf("$1 == \"%s\" && $4 != \"fp\"", variant)
schemes = list(here, 2)
all = list(here, 4)
place(m) = sum [i=1:words(all)] (word(all, i) eq m ? i : 0)
fp = real(system(sprintf("awk -F'\\t' '$1 == \"%s\" && $4 == \"fp\" { print $11 }' '%s'", variant, table)))
set terminal svg size 1100,(100 + 340 * words(schemes)) font "sans-serif,13" background rgb "white"
set output picture
set style data histogram
set style fill solid 0.9 border rgb "#404040"
set grid ytics lc rgb "#d8d8d8"
set border 3 lc rgb "#606060"
set tics nomirror out
set boxwidth 0.9
set key outside below center horizontal Left reverse samplen 1.5
set datafile missing "NaN"
# A line for each width that this scheme has, whether this method has it or not, so that bars stand under their width.
rows(s, m) = sprintf("< awk -F'\\t' '%s && $2 == \"%s\" { if (!n[$3]++) w[++k] = $3; if ($4 == \"%s\") { a[$3] = $11 \"\\t\" $12; d[$3] = $16 } } END { for (i = 1; i <= k; i++) print w[i] \"\\t\" (w[i] in a ? a[w[i]] : \"NaN\\tNaN\") \"\\t\" (w[i] in d ? d[w[i]] : \"NaN\") }' '%s'", here, s, m, table)
paint(i) = word("0xb0b7c3 0x6f9bd1 0x7fae7a 0xd9822b 0x8e6bbf 0xc94f4f 0x4fa3a5 0x9c8b5a", (i - 1) % 8 + 1) + 0
set multiplot layout words(schemes),2
do for [s in schemes] {
	methods = list(sprintf("%s && $2 == \"%s\"", here, s), 4)
	set title sprintf("%s, --acts %s: accuracy with standard error", variant, s)
	set ylabel "right answers, %"
	unset logscale y
	set format y "%g"
	set yrange [0:112]
	set style histogram errorbars gap 1 lw 1
	set arrow 1 from graph 0,first fp to graph 1,first fp nohead lc rgb "#303030" dt 2
	set label 1 sprintf("full precision %.1f", fp) at graph 0.99,first fp+4 right font ",11"
	plot for [i=1:words(methods)] rows(s, word(methods, i)) using 2:3:xtic(1) title word(methods, i) lc rgb paint(place(word(methods, i)))
	unset arrow 1
	unset label 1
	set title sprintf("%s, --acts %s: distance from full precision", variant, s)
	set ylabel "mean KL divergence, nats"
	set logscale y
	set format y "10^{%T}"
	set yrange [*:*]
	set style histogram clustered gap 1
	plot for [i=1:words(methods)] rows(s, word(methods, i)) using 4:xtic(1) title word(methods, i) lc rgb paint(place(word(methods, i)))
}
unset multiplot
