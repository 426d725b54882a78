/* Attention with AVX-512. */
#if defined(__x86_64__)
#include <immintrin.h>

#define TARGET     __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,fma")))
#define INLINE     static inline __attribute__((always_inline)) TARGET
#define VECTOR     __m512
#define LANES      16
#define SCORE_ROWS 12
#define SCORES(r)  ((r) == 12 ? 2 : (r) >= 4 ? 4 : 8)
#define VALUES(r)  ((r) >= 4 ? 4 : 8)

#define LOAD(p)      _mm512_loadu_ps(p)
#define STORE(p, v)  _mm512_storeu_ps(p, v)
#define SET1(s)      _mm512_set1_ps(s)
#define ADD(a, b)    _mm512_add_ps(a, b)
#define SUB(a, b)    _mm512_sub_ps(a, b)
#define MUL(a, b)    _mm512_mul_ps(a, b)
#define FMA(a, b, c) _mm512_fmadd_ps(a, b, c)
#define MAX(a, b)    _mm512_max_ps(a, b) /* a > b ? a : b, so b when either is NaN */
#define LARGEST(v)   _mm512_reduce_max_ps(v)
#define LOAD_F16(p)  _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)(p)))
#define LOAD_I8(p)          \
	_mm512_cvtepi32_ps( \
		_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(const void *)(p))))
#define KEEP(v, n) _mm512_maskz_mov_ps((__mmask16)((1u << (n)) - 1), v)
#define ADD_EXPONENT(p, t)                                           \
	_mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(p), \
					     _mm512_slli_epi32(_mm512_castps_si512(t), 23)))

#include "kernel/attend_body.h"

void vq_attend_avx512(const struct vq_attend *a)
{
	attend(a);
}
#else
typedef int vq_attend_avx512_unused;
#endif
