/* Linear layers in every form their weights have. */
#include "model/linear.h"

#include <string.h>

#include "base/mem.h"
#include "base/num.h"
#include "kernel/gemm16.h"

#define RUN 128u /* inputs whose codes are expanded together */

/* The input in the form that the last linear wanted, kept for the next one. */
struct prepared {
	const struct vq_transform *transform;
	float *t; /* transformed; NULL without, and where quantizing does it */
	struct vq_agrid grid;
	int have_q;
	struct vq_qact q;    /* quantized */
	struct vq_kept kept; /* what the products share */
	int again;           /* others follow with this input */
	float *f;            /* quantized and dequantized; NULL without */
};

static void forget(struct prepared *p)
{
	if (p->have_q)
		vq_qact_free(&p->q);
	vq_free(p->kept.data);
	vq_free(p->f);
	vq_free(p->t);
	*p = (struct prepared){.again = p->again};
}

static int rows_of(float **out, size_t n_rows, uint32_t width, struct vq_err *err)
{
	size_t n;

	if (vq_mul_size(&n, n_rows, width) < 0)
		return vq_fail(err, VQ_E_SYS, "memory: %zu rows of %u", n_rows, width);
	*out = vq_alloc_f32(n, err);
	return *out ? VQ_OK : VQ_E_SYS;
}

/* Codes of x, for the integer product. */
static int quantize(struct prepared *p, const struct vq_linear *l, const float *x, size_t n_rows,
		    struct vq_err *err)
{
	int rc = vq_qact_alloc(&p->q, n_rows, l->n_in, &l->act, err);

	if (rc < 0)
		return rc;
	p->have_q = 1;
	p->q.kept = p->again ? &p->kept : NULL;
	if (l->transform)
		return vq_transform_quantize(l->transform, &l->act, x, &p->q, err);
	vq_act_quantize(&l->act, x, &p->q);
	return VQ_OK;
}

/* Floats: x transformed, then quantized and dequantized, as far as l wants it; *out is what to multiply. */
static int simulate(struct prepared *p, const struct vq_linear *l, const float *x, size_t n_rows,
		    const float **out, struct vq_err *err)
{
	int rc = VQ_OK;

	if (l->transform && !p->t) {
		rc = rows_of(&p->t, n_rows, l->n_in, err);
		if (rc == VQ_OK)
			vq_transform_rows(l->transform, x, n_rows, p->t);
	}
	if (rc == VQ_OK && l->act.bits != VQ_ACT_FLOAT && !p->f) {
		rc = rows_of(&p->f, n_rows, l->n_in, err);
		if (rc == VQ_OK)
			vq_act_fake(&l->act, p->t ? p->t : x, n_rows, l->n_in, p->f);
	}
	*out = p->f ? p->f : p->t ? p->t : x;
	return rc;
}

/* What code u of a row and an input stands for; `at` is the place of its grid in the packed order. */
static float value_of(const struct vq_packed *p, uint8_t u, size_t row, uint32_t in, size_t at)
{
	if (p->straddles)
		at = (row * p->n_in + in) / p->group;
	if (p->value)
		return p->value[u] * p->absmax[at];
	return vq_f16_to_f32(p->scale[at]) *
	       (float)((int)u - (p->zero ? p->zero[at] : 1 << (p->bits - 1)));
}

/* Inputs k0.. k0 + n of the rows of a panel, one by one: what lies askew. */
static void odd_values(const struct vq_packed *p, const uint8_t *codes, size_t first, uint32_t rows,
		       uint32_t k0, uint32_t n, float *out)
{
	uint32_t group = p->group ? p->group : p->n_in, r, k;
	size_t scales = first / VQ_PANEL * p->n_groups * VQ_PANEL;

	for (r = 0; r < rows; r++)
		for (k = k0; k < k0 + n; k++)
			out[(size_t)r * p->n_in + k] =
				value_of(p, codes[(k - k0) / 4 * 4 * VQ_PANEL + 4 * r + k % 4],
					 first + r, k, scales + (size_t)(k / group) * VQ_PANEL + r);
}

/* The same within a group, the grid of a row looked up once. */
static void group_values(const struct vq_packed *p, const uint8_t *codes, size_t first,
			 uint32_t rows, uint32_t k0, uint32_t n, float *out)
{
	size_t at = first / VQ_PANEL * p->n_groups * VQ_PANEL +
		    (size_t)(p->group ? k0 / p->group : 0) * VQ_PANEL;
	uint32_t r, k;

	for (r = 0; r < rows; r++, at++, codes += 4) {
		float *o = out + (size_t)r * p->n_in + k0;
		float scale = p->value ? p->absmax[at] : vq_f16_to_f32(p->scale[at]);
		int zero = p->zero ? p->zero[at] : 1 << (p->bits - 1);

		for (k = 0; p->value && k < n; k++)
			o[k] = p->value[codes[k / 4 * 4 * VQ_PANEL + k % 4]] * scale;
		for (k = 0; !p->value && k < n; k++)
			o[k] = scale * (float)((int)codes[k / 4 * 4 * VQ_PANEL + k % 4] - zero);
	}
}

