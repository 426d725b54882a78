# Chart of the demo: accuracy and KL divergence of each method at each number of bits.
# gnuplot -e "table='table.tsv'; picture='chart.svg'" chart.gp
set terminal svg size 900,420 font "sans-serif,13" background rgb "white"
set output picture
set datafile separator "\t"
set style data histogram
set style fill solid 0.9 border rgb "#404040"
set grid ytics lc rgb "#d8d8d8"
set border 3 lc rgb "#606060"
set tics nomirror out
set boxwidth 0.9
set multiplot layout 1,2
rows(m, col, col2) = sprintf("< awk -F'\\t' '$1 == \"%s\" { print $2 \"\\t\" $%d \"\\t\" $%d }' '%s'", m, col, col2, table)
methods = system(sprintf("awk -F'\\t' 'NR > 1 && $1 != \"fp\" && !seen[$1]++ { print $1 }' '%s'", table))
paint(m) = m eq 'rtn' ? 0xb0b7c3 : m eq 'layerwise' ? 0x6f9bd1 : m eq 'qvlm' ? 0xd9822b : 0x7fae7a
fp = real(system(sprintf("awk -F'\\t' '$1 == \"fp\" { print $10 }' '%s'", table)))

set title "Accuracy, test split, with standard error"
set ylabel "right answers, %"
set key outside below center horizontal Left reverse samplen 1.5
set yrange [0:112]
set style histogram errorbars gap 1 lw 1
set arrow 1 from graph 0,first fp to graph 1,first fp nohead lc rgb "#303030" dt 2
set label 1 sprintf("full precision %.1f", fp) at graph 0.99,first fp+3 right font ",11"
plot for [m in methods] rows(m, 10, 11) using 2:3:xtic(1) title m lc rgb paint(m)

unset arrow 1
unset label 1
set title "Distance from full precision"
set ylabel "mean KL divergence, nats"
set logscale y
set format y "10^{%T}"
set yrange [*:*]
set style histogram clustered gap 1
plot for [m in methods] rows(m, 14, 14) using 2:xtic(1) title m lc rgb paint(m)
unset multiplot
