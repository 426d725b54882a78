/* Integer products with what every arm64 CPU has: products of bytes in 16 bits, added in pairs. */
#if defined(__aarch64__)
#include <arm_neon.h>

#include "kernel/attend_rows.h"
#include "kernel/cpu.h"
#include "kernel/gemm16_rows.h"

#define TARGET
#define INLINE static inline __attribute__((always_inline))
#define TILE   4u
#define PARTS  2

/* acc + the products of 4 rows x 4 codes with b: those of rows 0 and 1, two sums each, then those of rows 2 and 3. */
INLINE void dot(int32x4_t *acc, int8x16_t w, int8x16_t b)
{
	acc[0] = vpadalq_s16(acc[0], vmull_s8(vget_low_s8(w), vget_low_s8(b)));
	acc[1] = vpadalq_s16(acc[1], vmull_high_s8(w, b));
}

/* The same with the four codes of lane `lane` of b for all. */
INLINE void dot_lane(int32x4_t *acc, int8x16_t w, int8x16_t b, const int lane)
{
	int32x4_t v = vreinterpretq_s32_s8(b);

	dot(acc, w, vreinterpretq_s8_s32(vdupq_n_s32(v[lane])));
}

INLINE int32x4_t total(const int32x4_t *acc)
{
	return vpaddq_s32(acc[0], acc[1]);
}

INLINE void sum_codes(int32x4_t *su, int8x16_t e)
{
	*su = vpadalq_s16(*su, vpaddlq_s8(e));
}

#include "kernel/qgemm_neon_body.h"

static int runs(void)
{
	return 1;
}

const struct vq_kernels vq_kernels_neon = {
	.name = "neon",
	.runs = runs,
	.act_quantize = vq_act_quantize_neon,
	.act_fake = vq_act_fake_neon,
	.transform = vq_transform_neon,
	.qgemm = qgemm,
	.gemm = &vq_gemm_neon,
	.gemm_bf16 = NULL,
	.attend = vq_attend_neon,
	.joint_rows = vq_joint_rows_generic, /* two doubles a register do not pay */
	.ops = &vq_ops_generic, /* vectors of the compiler, which NEON is the base of */
};
#endif
