/* Activation quantization with AVX-512: generic's operations, sixteen inputs at a time. */
#if defined(__x86_64__)
#include "kernel/qact_rows.h"

#include <immintrin.h>
#include <string.h>

#define TARGET __attribute__((target("avx512f,avx512bw,avx512vl")))

static inline __mmask16 tail(uint32_t left)
{
	return left >= 16 ? (__mmask16)0xffff : (__mmask16)((1u << left) - 1);
}

/* min and max have the new value first: where it is NaN they give the second operand, as generic's
 * comparison does. */
TARGET static struct vq_act_step fit(const struct vq_agrid *g, const float *x, uint32_t n)
{
	__m512 min = _mm512_setzero_ps(), max = _mm512_setzero_ps(), v;
	uint32_t i;

	for (i = 0; i + 16 <= n; i += 16) {
		v = _mm512_loadu_ps(x + i);
		min = _mm512_min_ps(v, min);
		max = _mm512_max_ps(v, max);
	}
	if (i < n) {
		v = _mm512_maskz_loadu_ps(tail(n - i), x + i);
		min = _mm512_min_ps(v, min);
		max = _mm512_max_ps(v, max);
	}
	return vq_act_step_of(g, _mm512_reduce_min_ps(min), _mm512_reduce_max_ps(max));
}

TARGET static inline __m512 code(const struct vq_act_step *p, __m512 x)
{
	__m512 v = _mm512_roundscale_ps(_mm512_div_ps(x, _mm512_set1_ps(p->s)),
					_MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);

	v = _mm512_add_ps(v, _mm512_set1_ps(p->z));
	v = _mm512_max_ps(v, _mm512_set1_ps(p->lo));
	return _mm512_min_ps(v, _mm512_set1_ps(p->hi));
}

TARGET static inline __m128i codes_of(const struct vq_act_step *p, __m512 x)
{
	return _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(code(p, x)));
}

/* Whole registers apart from the rest: a masked store costs many times what a plain one does (and the one that narrows as
 * it stores, tens of cycles). */
TARGET void vq_act_quantize_avx512(const struct vq_agrid *g, const float *x, uint32_t n, int8_t *q,
				   float *scale, int32_t *zero)
{
	uint32_t group = g->group == 0 || g->group > n ? n : g->group, i, at, m, j;
	struct vq_act_step p = {0};

	/* The steps of all groups first: the divisions of one group wait for each other, not for those of the next. */
	for (at = 0, j = 0; at < n; at += m, j++) {
		m = n - at < group ? n - at : group;
		p = g->lo ? vq_act_step_of(g, g->lo[j], g->hi[j]) : fit(g, x + at, m);
		scale[j] = p.s;
		zero[j] = (int32_t)p.z;
	}
	for (at = 0, j = 0; at < n; at += m, j++) {
		m = n - at < group ? n - at : group;
		p.s = scale[j];
		p.z = (float)zero[j];
		if (p.s == 0) {
			memset(q + at, zero[j], m);
			continue;
		}
		for (i = 0; i + 16 <= m; i += 16)
			_mm_storeu_si128((__m128i *)(q + at + i),
					 codes_of(&p, _mm512_loadu_ps(x + at + i)));
		if (i < m) {
			__mmask16 k = tail(m - i);

			_mm_mask_storeu_epi8(q + at + i, k,
					     codes_of(&p, _mm512_maskz_loadu_ps(k, x + at + i)));
		}
	}
}

TARGET void vq_act_fake_avx512(const struct vq_agrid *g, const float *x, uint32_t n, float *out)
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
		for (i = 0; i < m; i += 16) {
			__mmask16 k = tail(m - i);
			__m512 v = code(&p, _mm512_maskz_loadu_ps(k, x + at + i));

			v = _mm512_sub_ps(v, _mm512_set1_ps(p.z));
			_mm512_mask_storeu_ps(out + at + i, k,
					      _mm512_mul_ps(_mm512_set1_ps(p.s), v));
		}
	}
}
#endif
