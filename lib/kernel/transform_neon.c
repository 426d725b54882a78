/* Transforms with NEON: generic's operations, four inputs at a time. */
#if defined(__aarch64__)
#include <arm_neon.h>

#define TARGET
#define INLINE  static inline __attribute__((always_inline))
#define VECTOR  float32x4_t
#define LANES   4
#define COLUMNS 4

#define LOAD(p)      vld1q_f32(p)
#define STORE(p, v)  vst1q_f32(p, v)
#define SET1(s)      vdupq_n_f32(s)
#define ADD(a, b)    vaddq_f32(a, b)
#define SUB(a, b)    vsubq_f32(a, b)
#define MUL(a, b)    vmulq_f32(a, b)
#define FMA(a, b, c) vfmaq_f32(c, a, b)

/* Lane i meets lane i ^ h; the upper one of the two gets their difference. */
INLINE float32x4_t within(float32x4_t v)
{
	float32x4_t p = vrev64q_f32(v); /* 1 0 3 2 */

	v = vtrn1q_f32(vaddq_f32(v, p), vsubq_f32(v, p));
	p = vextq_f32(v, v, 2); /* 2 3 0 1 */
	return vcombine_f32(vget_low_f32(vaddq_f32(v, p)), vget_low_f32(vsubq_f32(v, p)));
}

#include "kernel/transform_body.h"

void vq_transform_neon(const struct vq_transform *t, const float *x, size_t n_rows, float *out)
{
	transform(t, x, n_rows, out);
}
#endif
