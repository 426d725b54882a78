/* Activation quantization of one token (qact.h), one function an instruction set. */
#ifndef VQ_KERNEL_QACT_ROWS_H
#define VQ_KERNEL_QACT_ROWS_H

#include <math.h>

#include "base/num.h"
#include "kernel/qact.h"

/* What turns the inputs of one group into codes: rint(x / s) + z, clamped to lo..hi, all as stored; s = 0
 * gives z.  From the range of the group: min(0, min x), max(0, max x). */
struct vq_act_step {
	float s, z, lo, hi;
};

/* A comparison with NaN is false, so NaN becomes lo and the conversion to an integer stays defined.  The
 * vector rows have the operands of min and max in the order that does the same. */
static inline float vq_act_clamp(float v, float lo, float hi)
{
	v = v > lo ? v : lo;
	return v < hi ? v : hi;
}

static inline struct vq_act_step vq_act_step_of(const struct vq_agrid *g, float min, float max)
{
	float half = (float)(1u << (g->bits - 1)), top = 2 * half - 1;
	struct vq_act_step p = {0, 0, -half, half - 1};

	if (g->sym) {
		p.s = g->clip * (max > -min ? max : -min) / (half - 1);
		return p;
	}
	min *= g->clip;
	max *= g->clip;
	p.s = max - min;
	p.s = isfinite(p.s) ? p.s / top : max / top - min / top;
	p.z = p.s == 0 ? -half : vq_act_clamp(vq_rne(-min / p.s), 0, top) - half;
	return p;
}

void vq_act_quantize_generic(const struct vq_agrid *g, const float *x, uint32_t n, int8_t *q,
			     float *scale, int32_t *zero);
void vq_act_fake_generic(const struct vq_agrid *g, const float *x, uint32_t n, float *out);

/* vq_act_fake of whole rows when ranges are stored for each input (VQ_RANGE_CHANNEL); the bits of the rows' functions. */
void vq_act_fake_channels(const struct vq_agrid *g, const float *x, size_t n_rows, uint32_t n,
			  float *out);

#if defined(__x86_64__)
void vq_act_quantize_avx2(const struct vq_agrid *g, const float *x, uint32_t n, int8_t *q,
			  float *scale, int32_t *zero);
void vq_act_fake_avx2(const struct vq_agrid *g, const float *x, uint32_t n, float *out);
void vq_act_quantize_avx512(const struct vq_agrid *g, const float *x, uint32_t n, int8_t *q,
			    float *scale, int32_t *zero);
void vq_act_fake_avx512(const struct vq_agrid *g, const float *x, uint32_t n, float *out);
#elif defined(__aarch64__)
void vq_act_quantize_neon(const struct vq_agrid *g, const float *x, uint32_t n, int8_t *q,
			  float *scale, int32_t *zero);
void vq_act_fake_neon(const struct vq_agrid *g, const float *x, uint32_t n, float *out);
#endif

#endif
