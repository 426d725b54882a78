/* The body of round_avx2.c and round_avx512.c, which define TARGET, INLINE, VECTOR and its LANES, the operations on it, a
 * vector of LANES bytes in memory as floats (BYTES, TO_BYTES), VECTOR_D with its operations for doubles and INTS for
 * 32-bit integers.  MIN and MAX give their second argument when one is NaN, as x86 does. */
#include <immintrin.h>

#include "kernel/round.h"

TARGET static void range(const float *w, size_t n, float *min, float *max)
{
	VECTOR lo = SET1(0), hi = SET1(0), lo2 = lo, hi2 = hi;
	float l[LANES], h[LANES];
	size_t i;

	for (i = 0; i + 2 * LANES <= n; i += 2 * LANES) {
		VECTOR a = LOAD(w + i), b = LOAD(w + i + LANES);

		lo = MIN(a, lo);
		hi = MAX(a, hi);
		lo2 = MIN(b, lo2);
		hi2 = MAX(b, hi2);
	}
	STORE(l, MIN(lo, lo2));
	STORE(h, MAX(hi, hi2));
	for (; i < n; i++) {
		l[0] = w[i] < l[0] ? w[i] : l[0];
		h[0] = w[i] > h[0] ? w[i] : h[0];
	}
	for (i = 1; i < LANES; i++) {
		l[0] = l[i] < l[0] ? l[i] : l[0];
		h[0] = h[i] > h[0] ? h[i] : h[0];
	}
	*min = l[0];
	*max = h[0];
}

TARGET static void codes(const float *w, size_t n, float s, float z, float top, uint8_t *u)
{
	const VECTOR vs = SET1(s), vz = SET1(z), vtop = SET1(top), zero = SET1(0);
	size_t i;

	for (i = 0; i + LANES <= n; i += LANES) {
		VECTOR v = ADD(ROUND(DIV(LOAD(w + i), vs)), vz);

		TO_BYTES(u + i, MIN(MAX(v, zero), vtop));
	}
	if (i < n)
		vq_round_generic.codes(w + i, n - i, s, z, top, u + i);
}

TARGET static void values(const uint8_t *u, size_t n, float s, float z, float *w)
{
	const VECTOR vs = SET1(s), vz = SET1(z);
	size_t i;

	for (i = 0; i + LANES <= n; i += LANES)
		STORE(w + i, MUL(vs, SUB(BYTES(u + i), vz)));
	if (i < n)
		vq_round_generic.values(u + i, n - i, s, z, w + i);
}

/* Column j of eight rows, for eight columns. */
INLINE void transpose(const float *x, size_t stride, __m256 c[8])
{
	__m256 r[8], t[8];
	int i;

#pragma GCC unroll 8
	for (i = 0; i < 8; i++)
		r[i] = _mm256_loadu_ps(x + (size_t)i * stride);
#pragma GCC unroll 4
	for (i = 0; i < 8; i += 2) {
		t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
		t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
	}
#pragma GCC unroll 2
	for (i = 0; i < 8; i += 4) {
		r[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
		r[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xee);
		r[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
		r[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xee);
	}
#pragma GCC unroll 4
	for (i = 0; i < 4; i++) {
		c[i] = _mm256_permute2f128_ps(r[i], r[i + 4], 0x20);
		c[i + 4] = _mm256_permute2f128_ps(r[i], r[i + 4], 0x31);
	}
}

/* A lane of doubles is a row, so that each row's sum keeps its order. */
TARGET static void errors(const float *w, const float *q, size_t n, double *err2, double *ref2)
{
	VECTOR_D e[8 / LANES_D], f[8 / LANES_D];
	__m256 cw[8], cq[8];
	size_t i;
	int j, k;

	for (k = 0; k < 8 / LANES_D; k++) {
		e[k] = LOAD_D(err2 + k * LANES_D);
		f[k] = LOAD_D(ref2 + k * LANES_D);
	}
	for (i = 0; i + 8 <= n; i += 8) {
		transpose(w + i, n, cw);
		transpose(q + i, n, cq);
#pragma GCC unroll 8
		for (j = 0; j < 8; j++)
#pragma GCC unroll 2
			for (k = 0; k < 8 / LANES_D; k++) {
				VECTOR_D a = TO_D(cw[j], k), d = SUB_D(TO_D(cq[j], k), a);

				e[k] = ADD_D(e[k], MUL_D(d, d));
				f[k] = ADD_D(f[k], MUL_D(a, a));
			}
	}
	for (k = 0; k < 8 / LANES_D; k++) {
		STORE_D(err2 + k * LANES_D, e[k]);
		STORE_D(ref2 + k * LANES_D, f[k]);
	}
	for (j = 0; j < 8 && i < n; j++) {
		size_t at;

		for (at = (size_t)j * n + i; at < (size_t)(j + 1) * n; at++) {
			double d = (double)q[at] - (double)w[at];

			err2[j] += d * d;
			ref2[j] += (double)w[at] * (double)w[at];
		}
	}
}

/* The four lanes of a row are a vector; more rows than one keep the adders busy.  n_rows is a constant at every call. */
INLINE void distance_of(const float *a, const float *b, const uint32_t n_rows, size_t n, double *e)
{
	__m256d s[4] = {_mm256_setzero_pd(), _mm256_setzero_pd(), _mm256_setzero_pd(),
			_mm256_setzero_pd()};
	size_t i, at, r;

	for (i = 0; i + 4 <= n; i += 4)
#pragma GCC unroll 4
		for (r = 0; r < n_rows; r++) {
			__m256d d = _mm256_sub_pd(_mm256_cvtps_pd(_mm_loadu_ps(a + r * n + i)),
						  _mm256_cvtps_pd(_mm_loadu_ps(b + r * n + i)));

			s[r] = _mm256_add_pd(s[r], _mm256_mul_pd(d, d));
		}
#pragma GCC unroll 4
	for (r = 0; r < n_rows; r++) {
		double v[4];

		_mm256_storeu_pd(v, s[r]);
		for (at = r * n + i; at < (r + 1) * n; at++) {
			double d = (double)a[at] - (double)b[at];

			v[0] += d * d;
		}
		e[r] = (v[0] + v[1]) + (v[2] + v[3]);
	}
}

TARGET static void distance(const float *a, const float *b, uint32_t n_rows, size_t n, double *e)
{
	if (n_rows == 4)
		distance_of(a, b, 4, n, e);
	else if (n_rows == 2)
		distance_of(a, b, 2, n, e);
	else
		distance_of(a, b, 1, n, e);
}

TARGET static int finite_words(const uint8_t *p, size_t n, uint32_t e, uint32_t one)
{
	const INTS ve = SET1_I(e), vone = SET1_I(one);
	INTS acc = SET1_I(0), acc2 = acc;
	uint32_t part[LANES], all = 0;
	size_t i;

	for (i = 0; i + 8 * LANES <= n; i += 8 * LANES) {
		INTS a = LOAD_I(p + i), b = LOAD_I(p + i + 4 * LANES);

		acc = OR_I(acc, ADD_I(AND_I(a, ve), vone));
		acc2 = OR_I(acc2, ADD_I(AND_I(b, ve), vone));
	}
	STORE_I(part, OR_I(acc, acc2));
	for (int k = 0; k < LANES; k++)
		all |= part[k];
	return (all & (e + one) & ~e) == 0 &&
	       (i == n || vq_round_generic.finite(p + i, n - i, e, one));
}
