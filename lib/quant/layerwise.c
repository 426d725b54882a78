/* Sums of errors, and the best pair of clips. */
#include "quant/layerwise.h"

/* Work is cut into slices by the shape, never by threads, and the slices' sums are added in order. */
#define MAX_SLICES 256

static double row_error2(const float *a, const float *b, size_t n)
{
	double s[4] = {0, 0, 0, 0};
	size_t i;

	for (i = 0; i + 4 <= n; i += 4) {
		size_t k;

		for (k = 0; k < 4; k++) {
			double d = (double)(a ? a[i + k] : 0.0f) - (double)b[i + k];

			s[k] += d * d;
		}
	}
	for (; i < n; i++) {
		double d = (double)(a ? a[i] : 0.0f) - (double)b[i];

		s[0] += d * d;
	}
	return (s[0] + s[1]) + (s[2] + s[3]);
}

double vq_sum_weighted2(const float *a, const float *b, const float *r, size_t n_rows, size_t width)
{
	size_t per = (n_rows + MAX_SLICES - 1) / MAX_SLICES;
	int n = per ? (int)((n_rows + per - 1) / per) : 0, i;
	double part[MAX_SLICES], sum = 0;

#pragma omp parallel for schedule(static) if (n_rows * width > 65536)
	for (i = 0; i < n; i++) {
		size_t k = (size_t)i * per, end = k + per < n_rows ? k + per : n_rows;

		part[i] = 0;
		for (; k < end; k++)
			part[i] += (r ? (double)r[k] : 1) *
				   row_error2(a ? a + k * width : 0, b + k * width, width);
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
