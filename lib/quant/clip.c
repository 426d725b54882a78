/* Clip ratios from percentiles. */
#include "quant/clip.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

const double vq_clip_percentiles[VQ_N_PERCENTILES] = {1.0, 0.995, 0.99, 0.985, 0.98};

void vq_clip_init(struct vq_clip_hist *h, uint32_t group, int sym)
{
	memset(h, 0, sizeof(*h));
	h->group = group;
	h->sym = sym;
}

static uint32_t bin(float u)
{
	int32_t i = (int32_t)ceilf(u * VQ_CLIP_BINS) - 1;

	return i < 0 ? 0 : i >= VQ_CLIP_BINS ? VQ_CLIP_BINS - 1 : (uint32_t)i;
}

/* One group; returns how many values it counted. */
static uint32_t add_group(const float *x, uint32_t n, int sym, uint32_t *count)
{
	float min = 0, max = 0, up, down;
	uint32_t i;

	for (i = 0; i < n; i++) {
		min = x[i] < min ? x[i] : min;
		max = x[i] > max ? x[i] : max;
	}
	if (sym)
		max = -min > max ? -min : max, min = -max;
	if (max == 0 && min == 0)
		return 0;
	up = max > 0 ? 1 / max : 0;
	down = min < 0 ? 1 / min : 0;
	if (!isfinite(up) || !isfinite(down)) /* a range of subnormals */
		return 0;
	for (i = 0; i < n; i++)
		count[bin(x[i] > 0 ? x[i] * up : x[i] * down)]++;
	/* Less the ends: one value that reaches the bound, or one on each side. */
	i = sym || up == 0 || down == 0 ? 1 : 2;
	count[VQ_CLIP_BINS - 1] -= i;
	return n - i;
}

/* Counts are whole numbers, so the order in which threads add theirs does not matter. */
void vq_clip_add(struct vq_clip_hist *h, const float *x, size_t rows, uint32_t n)
{
	uint32_t group = h->group == 0 || h->group > n ? n : h->group;
	size_t slice = n ? ((size_t)1 << 20) / n + 1 : 1;
	long long s, n_slices = (long long)((rows + slice - 1) / slice);

#pragma omp parallel for schedule(dynamic, 1) if (n_slices > 1)
	for (s = 0; s < n_slices; s++) {
		uint32_t count[VQ_CLIP_BINS] = {0}, at, m;
		uint64_t total = 0;
		size_t r, end = (size_t)s * slice + slice;

		for (r = (size_t)s * slice; r < end && r < rows; r++)
			for (at = 0; at < n; at += m) {
				m = n - at < group ? n - at : group;
				total += add_group(x + r * n + at, m, h->sym, count);
			}
#pragma omp critical(vq_clip)
		{
			for (at = 0; at < VQ_CLIP_BINS; at++)
				h->count[at] += count[at];
			h->total += total;
		}
	}
}

float vq_clip_ratio(const struct vq_clip_hist *h, double p)
{
	double want = (2 * p - 1) * (double)h->total, below = 0;
	uint32_t i;

	if (h->total == 0 || p >= 1)
		return 1;
	for (i = 0; i < VQ_CLIP_BINS - 1; i++) {
		if (below + (double)h->count[i] >= want)
			break;
		below += (double)h->count[i];
	}
	/* Values that lie at the very end of their range fill the last bin with a heap, not a slope. */
	if (i == VQ_CLIP_BINS - 1)
		return 1;
	below = h->count[i] ? (want - below) / (double)h->count[i] : 1;
	below = ((double)i + (below > 0 ? below : 0)) / VQ_CLIP_BINS;
	return (float)(below > 1.0 / VQ_CLIP_BINS ? below : 1.0 / VQ_CLIP_BINS);
}

static int ascending(const void *a, const void *b)
{
	float x = *(const float *)a, y = *(const float *)b;

	return (x > y) - (x < y);
}

void vq_clip_ranks(size_t n, double p, size_t *lo, size_t *hi)
{
	/* .995 has no exact double: a whole number of values must not fall short by a rounding. */
	double a = floor((double)n * (1 - p) + 1e-6), b = floor((double)n * p + 1e-6);

	*lo = a < (double)n - 1 ? (size_t)a : n - 1;
	*hi = b < (double)n - 1 ? (size_t)b : n - 1;
}

void vq_clip_bounds(float *x, size_t n, double p, float *lo, float *hi)
{
	size_t a, b;

	*lo = *hi = 0;
	if (n == 0)
		return;
	vq_clip_ranks(n, p, &a, &b);
	qsort(x, n, sizeof(*x), ascending);
	*lo = x[a];
	*hi = x[b];
}
