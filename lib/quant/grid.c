/* Weight grids. */
#include "quant/grid.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "base/num.h"
#include "kernel/round.h"

#define HALF_MAX 65504.0f /* the largest finite float16 */

uint32_t vq_grid_n_groups(const struct vq_wgrid *g, uint32_t n_in)
{
	return g->group == 0 || g->group >= n_in ? 1 : vq_ceil_div(n_in, g->group);
}

int vq_codes_alloc(struct vq_codes *c, const struct vq_wgrid *g, uint32_t n_out, uint32_t n_in,
		   struct vq_err *err)
{
	struct vq_codes t = {.grid = *g, .n_out = n_out, .n_in = n_in};
	size_t n_codes, n_scales;

	if (g->bits < 2 || g->bits > 8)
		return vq_fail(err, VQ_E_DATA, "weight grid: want 2..8 bits, got %u", g->bits);
	if (vq_mul_size(&n_codes, n_out, n_in) < 0 ||
	    vq_mul_size(&n_scales, n_out, vq_grid_n_groups(g, n_in)) < 0)
		return vq_fail(err, VQ_E_DATA, "weight grid: %u x %u is too large", n_out, n_in);
	t.codes = vq_alloc(n_codes, 1, err);
	t.scale = t.codes ? vq_alloc(n_scales, sizeof(uint16_t), err) : NULL;
	t.zero = t.scale && !g->sym ? vq_alloc(n_scales, 1, err) : NULL;
	if (!t.scale || (!g->sym && !t.zero)) {
		vq_codes_free(&t);
		return VQ_E_SYS;
	}
	*c = t;
	return VQ_OK;
}

void vq_codes_free(struct vq_codes *c)
{
	vq_free(c->codes);
	vq_free(c->scale);
	vq_free(c->zero);
	memset(c, 0, sizeof(*c));
}

/* NaN becomes lo, so that the conversion to an integer is defined for every input. */
static inline float clamp(float v, float lo, float hi)
{
	v = v > lo ? v : lo;
	return v < hi ? v : hi;
}

static float half_of(float s)
{
	return vq_f16_to_f32(vq_f32_to_f16(s < HALF_MAX ? s : HALF_MAX));
}

struct vq_wstep vq_grid_step(const struct vq_wgrid *g, float min, float max, float clip)
{
	float top = (float)((1u << g->bits) - 1), half = (float)(1u << (g->bits - 1));
	struct vq_wstep p = {0, half};
	float range;

	min = clip * (min < 0 ? min : 0);
	max = clip * (max > 0 ? max : 0);
	if (g->sym) {
		p.s = half_of((max > -min ? max : -min) / (half - 1));
		return p;
	}
	range = max - min;
	p.s = half_of(isfinite(range) ? range / top : max / top - min / top);
	p.z = p.s == 0 ? 0 : clamp(vq_rne(-min / p.s), 0, top);
	return p;
}

uint8_t vq_grid_code(const struct vq_wgrid *g, struct vq_wstep p, float w)
{
	float top = (float)((1u << g->bits) - 1);

	return (uint8_t)(p.s == 0 ? p.z : clamp(vq_rne(w / p.s) + p.z, 0, top));
}

static void fit_row(struct vq_codes *c, uint32_t row, const float *w, float clip)
{
	const struct vq_wgrid *g = &c->grid;
	uint32_t n = c->n_in, n_groups = vq_grid_n_groups(g, n), j;
	float top = (float)((1u << g->bits) - 1);
	uint8_t *u = c->codes + (size_t)row * n;

	for (j = 0; j < n_groups; j++) {
		uint32_t a = j * g->group, b = j + 1 == n_groups ? n : a + g->group;
		size_t at = (size_t)row * n_groups + j;
		struct vq_wstep p;
		float min, max;

		vq_round_range(w + a, b - a, &min, &max);
		p = vq_grid_step(g, min, max, clip);
		if (p.s == 0)
			memset(u + a, (int)p.z, b - a);
		else
			vq_round_codes(w + a, b - a, p.s, p.z, top, u + a);
		c->scale[at] = vq_f32_to_f16(p.s);
		if (c->zero)
			c->zero[at] = (uint8_t)p.z;
	}
}

void vq_grid_fit(struct vq_codes *c, const float *w, float clip)
{
	long long row;

#pragma omp parallel for schedule(static) if ((size_t)c->n_out * c->n_in > 32768)
	for (row = 0; row < (long long)c->n_out; row++)
		fit_row(c, (uint32_t)row, w + (size_t)row * c->n_in, clip);
}

static void dequant_row(const struct vq_codes *c, uint32_t row, float *w)
{
	const struct vq_wgrid *g = &c->grid;
	uint32_t n = c->n_in, n_groups = vq_grid_n_groups(g, n), j;
	const uint8_t *u = c->codes + (size_t)row * n;

	for (j = 0; j < n_groups; j++) {
		uint32_t a = j * g->group, b = j + 1 == n_groups ? n : a + g->group;
		size_t at = (size_t)row * n_groups + j;
		float s = vq_f16_to_f32(c->scale[at]);
		int z = c->zero ? c->zero[at] : 1 << (g->bits - 1);

		vq_round_values(u + a, b - a, s, (float)z, w + a);
	}
}

void vq_grid_dequant(const struct vq_codes *c, float *w)
{
	long long row;

#pragma omp parallel for schedule(static) if ((size_t)c->n_out * c->n_in > 32768)
	for (row = 0; row < (long long)c->n_out; row++)
		dequant_row(c, (uint32_t)row, w + (size_t)row * c->n_in);
}
