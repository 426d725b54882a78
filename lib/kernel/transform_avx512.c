/* Transforms with AVX-512: generic's operations, sixteen inputs at a time. */
#if defined(__x86_64__)
#include <immintrin.h>

#define TARGET  __attribute__((target("avx512f")))
#define INLINE  static inline __attribute__((always_inline)) TARGET
#define VECTOR  __m512
#define LANES   16
#define COLUMNS 4

#define LOAD(p)      _mm512_loadu_ps(p)
#define STORE(p, v)  _mm512_storeu_ps(p, v)
#define SET1(s)      _mm512_set1_ps(s)
#define ADD(a, b)    _mm512_add_ps(a, b)
#define SUB(a, b)    _mm512_sub_ps(a, b)
#define MUL(a, b)    _mm512_mul_ps(a, b)
#define FMA(a, b, c) _mm512_fmadd_ps(a, b, c)

/* Lane i meets lane i ^ h; the upper one of the two gets their difference. */
INLINE __m512 within(__m512 v)
{
	__m512 p = _mm512_permute_ps(v, 0xb1);

	v = _mm512_mask_sub_ps(_mm512_add_ps(v, p), 0xaaaa, p, v);
	p = _mm512_permute_ps(v, 0x4e);
	v = _mm512_mask_sub_ps(_mm512_add_ps(v, p), 0xcccc, p, v);
	p = _mm512_shuffle_f32x4(v, v, 0xb1);
	v = _mm512_mask_sub_ps(_mm512_add_ps(v, p), 0xf0f0, p, v);
	p = _mm512_shuffle_f32x4(v, v, 0x4e);
	return _mm512_mask_sub_ps(_mm512_add_ps(v, p), 0xff00, p, v);
}

#include "kernel/transform_body.h"

void vq_transform_avx512(const struct vq_transform *t, const float *x, size_t n_rows, float *out)
{
	transform(t, x, n_rows, out);
}
#endif
