/* The loops of round.h with AVX-512: generic's operations, sixteen weights at a time. */
#if defined(__x86_64__)
#include <immintrin.h>
#include <stdint.h>

#define TARGET         __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq")))
#define INLINE         static inline __attribute__((always_inline)) TARGET
#define VECTOR         __m512
#define LANES          16
#define LOAD(p)        _mm512_loadu_ps(p)
#define STORE(p, v)    _mm512_storeu_ps(p, v)
#define SET1(s)        _mm512_set1_ps(s)
#define ADD(a, b)      _mm512_add_ps(a, b)
#define SUB(a, b)      _mm512_sub_ps(a, b)
#define MUL(a, b)      _mm512_mul_ps(a, b)
#define DIV(a, b)      _mm512_div_ps(a, b)
#define MIN(a, b)      _mm512_min_ps(a, b)
#define MAX(a, b)      _mm512_max_ps(a, b)
#define ROUND(v)       _mm512_roundscale_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)
#define BYTES(p)       _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const void *)(p))))
#define TO_BYTES(p, v) _mm_storeu_si128((void *)(p), _mm512_cvtepi32_epi8(_mm512_cvttps_epi32(v)))

#define VECTOR_D      __m512d
#define LANES_D       8
#define LOAD_D(p)     _mm512_loadu_pd(p)
#define STORE_D(p, v) _mm512_storeu_pd(p, v)
#define ADD_D(a, b)   _mm512_add_pd(a, b)
#define SUB_D(a, b)   _mm512_sub_pd(a, b)
#define MUL_D(a, b)   _mm512_mul_pd(a, b)
#define TO_D(v, k)    _mm512_cvtps_pd(v)

#define INTS          __m512i
#define LOAD_I(p)     _mm512_loadu_si512(p)
#define STORE_I(p, v) _mm512_storeu_si512(p, v)
#define SET1_I(x)     _mm512_set1_epi32((int)(x))
#define ADD_I(a, b)   _mm512_add_epi32(a, b)
#define AND_I(a, b)   _mm512_and_si512(a, b)
#define OR_I(a, b)    _mm512_or_si512(a, b)

#include "kernel/round_body.h"

const struct vq_round vq_round_avx512 = {"avx512", range,    codes,       values,
					 errors,   distance, finite_words};
#endif
