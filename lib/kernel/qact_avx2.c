/* Activation quantization with AVX2: generic's operations, eight inputs at a time. */
#if defined(__x86_64__)
#include "kernel/qact_rows.h"

#include <immintrin.h>
#include <string.h>

#define TARGET __attribute__((target("avx2")))

/* All ones in the first n lanes. */
TARGET static inline __m256i lanes(uint32_t n)
{
	return _mm256_cmpgt_epi32(_mm256_set1_epi32(n < 8 ? (int)n : 8),
				  _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

/* min and max have the new value first: where it is NaN they give the second operand, as generic's
 * comparison does. */
TARGET static struct vq_act_step fit(const struct vq_agrid *g, const float *x, uint32_t n)
{
	__m256 min = _mm256_setzero_ps(), max = _mm256_setzero_ps();
	float lo[8], hi[8];
	uint32_t i;

	for (i = 0; i < n; i += 8) {
		__m256 v = _mm256_maskload_ps(x + i, lanes(n - i));

		min = _mm256_min_ps(v, min);
		max = _mm256_max_ps(v, max);
	}
	_mm256_storeu_ps(lo, min);
	_mm256_storeu_ps(hi, max);
	for (i = 1; i < 8; i++) {
		lo[0] = lo[i] < lo[0] ? lo[i] : lo[0];
		hi[0] = hi[i] > hi[0] ? hi[i] : hi[0];
	}
	return vq_act_step_of(g, lo[0], hi[0]);
}

TARGET static inline __m256 code(const struct vq_act_step *p, __m256 x)
{
	__m256 v = _mm256_round_ps(_mm256_div_ps(x, _mm256_set1_ps(p->s)),
				   _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);

	v = _mm256_add_ps(v, _mm256_set1_ps(p->z));
	v = _mm256_max_ps(v, _mm256_set1_ps(p->lo));
	return _mm256_min_ps(v, _mm256_set1_ps(p->hi));
}

TARGET void vq_act_quantize_avx2(const struct vq_agrid *g, const float *x, uint32_t n, int8_t *q,
				 float *scale, int32_t *zero)
{
	uint32_t group = g->group == 0 || g->group > n ? n : g->group, i, at, m, j = 0;

	for (at = 0; at < n; at += m, j++, scale++, zero++) {
		struct vq_act_step p;

		m = n - at < group ? n - at : group;
		p = g->lo ? vq_act_step_of(g, g->lo[j], g->hi[j]) : fit(g, x + at, m);
		*scale = p.s;
		*zero = (int32_t)p.z;
		if (p.s == 0) {
			memset(q + at, *zero, m);
			continue;
		}
		for (i = 0; i < m; i += 8) {
			__m256i v = _mm256_cvtps_epi32(
				code(&p, _mm256_maskload_ps(x + at + i, lanes(m - i))));
			__m128i b = _mm_packs_epi32(_mm256_castsi256_si128(v),
						    _mm256_extracti128_si256(v, 1));
			int8_t bytes[8];

			_mm_storel_epi64((__m128i *)bytes, _mm_packs_epi16(b, b));
			memcpy(q + at + i, bytes, m - i < 8 ? m - i : 8);
		}
	}
}

TARGET void vq_act_fake_avx2(const struct vq_agrid *g, const float *x, uint32_t n, float *out)
{
	uint32_t group = g->group == 0 || g->group > n ? n : g->group, i, at, m, j = 0;

	for (at = 0; at < n; at += m, j++) {
		struct vq_act_step p;

		m = n - at < group ? n - at : group;
		p = g->lo ? vq_act_step_of(g, g->lo[j], g->hi[j]) : fit(g, x + at, m);
		if (p.s == 0) {
			memset(out + at, 0, m * sizeof(*out));
			continue;
		}
		for (i = 0; i < m; i += 8) {
			__m256i k = lanes(m - i);
			__m256 v = code(&p, _mm256_maskload_ps(x + at + i, k));

			v = _mm256_sub_ps(v, _mm256_set1_ps(p.z));
			_mm256_maskstore_ps(out + at + i, k, _mm256_mul_ps(_mm256_set1_ps(p.s), v));
		}
	}
}
#endif
