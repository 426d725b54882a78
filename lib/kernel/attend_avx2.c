/* Attention with AVX2. */
#if defined(__x86_64__)
#include <immintrin.h>

#define TARGET     __attribute__((target("avx2,fma,f16c")))
#define INLINE     static inline __attribute__((always_inline)) TARGET
#define VECTOR     __m256
#define LANES      8
#define SCORE_ROWS 6
#define SCORES(r)  ((r) >= 4 ? 2 : (r) == 2 ? 4 : 8)
#define VALUES(r)  ((r) >= 4 ? 2 : (r) == 2 ? 4 : 8)

#define LOAD(p)      _mm256_loadu_ps(p)
#define STORE(p, v)  _mm256_storeu_ps(p, v)
#define SET1(s)      _mm256_set1_ps(s)
#define ADD(a, b)    _mm256_add_ps(a, b)
#define SUB(a, b)    _mm256_sub_ps(a, b)
#define MUL(a, b)    _mm256_mul_ps(a, b)
#define FMA(a, b, c) _mm256_fmadd_ps(a, b, c)
#define MAX(a, b)    _mm256_max_ps(a, b) /* a > b ? a : b, so b when either is NaN */
#define LARGEST(v)   largest(v)
#define LOAD_F16(p)  _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)(p)))
#define LOAD_I8(p)          \
	_mm256_cvtepi32_ps( \
		_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)(p))))
#define KEEP(v, n) keep(v, n)
#define ADD_EXPONENT(p, t)                                           \
	_mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), \
					     _mm256_slli_epi32(_mm256_castps_si256(t), 23)))

/* The first n lanes, the others 0. */
INLINE __m256 keep(__m256 v, int n)
{
	__m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);

	return _mm256_and_ps(v,
			     _mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_set1_epi32(n), lane)));
}

INLINE float largest(__m256 v)
{
	__m128 m = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));

	m = _mm_max_ps(m, _mm_movehl_ps(m, m));
	return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
}

#include "kernel/attend_body.h"

void vq_attend_avx2(const struct vq_attend *a)
{
	attend(a);
}
#else
typedef int vq_attend_avx2_unused;
#endif
