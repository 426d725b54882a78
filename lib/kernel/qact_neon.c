/* Activation quantization with NEON: generic's operations, four inputs at a time. */
#if defined(__aarch64__)
#include "kernel/qact_rows.h"

#include <arm_neon.h>
#include <string.h>

#define LANES 4u
#define BLOCK 16u /* codes of a register */

/* The last n < 4 inputs, 0 behind them. */
static inline float32x4_t load_part(const float *x, uint32_t n)
{
	float t[LANES] = {0};

	memcpy(t, x, n * sizeof(*t));
	return vld1q_f32(t);
}

/* Selects, since the instructions for minimum and maximum return NaN, and -0 for 0. */
static inline float32x4_t least(float32x4_t v, float32x4_t least)
{
	return vbslq_f32(vcltq_f32(v, least), v, least);
}

static inline float32x4_t most(float32x4_t v, float32x4_t most)
{
	return vbslq_f32(vcgtq_f32(v, most), v, most);
}

static struct vq_act_step fit(const struct vq_agrid *g, const float *x, uint32_t n)
{
	float32x4_t min = vdupq_n_f32(0), max = min;
	uint32_t i;

	for (i = 0; i < n; i += LANES) {
		float32x4_t v = n - i < LANES ? load_part(x + i, n - i) : vld1q_f32(x + i);

		min = least(v, min);
		max = most(v, max);
	}
	return vq_act_step_of(g, vminvq_f32(min), vmaxvq_f32(max));
}

/* NaN becomes lo. */
static inline float32x4_t code(const struct vq_act_step *p, float32x4_t x)
{
	float32x4_t v = vrndnq_f32(vdivq_f32(x, vdupq_n_f32(p->s)));

	v = most(vaddq_f32(v, vdupq_n_f32(p->z)), vdupq_n_f32(p->lo));
	return least(v, vdupq_n_f32(p->hi));
}

static inline int16x4_t code16(const struct vq_act_step *p, const float *x)
{
	return vmovn_s32(vcvtq_s32_f32(code(p, vld1q_f32(x))));
}

/* Sixteen inputs to sixteen codes. */
static inline void codes(const struct vq_act_step *p, const float *x, int8_t *q)
{
	int16x8_t a = vcombine_s16(code16(p, x), code16(p, x + 4));
	int16x8_t b = vcombine_s16(code16(p, x + 8), code16(p, x + 12));

	vst1q_s8(q, vcombine_s8(vmovn_s16(a), vmovn_s16(b)));
}

void vq_act_quantize_neon(const struct vq_agrid *g, const float *x, uint32_t n, int8_t *q,
			  float *scale, int32_t *zero)
{
	uint32_t group = g->group == 0 || g->group > n ? n : g->group, i, at, m, j = 0;

	for (at = 0; at < n; at += m, j++, scale++, zero++) {
		struct vq_act_step p;

		m = n - at < group ? n - at : group;
		p = g->lo ? vq_act_step_of(g, g->lo[j], g->hi[j]) : fit(g, x + at, m);
		*scale = p.s;
		*zero = (int32_t)p.z;
		if (p.s == 0) {
			memset(q + at, *zero, m);
			continue;
		}
		for (i = 0; i + BLOCK <= m; i += BLOCK)
			codes(&p, x + at + i, q + at + i);
		if (i < m) {
			float t[BLOCK] = {0};
			int8_t last[BLOCK];

			memcpy(t, x + at + i, (m - i) * sizeof(*t));
			codes(&p, t, last);
			memcpy(q + at + i, last, m - i);
		}
	}
}

static inline float32x4_t fake(const struct vq_act_step *p, float32x4_t x)
{
	return vmulq_f32(vdupq_n_f32(p->s), vsubq_f32(code(p, x), vdupq_n_f32(p->z)));
}

void vq_act_fake_neon(const struct vq_agrid *g, const float *x, uint32_t n, float *out)
{
	uint32_t group = g->group == 0 || g->group > n ? n : g->group, i, at, m, j = 0;

	for (at = 0; at < n; at += m, j++) {
		struct vq_act_step p;

		m = n - at < group ? n - at : group;
		p = g->lo ? vq_act_step_of(g, g->lo[j], g->hi[j]) : fit(g, x + at, m);
		if (p.s == 0) {
			memset(out + at, 0, m * sizeof(*out));
			continue;
		}
		for (i = 0; i + LANES <= m; i += LANES)
			vst1q_f32(out + at + i, fake(&p, vld1q_f32(x + at + i)));
		if (i < m) {
			float last[LANES];

			vst1q_f32(last, fake(&p, load_part(x + at + i, m - i)));
			memcpy(out + at + i, last, (m - i) * sizeof(*last));
		}
	}
}
#endif
