/* Sign vectors and the quadratic form that they estimate. */
#include "quant/sketch.h"

#include "base/rng.h"

/* In double and in one order a vector, so that the number of threads does not matter. */
static double dot(const float *a, const float *b, size_t n)
{
	double sum = 0;
	size_t i;

	for (i = 0; i < n; i++)
		sum += (double)a[i] * b[i];
	return sum;
}

double vq_sketch_energy(const float *g, uint32_t n_k, size_t n, const float *dv)
{
	enum { BATCH = 64 };
	double one[BATCH], sum = 0;
	uint32_t k0;

	for (k0 = 0; k0 < n_k; k0 += BATCH) {
		long long m = n_k - k0 < BATCH ? n_k - k0 : BATCH, k;

#pragma omp parallel for schedule(static)
		for (k = 0; k < m; k++)
			one[k] = dot(g + (k0 + (size_t)k) * n, dv, n);
		for (k = 0; k < m; k++)
			sum += one[k] * one[k];
	}
	return sum;
}

void vq_sketch_signs(uint64_t seed, uint32_t k, size_t n, float *u)
{
	struct vq_rng r = vq_rng_new(seed, "sketch");
	size_t i;

	for (i = 0; i < n; i++)
		u[i] = vq_rng_u64(r, ((uint64_t)k << 40) + i) >> 63 ? 1.0f : -1.0f;
}
