/* What the instruction sets of attend.h share: its room, 2^x, the scale of queries. */
#ifndef VQ_KERNEL_ATTEND_ROWS_H
#define VQ_KERNEL_ATTEND_ROWS_H

#include <math.h>

#include "base/num.h"
#include "kernel/attend.h"

/* 2^x for x <= 0: x is rounded to n by a sum that has no room for a fraction, the rest r of -1/2..1/2 goes through a
 * polynomial (minimax of its relative error, the constant held at 1), and n is added to the exponent. */
#define VQ_EXP2_LOWEST (-100.0f)
#define VQ_EXP2_MAGIC  12582912.0f /* 1.5 2^23 */
#define VQ_EXP2_C1     0.6931472f
#define VQ_EXP2_C2     0.24022648f
#define VQ_EXP2_C3     0.055503324f
#define VQ_EXP2_C4     0.009618437f
#define VQ_EXP2_C5     0.0013398874f
#define VQ_EXP2_C6     0.00015353362f

/* NaN stays NaN. */
static inline float vq_attend_exp2(float x)
{
	float t, r, p;

	x = VQ_EXP2_LOWEST > x ? VQ_EXP2_LOWEST : x;
	t = x + VQ_EXP2_MAGIC;
	r = x - (t - VQ_EXP2_MAGIC);
	p = fmaf(VQ_EXP2_C6, r, VQ_EXP2_C5);
	p = fmaf(p, r, VQ_EXP2_C4);
	p = fmaf(p, r, VQ_EXP2_C3);
	p = fmaf(p, r, VQ_EXP2_C2);
	p = fmaf(p, r, VQ_EXP2_C1);
	p = fmaf(p, r, 1.0f);
	return vq_bits_f32(vq_f32_bits(p) + (vq_f32_bits(t) << 23));
}

static inline float vq_attend_scale(uint32_t dim)
{
	return (float)(1.4426950408889634 / sqrt(dim));
}

/* How the room is used; `scores` rows at a time. */
struct vq_attend_room {
	float *q;     /* [n_rows, dim] scaled, in the order of the set */
	float *o;     /* [n_rows, width] sums */
	float *m, *l; /* [n_rows] */
	float *s;     /* [VQ_ATTEND_SCORES, VQ_ATTEND_KEYS] */
	float *k, *v; /* of a tile, as F32 keys have them */
};

#define VQ_ATTEND_SCORES 12u

struct vq_attend_room vq_attend_divide(const struct vq_attend *a);

/* Keys that row r sees. */
static inline uint32_t vq_attend_seen(const struct vq_attend *a, uint32_t r)
{
	return a->seen + r / a->group * a->more;
}

void vq_attend_generic(const struct vq_attend *a);
#if defined(__x86_64__)
void vq_attend_avx2(const struct vq_attend *a);
void vq_attend_avx512(const struct vq_attend *a);
#elif defined(__aarch64__)
void vq_attend_neon(const struct vq_attend *a);
#endif

#endif
