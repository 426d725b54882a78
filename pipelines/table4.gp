# Chart of memory, time and accuracy: one panel each, clusters by width.
# gnuplot -e "table='table4.tsv'; picture='table4.svg'" table4.gp
set datafile separator "\t"
place(name) = int(system(sprintf("awk -F'\\t' 'NR == 1 { for (i = 1; i <= NF; i++) if ($i == \"%s\") print i }' '%s'", name, table)))
methods = system(sprintf("awk -F'\\t' 'NR > 1 && $4 != \"fp\" && !seen[$4]++ { print $4 }' '%s'", table))
fp(name) = real(system(sprintf("awk -F'\\t' '$4 == \"fp\" { print $%d }' '%s'", place(name), table)))
rows(m, name) = sprintf("< awk -F'\\t' '$4 == \"%s\" { print $3 \"\\t\" $%d }' '%s'", m, place(name), table)
set terminal svg size 1100,400 font "sans-serif,13" background rgb "white"
set output picture
set style data histogram
set style histogram clustered gap 1
set style fill solid 0.9 border rgb "#404040"
set grid ytics lc rgb "#d8d8d8"
set border 3 lc rgb "#606060"
set tics nomirror out
set boxwidth 0.9
set yrange [0:*]
set key outside below center horizontal Left reverse samplen 1.5
paint(i) = word("0xb0b7c3 0x6f9bd1 0x7fae7a 0xd9822b 0x8e6bbf 0xc94f4f 0x4fa3a5 0x9c8b5a", (i - 1) % 8 + 1) + 0
names = "weights_MiB answer_s Avg"
array titles[3] = ["Weights", "All answers", "Right answers"]
array units[3] = ["MiB", "seconds", "%"]
set multiplot layout 1,3
do for [k = 1:3] {
	full = fp(word(names, k))
	set title sprintf("%s (full precision %.1f)", titles[k], full)
	set ylabel units[k]
	set yrange [0:full * 1.1]
	set arrow 1 from graph 0,first full to graph 1,first full nohead lc rgb "#303030" dt 2
	plot for [i = 1:words(methods)] rows(word(methods, i), word(names, k)) using 2:xtic(1) title word(methods, i) lc rgb paint(i)
}
unset multiplot
