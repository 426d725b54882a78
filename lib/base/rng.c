/* Counter-based random numbers. */
#include "base/rng.h"

#include <math.h>

static uint64_t mix(uint64_t z)
{
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

struct vq_rng vq_rng_new(uint64_t seed, const char *purpose)
{
	struct vq_rng r = {mix(seed + 0x9e3779b97f4a7c15ull)};

	for (; *purpose; purpose++)
		r.key = mix(r.key ^ (uint8_t)*purpose);
	return r;
}

uint64_t vq_rng_u64(struct vq_rng r, uint64_t i)
{
	return mix(r.key + (i + 1) * 0x9e3779b97f4a7c15ull);
}

double vq_rng_uniform(struct vq_rng r, uint64_t i)
{
	return (double)(vq_rng_u64(r, i) >> 11) * 0x1p-53;
}

double vq_rng_normal(struct vq_rng r, uint64_t i)
{
	double u = 1.0 - vq_rng_uniform(r, 2 * i), v = vq_rng_uniform(r, 2 * i + 1);

	return sqrt(-2.0 * log(u)) * cos(2.0 * M_PI * v);
}

/* Knuth's selection sampling (TAOCP 2, algorithm S): ascending order comes for free. */
int vq_rng_choose(struct vq_rng r, uint32_t n, uint32_t k, uint32_t *out, struct vq_err *err)
{
	uint32_t i, m = 0;

	if (k > n)
		return vq_fail(err, VQ_E_DATA, "cannot choose %u of %u", k, n);
	for (i = 0; i < n && m < k; i++)
		if (vq_rng_uniform(r, i) * (double)(n - i) < (double)(k - m))
			out[m++] = i;
	return VQ_OK;
}
