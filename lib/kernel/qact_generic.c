/* Activation quantization in plain C: the meaning of the operation. */
#include "kernel/qact_rows.h"

#include "base/num.h"

static struct vq_act_step fit(const struct vq_agrid *g, const float *x, uint32_t n)
{
	float min = 0, max = 0;
	uint32_t i;

	for (i = 0; i < n; i++) {
		min = x[i] < min ? x[i] : min;
		max = x[i] > max ? x[i] : max;
	}
	return vq_act_step_of(g, min, max);
}

/* NaN becomes lo. */
static inline float code(const struct vq_act_step *p, float x)
{
	float v = vq_rne(x / p->s) + p->z;

	v = v > p->lo ? v : p->lo;
	return v < p->hi ? v : p->hi;
}

void vq_act_quantize_generic(const struct vq_agrid *g, const float *x, uint32_t n, int8_t *q,
			     float *scale, int32_t *zero)
{
	uint32_t group = g->group == 0 || g->group > n ? n : g->group, i, at, m, j = 0;

	for (at = 0; at < n; at += m, j++, scale++, zero++) {
		struct vq_act_step p;

		m = n - at < group ? n - at : group;
		p = g->lo ? vq_act_step_of(g, g->lo[j], g->hi[j]) : fit(g, x + at, m);
		for (i = at; i < at + m; i++)
			q[i] = (int8_t)(p.s == 0 ? p.z : code(&p, x[i]));
		*scale = p.s;
		*zero = (int32_t)p.z;
	}
}

void vq_act_fake_generic(const struct vq_agrid *g, const float *x, uint32_t n, float *out)
{
	uint32_t group = g->group == 0 || g->group > n ? n : g->group, i, at, m, j = 0;

	for (at = 0; at < n; at += m, j++) {
		struct vq_act_step p;

		m = n - at < group ? n - at : group;
		p = g->lo ? vq_act_step_of(g, g->lo[j], g->hi[j]) : fit(g, x + at, m);
		for (i = at; i < at + m; i++)
			out[i] = p.s == 0 ? 0 : p.s * (code(&p, x[i]) - p.z);
	}
}