void vq_packed_rows(const void *w, size_t first, uint32_t n, uint32_t n_in, float *out)
{
	const struct vq_packed *p = w;
	uint32_t n_steps = vq_ceil_div(n_in, 4), group = p->group ? p->group : n_in, r, k, k1;
	int askew = p->straddles || (group < n_in && group % 4);
	size_t step = 16 * (size_t)p->bits;
	uint8_t codes[RUN * VQ_PANEL];

	for (r = 0; r < n; r += VQ_PANEL) {
		size_t panel = (first + r) / VQ_PANEL;
		uint32_t rows = n - r < VQ_PANEL ? n - r : VQ_PANEL;

		for (k = 0; k < n_in; k = k1) {
			k1 = n_in - k < RUN ? n_in : k + RUN;
			if (!askew && k1 > (k / group + 1) * group)
				k1 = (k / group + 1) * group;
			vq_panel_expand(p->bits, p->planes + (panel * n_steps + k / 4) * step,
					vq_ceil_div(k1 - k, 4), codes);
			(askew ? odd_values : group_values)(p, codes, first + r, rows, k, k1 - k,
							    out + (size_t)r * n_in);
		}
	}
}

void vq_packed_row(const struct vq_packed *p, size_t row, float *out)
{
	uint32_t n_steps = vq_ceil_div(p->n_in, 4), group = p->group ? p->group : p->n_in, in;
	size_t step = 16 * (size_t)p->bits, panel = row / VQ_PANEL, r = row % VQ_PANEL;
	uint8_t e[4 * VQ_PANEL];

	for (in = 0; in < p->n_in; in++) {
		size_t at = (panel * p->n_groups + in / group) * VQ_PANEL + r;

		if (in % 4 == 0)
			vq_panel_expand(p->bits, p->planes + (panel * n_steps + in / 4) * step, 1,
					e);
		out[in] = value_of(p, e[4 * r + in % 4], row, in, at);
	}
}

/* Stored ranges must be there, and rows whole sequences where each has its own. */
static int check_ranges(const struct vq_linear *l, size_t n_rows, struct vq_err *err)
{
	const struct vq_agrid *g = &l->act;

	if (g->range == VQ_RANGE_TOKEN || g->bits == VQ_ACT_FLOAT)
		return VQ_OK;
	if (!g->lo || !g->hi ||
	    g->n_ranges != vq_agrid_n_ranges(g, l->n_in, g->n_ranges ? g->n_ranges : 1))
		return vq_fail(err, VQ_E_DATA,
			       "a linear layer of %u x %u has no ranges for its input", l->n_out,
			       l->n_in);
	if (g->range == VQ_RANGE_POSITION && n_rows % g->n_ranges != 0)
		return vq_fail(err, VQ_E_DATA,
			       "ranges of %u positions want whole sequences, got %zu rows",
			       g->n_ranges, n_rows);
	return VQ_OK;
}

int vq_linear_is_integer(const struct vq_linear *l)
{
	return l->packed && vq_agrid_is_integer(&l->act) && !l->exact && !l->packed->straddles;
}

int vq_packed_check(const struct vq_packed *p, const char *label, struct vq_err *err)
{
	size_t n = p->value ? 0 : vq_packed_n_scales(p->n_out, p->n_groups), i;
	unsigned bad = 0, all = 0;

	for (i = 0; i < n; i++)
		bad |= (p->scale[i] >= 0x7c00u) & (p->scale[i] != 0x8000u);
	for (i = 0; p->zero && i < n; i++)
		all |= p->zero[i];
	if (bad)
		return vq_fail(err, VQ_E_DATA, "%s: has a scale that is no number of 0 or more",
			       label);
	return all >> p->bits ? vq_fail(err, VQ_E_DATA, "%s: has a zero point of more than %u bits",
					label, p->bits)
			      : VQ_OK;
}

/* At the first product.  Twice at once does no harm. */
static int check_grids(const struct vq_linear *l, struct vq_err *err)
{
	int rc;

	if (!l->packed || !l->unchecked || l->unchecked->done)
		return VQ_OK;
	rc = vq_packed_check(l->packed, l->unchecked->label, err);
	l->unchecked->done = rc == VQ_OK;
	return rc;
}

