/* The table of round.h chosen. */
#include "kernel/round.h"

#include <string.h>

#include "kernel/cpu.h"

#define PIECE 8192u /* elements looked at before one that is bad is looked for */

/* The set that cpu.h chose: VQLM_CPU forces it there. */
static const struct vq_round *row(void)
{
	static const struct vq_round *chosen;
	const struct vq_round *r = __atomic_load_n(&chosen, __ATOMIC_RELAXED);

	if (r)
		return r;
	r = &vq_round_generic;
#if defined(__x86_64__)
	if (strncmp(vq_cpu_name(), "avx512", 6) == 0 && __builtin_cpu_supports("avx512dq"))
		r = &vq_round_avx512;
	else if (strncmp(vq_cpu_name(), "avx", 3) == 0)
		r = &vq_round_avx2;
#endif
	__atomic_store_n(&chosen, r, __ATOMIC_RELAXED);
	return r;
}

void vq_round_range(const float *w, size_t n, float *min, float *max)
{
	row()->range(w, n, min, max);
}

void vq_round_codes(const float *w, size_t n, float s, float z, float top, uint8_t *u)
{
	row()->codes(w, n, s, z, top, u);
}

void vq_round_values(const uint8_t *u, size_t n, float s, float z, float *w)
{
	row()->values(u, n, s, z, w);
}

uint8_t vq_round_bits(const uint8_t *u, size_t n)
{
	uint64_t all[4] = {0}, v[4];
	size_t i, k;

	for (i = 0; i + sizeof(v) <= n; i += sizeof(v)) {
		memcpy(v, u + i, sizeof(v));
		for (k = 0; k < 4; k++)
			all[k] |= v[k];
	}
	for (; i < n; i++)
		all[0] |= u[i];
	all[0] |= all[1] | all[2] | all[3];
	for (k = 32; k >= 8; k /= 2)
		all[0] |= all[0] >> k;
	return (uint8_t)all[0];
}

void vq_round_errors(const float *w, const float *q, size_t n_rows, size_t n, double *err2,
		     double *ref2)
{
	const struct vq_round *k = row();
	size_t r, i;

	for (r = 0; r + 8 <= n_rows; r += 8, w += 8 * n, q += 8 * n)
		k->errors(w, q, n, err2 + r, ref2 + r);
	for (; r < n_rows; r++, w += n, q += n)
		for (i = 0; i < n; i++) {
			double d = (double)q[i] - (double)w[i];

			err2[r] += d * d;
			ref2[r] += (double)w[i] * (double)w[i];
		}
}

/* A row from zeros. */
static double square(const float *b, size_t n)
{
	double s[4] = {0, 0, 0, 0};
	size_t i;

	for (i = 0; i < n; i++)
		s[i < n / 4 * 4 ? i % 4 : 0] += (double)b[i] * (double)b[i];
	return (s[0] + s[1]) + (s[2] + s[3]);
}

void vq_distance_rows(const float *a, const float *b, size_t n_rows, size_t n, double *e)
{
	const struct vq_round *k = row();
	uint32_t m = 0;
	size_t r;

	for (r = 0; r < n_rows; r += m) {
		m = !a || n_rows - r < 2 ? 1 : n_rows - r < 4 ? 2 : 4;
		if (a)
			k->distance(a + r * n, b + r * n, m, n, e + r);
		else
			e[r] = square(b + r * n, n);
	}
}

/* A float is not finite when all bits of its exponent are set.  Adding one at the exponent's lowest bit then carries into
 * the sign's place (cleared before), and only there: many elements are tested at a time. */
static const struct {
	uint32_t exponent, one;
} masks[VQ_N_DTYPES] = {
	[VQ_F32] = {0x7f800000, 0x00800000},
	[VQ_F16] = {0x7c007c00, 0x04000400},
	[VQ_BF16] = {0x7f807f80, 0x00800080},
};

size_t vq_first_bad(enum vq_dtype t, const void *p, size_t n)
{
	const struct vq_round *k = row();
	const uint8_t *b = p;
	size_t size = vq_dtype_size(t), at = 0, m;

	if (t != VQ_F32 && t != VQ_F16 && t != VQ_BF16)
		return n;
	for (; at < n; at += m) {
		m = n - at < PIECE ? n - at : PIECE;
		if (!k->finite(b + at * size, m * size, masks[t].exponent, masks[t].one))
			break;
	}
	while (at < n && k->finite(b + at * size, size, masks[t].exponent, masks[t].one))
		at++;
	return at;
}
