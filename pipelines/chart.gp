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
fp = real(system(sprintf("awk -F'\\t' '$1 == \"fp\" { print $10 }' '%s'", table)))

set title "Accuracy, test split, with standard error"
set ylabel "right answers, %"
set key outside below center horizontal Left reverse samplen 1.5
set yrange [0:112]
set style histogram errorbars gap 1 lw 1
set arrow 1 from graph 0,first fp to graph 1,first fp nohead lc rgb "#303030" dt 2
set label 1 sprintf("full precision %.1f", fp) at graph 0.99,first fp+3 right font ",11"
plot rows('rtn', 10, 11) using 2:3:xtic(1) title "rtn" lc rgb "#b0b7c3", \
     rows('layerwise', 10, 11) using 2:3 title "layerwise" lc rgb "#6f9bd1", \
     rows('qvlm', 10, 11) using 2:3 title "qvlm" lc rgb "#d9822b"

unset arrow 1
unset label 1
set title "Distance from full precision"
set ylabel "mean KL divergence, nats"
set logscale y
set format y "10^{%T}"
set yrange [*:*]
set style histogram clustered gap 1
plot rows('rtn', 14, 14) using 2:xtic(1) title "rtn" lc rgb "#b0b7c3", \
     rows('layerwise', 14, 14) using 2 title "layerwise" lc rgb "#6f9bd1", \
     rows('qvlm', 14, 14) using 2 title "qvlm" lc rgb "#d9822b"
unset multiplot
