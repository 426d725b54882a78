/* The loops of round.h with AVX2: generic's operations, eight weights at a time. */
#if defined(__x86_64__)
#include <immintrin.h>
#include <stdint.h>

#define TARGET         __attribute__((target("avx2")))
#define INLINE         static inline __attribute__((always_inline)) TARGET
#define VECTOR         __m256
#define LANES          8
#define LOAD(p)        _mm256_loadu_ps(p)
#define STORE(p, v)    _mm256_storeu_ps(p, v)
#define SET1(s)        _mm256_set1_ps(s)
#define ADD(a, b)      _mm256_add_ps(a, b)
#define SUB(a, b)      _mm256_sub_ps(a, b)
#define MUL(a, b)      _mm256_mul_ps(a, b)
#define DIV(a, b)      _mm256_div_ps(a, b)
#define MIN(a, b)      _mm256_min_ps(a, b)
#define MAX(a, b)      _mm256_max_ps(a, b)
#define ROUND(v)       _mm256_round_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)
#define BYTES(p)       _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)(p))))
#define TO_BYTES(p, v) to_bytes(p, v)

INLINE void to_bytes(uint8_t *p, __m256 v)
{
	__m256i i = _mm256_cvttps_epi32(v);
	__m128i h = _mm_packs_epi32(_mm256_castsi256_si128(i), _mm256_extracti128_si256(i, 1));

	_mm_storel_epi64((void *)p, _mm_packus_epi16(h, h));
}

#define VECTOR_D      __m256d
#define LANES_D       4
#define LOAD_D(p)     _mm256_loadu_pd(p)
#define STORE_D(p, v) _mm256_storeu_pd(p, v)
#define ADD_D(a, b)   _mm256_add_pd(a, b)
#define SUB_D(a, b)   _mm256_sub_pd(a, b)
#define MUL_D(a, b)   _mm256_mul_pd(a, b)
#define TO_D(v, k)    _mm256_cvtps_pd((k) ? _mm256_extractf128_ps(v, 1) : _mm256_castps256_ps128(v))

#define INTS          __m256i
#define LOAD_I(p)     _mm256_loadu_si256((const void *)(p))
#define STORE_I(p, v) _mm256_storeu_si256((void *)(p), v)
#define SET1_I(x)     _mm256_set1_epi32((int)(x))
#define ADD_I(a, b)   _mm256_add_epi32(a, b)
#define AND_I(a, b)   _mm256_and_si256(a, b)
#define OR_I(a, b)    _mm256_or_si256(a, b)

#include "kernel/round_body.h"

const struct vq_round vq_round_avx2 = {"avx2", range,    codes,       values,
				       errors, distance, finite_words};
#endif