static int check(const struct vq_linear *l, size_t n_rows, struct vq_err *err)
{
	int rc;

	if (!l->w && !l->packed)
		return vq_fail(err, VQ_E_DATA, "a linear layer of %u x %u has no weight", l->n_out,
			       l->n_in);
	rc = check_ranges(l, n_rows, err);
	return rc < 0 ? rc : check_grids(l, err);
}

/* y = linear(x), or with add y +=. */
static int one(const struct vq_linear *l, const float *x, size_t n_rows, int add, float *y,
	       struct prepared *p, struct vq_err *err)
{
	struct vq_gemm g = {.n_out = l->n_out,
			    .n_in = l->n_in,
			    .type = l->dtype,
			    .rows = l->packed ? vq_packed_rows : NULL,
			    .w = l->packed ? l->packed : l->w,
			    .bias = l->bias,
			    .add = add,
			    .way = l->way};
	int rc = check(l, n_rows, err);

	if (rc < 0)
		return rc;
	/* What the linear before wanted too stays. */
	if (p->transform != l->transform || !vq_agrid_same(&p->grid, &l->act))
		forget(p);
	p->grid = l->act;
	p->transform = l->transform;
	if (vq_linear_is_integer(l)) {
		rc = p->have_q ? VQ_OK : quantize(p, l, x, n_rows, err);
		return rc < 0 ? rc : vq_qgemm(l->packed, &p->q, &l->act, l->bias, add, y, err);
	}
	rc = simulate(p, l, x, n_rows, &x, err);
	return rc < 0 ? rc : vq_gemm_run(&g, x, n_rows, y, err);
}

int vq_linear_apply(const struct vq_linear *const *l, uint32_t n, const float *x, size_t n_rows,
		    float *const *y, struct vq_err *err)
{
	struct prepared p = {.again = n > 1};
	int rc = VQ_OK;
	uint32_t i;

	for (i = 0; rc >= 0 && n_rows && i < n; i++)
		rc = one(l[i], x, n_rows, 0, y[i], &p, err);
	forget(&p);
	return rc;
}

/* The input stays in one form for both, and both are multiplied as integers. */
static int act_fuses(const struct vq_linear *l, const struct vq_linear *gate)
{
	return vq_linear_is_integer(l) &&
	       (!gate || (vq_linear_is_integer(gate) && gate->transform == l->transform &&
			  vq_agrid_same(&gate->act, &l->act)));
}

static int act_fused(const struct vq_linear *l, const struct vq_linear *gate, enum vq_act_fn f,
		     const float *x, size_t n_rows, float *y, struct vq_err *err)
{
	struct vq_qgemm_act act = {f, gate ? gate->packed : NULL, gate ? gate->bias : NULL};
	struct prepared p = {0};
	int rc = check(l, n_rows, err);

	if (rc >= 0 && gate)
		rc = check(gate, n_rows, err);
	if (rc >= 0)
		rc = quantize(&p, l, x, n_rows, err);
	if (rc >= 0)
		rc = vq_qgemm_act(l->packed, &p.q, &l->act, l->bias, &act, y, err);
	forget(&p);
	return rc;
}

static int act_apart(const struct vq_linear *l, const struct vq_linear *gate, enum vq_act_fn f,
		     const float *x, size_t n_rows, float *y, struct vq_err *err)
{
	float *g = NULL;
	int rc = gate ? rows_of(&g, n_rows, l->n_out, err) : VQ_OK;

	if (rc >= 0)
		rc = vq_linear_apply((const struct vq_linear *[]){l, gate}, gate ? 2 : 1, x, n_rows,
				     (float *[]){y, g}, err);
	if (rc >= 0)
		vq_activate(f, g ? g : y, g ? y : NULL, n_rows * l->n_out, y);
	vq_free(g);
	return rc;
}

int vq_linear_act(const struct vq_linear *l, const struct vq_linear *gate, enum vq_act_fn f,
		  const float *x, size_t n_rows, float *y, struct vq_err *err)
{
	if (!n_rows)
		return VQ_OK;
	return (act_fuses(l, gate) ? act_fused : act_apart)(l, gate, f, x, n_rows, y, err);
}

int vq_linear_add(const struct vq_linear *l, const float *x, size_t n_rows, float *y,
		  struct vq_err *err)
{
	struct prepared p = {0};
	int rc = n_rows ? one(l, x, n_rows, 1, y, &p, err) : VQ_OK;

	forget(&p);
	return rc;
}

int vq_linear_one(const struct vq_linear *l, const float *x, size_t n_rows, float *y,
		  struct vq_err *err)
{
	return vq_linear_apply(&l, 1, x, n_rows, &y, err);
}
