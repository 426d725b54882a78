/* Signs and block Hadamard. */
#include "quant/hadamard.h"

#include <math.h>

#include "base/rng.h"
#include "kernel/transform.h"

uint32_t vq_hadamard_block(uint32_t n)
{
	uint32_t b = 128;

	while (b >= 16 && (n == 0 || n % b != 0))
		b /= 2;
	return b >= 16 ? b : 0;
}

void vq_sign_fill(float *sign, uint32_t n, uint64_t seed)
{
	struct vq_rng r = vq_rng_new(seed, "sign");
	uint32_t i;

	for (i = 0; i < n; i++)
		sign[i] = vq_rng_u64(r, i) & 1 ? -1.0f : 1.0f;
}

void vq_hadamard_apply(float *x, size_t rows, uint32_t n, const float *sign)
{
	uint32_t block = vq_hadamard_block(n);
	float scale = block ? (float)(1 / sqrt(block)) : 1;
	long long r;

	if (!block)
		return;
#pragma omp parallel for schedule(static) if (rows * n > 32768)
	for (r = 0; r < (long long)rows; r++) {
		float *v = x + (size_t)r * n;
		uint32_t i;

		for (i = 0; sign && i < n; i++)
			v[i] *= sign[i];
		for (i = 0; i < n; i += block)
			vq_fwht(v + i, block);
		for (i = 0; i < n; i++)
			v[i] *= scale;
	}
}
