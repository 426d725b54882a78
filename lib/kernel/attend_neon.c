/* Attention with NEON. */
#if defined(__aarch64__)
#include <arm_neon.h>
#include <string.h>

#define TARGET
#define INLINE     static inline __attribute__((always_inline))
#define VECTOR     float32x4_t
#define LANES      4
#define SCORE_ROWS 6
#define SCORES(r)  ((r) >= 4 ? 4 : 8)
#define VALUES(r)  ((r) >= 4 ? 4 : 8)

#define LOAD(p)      vld1q_f32(p)
#define STORE(p, v)  vst1q_f32(p, v)
#define SET1(s)      vdupq_n_f32(s)
#define ADD(a, b)    vaddq_f32(a, b)
#define SUB(a, b)    vsubq_f32(a, b)
#define MUL(a, b)    vmulq_f32(a, b)
#define FMA(a, b, c) vfmaq_f32(c, a, b)
#define MAX(a, b)    max_of(a, b)
#define LARGEST(v)   vmaxvq_f32(v)
#define LOAD_F16(p)  vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)))
#define LOAD_I8(p)   load_i8(p)
#define KEEP(v, n)   keep(v, n)
#define ADD_EXPONENT(p, t)     \
	vreinterpretq_f32_u32( \
		vaddq_u32(vreinterpretq_u32_f32(p), vshlq_n_u32(vreinterpretq_u32_f32(t), 23)))

/* a > b ? a : b, so b when either is NaN. */
INLINE float32x4_t max_of(float32x4_t a, float32x4_t b)
{
	return vbslq_f32(vcgtq_f32(a, b), a, b);
}

INLINE float32x4_t load_i8(const int8_t *p)
{
	int32_t four;

	memcpy(&four, p, sizeof(four));
	return vcvtq_f32_s32(
		vmovl_s16(vget_low_s16(vmovl_s8(vcreate_s8((uint64_t)(uint32_t)four)))));
}

/* The first n lanes, the others 0. */
INLINE float32x4_t keep(float32x4_t v, int n)
{
	const int32x4_t lane = {0, 1, 2, 3};

	return vreinterpretq_f32_u32(
		vandq_u32(vreinterpretq_u32_f32(v), vcgtq_s32(vdupq_n_s32(n), lane)));
}

#include "kernel/attend_body.h"

void vq_attend_neon(const struct vq_attend *a)
{
	attend(a);
}
#endif
