# Correlations of the proxies with ded in the table of ded.sh, a line for each proxy over all layers and over the
# decoder's, after a line of names, all behind "#":
#   pearson, spearman                over all pairs of layers and subsets of samples
#   pearson_layers, spearman_layers  over pairs of layers, each the mean of its subsets: which pairs to join
#   pearson_within                   within a pair over subsets, mean over pairs: what the paper's figures show
# NA where nothing varies.
BEGIN { FS = OFS = "\t"; split("entropy error cross", name, " ") }
NR == 1 { for (i = 1; i <= NF; i++) at[$i] = i; next }
{
	rows++
	kind[rows] = $at["kind"]
	unit[rows] = $at["unit"]
	ded[rows] = $at["ded"]
	for (p = 1; p <= 3; p++) proxy[p, rows] = $at[name[p]]
}
# Of u[1..m] and v[1..m].
function pearson(u, v, m,    i, a, b, uu, vv, uv) {
	for (i = 1; i <= m; i++) { a += u[i] / m; b += v[i] / m }
	for (i = 1; i <= m; i++) { uu += (u[i] - a) ^ 2; vv += (v[i] - b) ^ 2; uv += (u[i] - a) * (v[i] - b) }
	return uu > 1e-24 * a * a && vv > 1e-24 * b * b ? uv / sqrt(uu * vv) : "NA"
}
# Ranks, ties at their mean.
function rank(u, r, m,    i, j, less, same) {
	for (i = 1; i <= m; i++) {
		less = same = 0
		for (j = 1; j <= m; j++) { less += u[j] < u[i]; same += u[j] == u[i] }
		r[i] = less + (same + 1) / 2
	}
}
function spearman(u, v, m,    r, s) {
	rank(u, r, m)
	rank(v, s, m)
	return pearson(r, s, m)
}
function show(c) { return c == "NA" ? c : sprintf("%.3f", c) }
# Rows of a kind of layers ("all": any) into x, y and, pair by pair, their means into mx, my; returns how many.
function take(p, layers,    i, k, n) {
	split("", pair)
	n_pairs = n = 0
	for (i = 1; i <= rows; i++) {
		if (layers != "all" && kind[i] != layers) continue
		n++
		x[n] = proxy[p, i] + 0
		y[n] = ded[i] + 0
		if (!(unit[i] in pair)) { pair[unit[i]] = ++n_pairs; count[n_pairs] = mx[n_pairs] = my[n_pairs] = 0 }
		of[n] = k = pair[unit[i]]
		count[k]++
		mx[k] += x[n]
		my[k] += y[n]
	}
	for (k = 1; k <= n_pairs; k++) { mx[k] /= count[k]; my[k] /= count[k] }
	return n
}
function within(n,    k, i, m, u, v, c, sum, got) {
	for (k = 1; k <= n_pairs; k++) {
		m = 0
		for (i = 1; i <= n; i++) if (of[i] == k) { u[++m] = x[i]; v[m] = y[i] }
		c = pearson(u, v, m)
		if (c != "NA") { sum += c; got++ }
	}
	return got ? sum / got : "NA"
}
function line(p, layers,    n) {
	n = take(p, layers)
	print "#", layers, name[p], show(pearson(x, y, n)), show(spearman(x, y, n)), show(pearson(mx, my, n_pairs)), \
		show(spearman(mx, my, n_pairs)), show(within(n)), n
}
END {
	print "#", "layers", "proxy", "pearson", "spearman", "pearson_layers", "spearman_layers", "pearson_within", "n"
	for (p = 1; p <= 3; p++) line(p, "all")
	for (p = 1; p <= 3; p++) line(p, "decoder")
}
