/* What both float products of AVX-512 share: numbers of 32 bits turned over, and tiles that become y. */
#ifndef VQ_KERNEL_GEMM16_AVX512_H
#define VQ_KERNEL_GEMM16_AVX512_H

#include <immintrin.h>

#include "kernel/gemm16_rows.h"

#define VQ_GEMM_TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq")))

/* r[i] lane j <-> r[j] lane i. */
VQ_GEMM_TARGET static inline __attribute__((always_inline)) void vq_turn_16(__m512i r[16])
{
	__m512i q[16]; /* q[4 g + j], quarter l: rows 4 g .. 4 g + 3 of column 4 l + j */
	int g, j;

#pragma GCC unroll 4
	for (g = 0; g < 4; g++) {
		__m512i a = _mm512_unpacklo_epi32(r[4 * g], r[4 * g + 1]);
		__m512i b = _mm512_unpacklo_epi32(r[4 * g + 2], r[4 * g + 3]);
		__m512i c = _mm512_unpackhi_epi32(r[4 * g], r[4 * g + 1]);
		__m512i d = _mm512_unpackhi_epi32(r[4 * g + 2], r[4 * g + 3]);

		q[4 * g] = _mm512_unpacklo_epi64(a, b);
		q[4 * g + 1] = _mm512_unpackhi_epi64(a, b);
		q[4 * g + 2] = _mm512_unpacklo_epi64(c, d);
		q[4 * g + 3] = _mm512_unpackhi_epi64(c, d);
	}
#pragma GCC unroll 4
	for (j = 0; j < 4; j++) {
		__m512i a = _mm512_shuffle_i32x4(q[j], q[4 + j], 0x88);
		__m512i b = _mm512_shuffle_i32x4(q[8 + j], q[12 + j], 0x88);
		__m512i c = _mm512_shuffle_i32x4(q[j], q[4 + j], 0xdd);
		__m512i d = _mm512_shuffle_i32x4(q[8 + j], q[12 + j], 0xdd);

		r[j] = _mm512_shuffle_i32x4(a, b, 0x88);
		r[8 + j] = _mm512_shuffle_i32x4(a, b, 0xdd);
		r[4 + j] = _mm512_shuffle_i32x4(c, d, 0x88);
		r[12 + j] = _mm512_shuffle_i32x4(c, d, 0xdd);
	}
}

/* Lanes 8.. are added to lanes ..7, and so on until one is left. */
VQ_GEMM_TARGET static inline float vq_sum_lanes(__m512 v)
{
	__m256 a = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
	__m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
	__m128 c = _mm_add_ps(b, _mm_movehl_ps(b, b));

	return _mm_cvtss_f32(_mm_add_ss(c, _mm_movehdup_ps(c)));
}

/* The first n of 16 (n <= 0: none; 16 and more: all). */
static inline uint32_t vq_first(int64_t n, int of)
{
	return n <= 0 ? 0 : n >= of ? (uint32_t)((1ull << of) - 1) : (1u << n) - 1;
}

void vq_gemm_store_avx512(const struct vq_gemm_out *o, const float *c);

#endif
