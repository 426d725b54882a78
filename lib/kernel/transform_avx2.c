/* Transforms with AVX2: generic's operations, eight inputs at a time. */
#if defined(__x86_64__)
#include <immintrin.h>

#define TARGET  __attribute__((target("avx2,fma")))
#define INLINE  static inline __attribute__((always_inline)) TARGET
#define VECTOR  __m256
#define LANES   8
#define COLUMNS 2

#define LOAD(p)      _mm256_loadu_ps(p)
#define STORE(p, v)  _mm256_storeu_ps(p, v)
#define SET1(s)      _mm256_set1_ps(s)
#define ADD(a, b)    _mm256_add_ps(a, b)
#define SUB(a, b)    _mm256_sub_ps(a, b)
#define MUL(a, b)    _mm256_mul_ps(a, b)
#define FMA(a, b, c) _mm256_fmadd_ps(a, b, c)

/* Lane i meets lane i ^ h; the upper one of the two gets their difference. */
INLINE __m256 within(__m256 v)
{
	__m256 p = _mm256_permute_ps(v, 0xb1);

	v = _mm256_blend_ps(_mm256_add_ps(v, p), _mm256_sub_ps(p, v), 0xaa);
	p = _mm256_permute_ps(v, 0x4e);
	v = _mm256_blend_ps(_mm256_add_ps(v, p), _mm256_sub_ps(p, v), 0xcc);
	p = _mm256_permute2f128_ps(v, v, 1);
	return _mm256_blend_ps(_mm256_add_ps(v, p), _mm256_sub_ps(p, v), 0xf0);
}

#include "kernel/transform_body.h"

void vq_transform_avx2(const struct vq_transform *t, const float *x, size_t n_rows, float *out)
{
	transform(t, x, n_rows, out);
}
#endif
