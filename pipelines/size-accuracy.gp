# Memory and accuracy against the number of parameters, a pair of bars a size: at 16 bits, with GPTQ.
# gnuplot -e "table='size-accuracy.tsv'; picture='size-accuracy.svg'" size-accuracy.gp
set datafile separator "\t"
# Bars by size: place, millions of parameters, whether whole, whether GPTQ, then the columns that are named.
bars(whole, gptq, names) = sprintf("< awk -F'\\t' -v whole=%d -v gptq=%d -v names='%s' 'NR == 1 { for (i = 1; i <= NF; i++) at[$i] = i; n = split(names, name, \" \"); next } { p[NR] = $at[\"params\"] } ($at[\"removed\"] == 0) == whole && ($at[\"method\"] != \"fp\") == gptq { row[++k] = NR; for (i = 1; i <= n; i++) cell[k, i] = $at[name[i]] } END { for (j = 1; j <= k; j++) { place = 1; split(\"\", seen); for (r in p) if (p[r] + 0 < p[row[j]] + 0 && !seen[p[r]]++) place++; printf \"%%d\\t%%.2f M\", place, p[row[j]] / 1e6; for (i = 1; i <= n; i++) printf \"\\t%%s\", cell[j, i]; print \"\" } }' '%s'", whole, gptq, names, table)
sizes = int(system(sprintf("awk -F'\\t' 'NR > 1 && !n[$1]++ { k++ } END { print k }' '%s'", table)))
set terminal svg size 1100,440 font "sans-serif,13" background rgb "white"
set output picture
set style fill solid 0.9 border rgb "#404040"
set grid ytics lc rgb "#d8d8d8"
set border 3 lc rgb "#606060"
set tics nomirror out
set boxwidth 0.36
set xrange [0.4:sizes + 0.6]
set xlabel "parameters"
set key outside below center horizontal Left reverse samplen 1.5
array titles[4] = ["Ours (pruned)", "Ours + GPTQ", "Original", "Original + GPTQ"]
paint(i) = word("0x6f9bd1 0xd9822b 0x9aa3b0 0xe8c39a", i) + 0
# i = 1..4 are ours and the original, without GPTQ and with it.
data(i, names) = bars(i > 2, i % 2 == 0, names)
side(i) = i % 2 == 0 ? 0.2 : -0.2
set multiplot layout 1,2
set title "Memory: weights, and the resident peak while answering (light)"
set ylabel "MiB"
set yrange [0:*]
plot for [i = 1:4] data(i, "peak_MiB") using ($1 + side(i)):3 with boxes fs solid 0.25 border rgb "#b0b0b0" lc rgb paint(i) notitle, \
	for [i = 1:4] data(i, "weights_MiB") using ($1 + side(i)):3 with boxes lc rgb paint(i) title titles[i], \
	for [i = 1:4] data(i, "weights_MiB") using ($1 + side(i)):3:(sprintf("%.1f", $3)) with labels offset 0,0.6 font ",10" notitle, \
	for [i in "1 3"] data(int(i), "weights_MiB") using 1:(0):xtic(2) with points ps 0 notitle
set title "Average accuracy, test split, with standard error"
set ylabel "right answers, %"
set yrange [0:112]
plot for [i = 1:4] data(i, "Avg se") using ($1 + side(i)):3:4 with boxerrorbars lc rgb paint(i) title titles[i], \
	for [i = 1:4] data(i, "Avg se") using ($1 + side(i)):3:(sprintf("%.2f", $3)) with labels offset 0,0.9 font ",9" notitle, \
	for [i in "1 3"] data(int(i), "Avg se") using 1:(0):xtic(2) with points ps 0 notitle
unset multiplot
