/* What the files of the integer product with AVX-512 VNNI share. */
#ifndef VQ_KERNEL_QGEMM_AVX512_H
#define VQ_KERNEL_QGEMM_AVX512_H
#if defined(__x86_64__)
#include <immintrin.h>

#include "kernel/qgemm_tiles.h"

#define TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")))
#define INLINE static inline __attribute__((always_inline))
#define VQ_FEW 4u /* tokens that take everything in one pass */

/* With the intrinsic gcc 12 moves every accumulator through memory at each step; an asm it leaves alone. */
#define DPBUSD(acc, u, q) __asm__("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(u), "v"(q))

/* The 128 codes of one step.  Field j of a plane of f bits is the byte shifted right by f j; in a register
 * that holds the plane repeated, each 64-bit lane takes its own j. */
INLINE TARGET void codes_of(const uint32_t bits, const uint8_t *in, __m512i *e0, __m512i *e1)
{
	__m512i lo = _mm512_setzero_si512(), hi = lo;
	const uint32_t at2 = bits & 4 ? 4 : 0, at1 = bits & 6;

	if (bits == 8) {
		*e0 = _mm512_loadu_si512(in);
		*e1 = _mm512_loadu_si512(in + 64);
		return;
	}
	if (bits & 4) {
		__m512i v = _mm512_loadu_si512(in), m = _mm512_set1_epi8(15);

		lo = _mm512_and_si512(v, m);
		hi = _mm512_and_si512(_mm512_srli_epi16(v, 4), m);
		in += 64;
	}
	if (bits & 2) {
		__m512i v = _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i *)in));
		__m512i m = _mm512_set1_epi8(3);
		__m512i v0 = _mm512_srlv_epi64(v, _mm512_set_epi64(2, 2, 2, 2, 0, 0, 0, 0));
		__m512i v1 = _mm512_srlv_epi64(v, _mm512_set_epi64(6, 6, 6, 6, 4, 4, 4, 4));

		lo = _mm512_or_si512(lo, _mm512_slli_epi16(_mm512_and_si512(v0, m), at2));
		hi = _mm512_or_si512(hi, _mm512_slli_epi16(_mm512_and_si512(v1, m), at2));
		in += 32;
	}
	if (bits & 1) {
		__m512i v = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)in));
		__m512i m = _mm512_set1_epi8(1);
		__m512i v0 = _mm512_srlv_epi64(v, _mm512_set_epi64(3, 3, 2, 2, 1, 1, 0, 0));
		__m512i v1 = _mm512_srlv_epi64(v, _mm512_set_epi64(7, 7, 6, 6, 5, 5, 4, 4));

		lo = _mm512_or_si512(lo, _mm512_slli_epi16(_mm512_and_si512(v0, m), at1));
		hi = _mm512_or_si512(hi, _mm512_slli_epi16(_mm512_and_si512(v1, m), at1));
	}
	*e0 = lo;
	*e1 = hi;
}

/* The zero points of 32 rows; zero NULL: half everywhere. */
INLINE TARGET void zeros_of(const uint8_t *zero, int32_t half, __m512i *z0, __m512i *z1)
{
	*z0 = *z1 = _mm512_set1_epi32(half);
	if (zero) {
		*z0 = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)zero));
		*z1 = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(zero + 16)));
	}
}

INLINE TARGET __m512i table_of(const uint8_t *byte)
{
	return _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)byte));
}

/* The scales of 32 rows. */
INLINE TARGET void scales_of(const struct vq_tile_segment *g, const int table, __m512 *s0,
			     __m512 *s1)
{
	if (table) {
		*s0 = _mm512_mul_ps(_mm512_loadu_ps(g->absmax), _mm512_set1_ps(VQ_BYTE_STEP));
		*s1 = _mm512_mul_ps(_mm512_loadu_ps(g->absmax + 16), _mm512_set1_ps(VQ_BYTE_STEP));
	} else {
		*s0 = _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)g->scale));
		*s1 = _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(g->scale + 16)));
	}
}

/* A panel times all tokens, at most VQ_FEW, of a plan: y [tokens, 32], in 64-byte lines. */
void vq_qgemm_few_avx512(const struct vq_tile_plan *pl, uint32_t panel, float *y);

#endif
#endif
