/* Activations with a stored range for each input: the steps are worked out once, not for every token. */
#include "kernel/qact_rows.h"

#define TILE 64u

/* What the kernels' rows compute, in another order: for whole numbers a and b, clamp(rint(v), a, b) is
 * rint(clamp(v, a, b)), and what is clamped is small enough to be rounded by an addition. */
static inline float round_small(float v)
{
	const float magic = 12582912.0f; /* 1.5 * 2^23 */

	return (v + magic) - magic;
}

/* Inputs first .. first + m of all rows. */
static void tile(const struct vq_agrid *g, const float *x, size_t n_rows, uint32_t n,
		 uint32_t first, uint32_t m, float *out)
{
	float s[TILE], value[TILE], lo[TILE], hi[TILE];
	uint32_t i;
	size_t t;

	for (i = 0; i < m; i++) {
		struct vq_act_step p = vq_act_step_of(g, g->lo[first + i], g->hi[first + i]);

		s[i] = p.s == 0 ? 1 : p.s;
		value[i] = p.s == 0 ? 0 : p.s; /* not -0 */
		lo[i] = p.s == 0 ? 0 : p.lo - p.z;
		hi[i] = p.s == 0 ? 0 : p.hi - p.z;
	}
	for (t = 0; t < n_rows; t++) {
		const float *in = x + t * n + first;
		float *to = out + t * n + first;

#pragma omp simd
		for (i = 0; i < m; i++) {
			float v = in[i] / s[i];

			v = v > lo[i] ? v : lo[i]; /* NaN becomes lo */
			v = v < hi[i] ? v : hi[i];
			to[i] = value[i] * round_small(v);
		}
	}
}

void vq_act_fake_channels(const struct vq_agrid *g, const float *x, size_t n_rows, uint32_t n,
			  float *out)
{
	long long i, n_tiles = (n + TILE - 1) / TILE;

#pragma omp parallel for schedule(static) if (n_rows * n > 32768)
	for (i = 0; i < n_tiles; i++) {
		uint32_t first = (uint32_t)i * TILE;

		tile(g, x, n_rows, n, first, n - first < TILE ? n - first : TILE, out);
	}
}
