/* Integer products of arm64 with dot products (ARMv8.2-A's sdot). */
#if defined(__aarch64__)
#include <arm_neon.h>
#include <sys/auxv.h>

#include "kernel/attend_rows.h"
#include "kernel/cpu.h"
#include "kernel/gemm16_rows.h"

#ifdef __clang__
#define TARGET __attribute__((target("dotprod")))
#else
#define TARGET __attribute__((target("arch=armv8.2-a+dotprod")))
#endif
#define INLINE static inline __attribute__((always_inline)) TARGET
#define TILE   8u
#define PARTS  1

/* acc + the products of 4 rows x 4 codes with b, lane by lane.  Written out, since compilers older than the attribute's
 * use hide the intrinsic. */
INLINE void dot(int32x4_t *acc, int8x16_t w, int8x16_t b)
{
	__asm__("sdot %0.4s, %1.16b, %2.16b" : "+w"(*acc) : "w"(w), "w"(b));
}

/* The same with lane `lane` of b for all. */
INLINE void dot_lane(int32x4_t *acc, int8x16_t w, int8x16_t b, const int lane)
{
#define DOT(n) \
	case n: __asm__("sdot %0.4s, %1.16b, %2.4b[" #n "]" : "+w"(*acc) : "w"(w), "w"(b)); break
	switch (lane) {
		DOT(0);
		DOT(1);
		DOT(2);
		DOT(3);
	}
#undef DOT
}

INLINE int32x4_t total(const int32x4_t *acc)
{
	return *acc;
}

INLINE void sum_codes(int32x4_t *su, int8x16_t e)
{
	dot(su, e, vdupq_n_s8(1));
}

#include "kernel/qgemm_neon_body.h"

static int runs(void)
{
	return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
}

const struct vq_kernels vq_kernels_neondot = {
	.name = "neondot",
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
