/* Sums of errors, and the best pair of clips. */
#include "quant/layerwise.h"

#include "kernel/round.h"

/* Work is cut into slices by the shape, never by threads, and the slices' sums are added in order. */
#define MAX_SLICES 256
#define ROWS       16u /* at a time */

/* Sum of r[k] e[k] over rows first..end, in their order. */
static double slice_error2(const float *a, const float *b, const float *r, size_t first, size_t end,
			   size_t width)
{
	double e[ROWS], sum = 0;
	size_t k, n, i;

	for (k = first; k < end; k += n) {
		n = end - k < ROWS ? end - k : ROWS;
		vq_distance_rows(a ? a + k * width : NULL, b + k * width, n, width, e);
		for (i = 0; i < n; i++)
			sum += (r ? (double)r[k + i] : 1) * e[i];
	}
	return sum;
}

double vq_sum_weighted2(const float *a, const float *b, const float *r, size_t n_rows, size_t width)
{
	size_t per = (n_rows + MAX_SLICES - 1) / MAX_SLICES;
	int n = per ? (int)((n_rows + per - 1) / per) : 0, i;
	double part[MAX_SLICES], sum = 0;

#pragma omp parallel for schedule(static) if (n_rows * width > 65536)
	for (i = 0; i < n; i++) {
		size_t k = (size_t)i * per, end = k + per < n_rows ? k + per : n_rows;

		part[i] = slice_error2(a, b, r, k, end, width);
	}
	for (i = 0; i < n; i++)
		sum += part[i];
	return sum;
}

double vq_sum_error2(const float *a, const float *b, size_t n_rows, size_t width)
{
	return vq_sum_weighted2(a, b, NULL, n_rows, width);
}

double vq_sum_squares(const float *b, size_t n_rows, size_t width)
{
	return vq_sum_error2(0, b, n_rows, width);
}

void vq_layerwise_pick(const double *errors, uint32_t n_a, uint32_t n_w, uint32_t *a, uint32_t *w)
{
	uint32_t n = n_a * n_w, best = 0, i;

	for (i = 1; i < n; i++)
		if (errors[i] < errors[best] || errors[best] != errors[best])
			best = i;
	if (errors[best] != errors[best])
		best = 0;
	*a = best / n_w;
	*w = best % n_w;
}
