/* Integer products: what is checked before a kernel runs. */
#include "kernel/qgemm.h"

#include "base/num.h"
#include "kernel/cpu.h"

static uint32_t whole(uint32_t group, uint32_t n)
{
	return group == 0 || group > n ? n : group;
}

static void empty_sum(const struct vq_product *p)
{
	size_t i, n_out = p->w->n_out;

	for (i = 0; i < p->a->n_rows * n_out; i++)
		p->y[i] = (p->add ? p->y[i] : 0) + (p->bias ? p->bias[i % n_out] : 0);
}

int vq_qgemm_check(const struct vq_packed *w, const struct vq_agrid *g, struct vq_err *err)
{
	uint32_t n = w->n_in, wg = whole(w->group, n), ag = whole(g->group, n);
	uint32_t seg = wg < ag ? wg : ag, coarse = wg < ag ? ag : wg;
	uint64_t biggest;

	if (w->bits < 2 || w->bits > 8 || g->bits < 2 || g->bits > 8)
		return vq_fail(err, VQ_E_DATA,
			       "product: want 2..8 bits, got %u-bit weights, %u-bit inputs",
			       w->bits, g->bits);
	if (w->value && w->bits > 4)
		return vq_fail(err, VQ_E_DATA, "product: want a table of 2..4 bits, got %u",
			       w->bits);
	if (w->straddles)
		return vq_fail(err, VQ_E_DATA, "product: groups of %u weights straddle rows of %u",
			       w->group, n);
	if (coarse < n && coarse % seg != 0)
		return vq_fail(err, VQ_E_DATA,
			       "product: weight groups of %u and input groups of %u: one must "
			       "divide the other",
			       wg, ag);
	biggest = (uint64_t)(w->value ? 255 : (1u << w->bits) - 1) * ((1u << g->bits) - 1) * seg;
	if (biggest > INT32_MAX)
		return vq_fail(err, VQ_E_DATA,
			       "product: a sum over %u inputs of %u x %u bits may leave 32 bits; "
			       "use groups",
			       seg, w->bits, g->bits);
	return VQ_OK;
}

int vq_qgemm(const struct vq_packed *w, const struct vq_qact *a, const struct vq_agrid *g,
	     const float *bias, int add, float *y, struct vq_err *err)
{
	uint32_t n = w->n_in, wg = whole(w->group, n), ag = whole(g->group, n);
	struct vq_product p = {.w = w, .a = a, .has_za = !g->sym, .bias = bias, .add = add, .y = y};
	int rc = vq_qgemm_check(w, g, err);

	if (rc < 0)
		return rc;
	if (a->n != n)
		return vq_fail(err, VQ_E_DATA, "product: the weight has %u inputs, the input %u", n,
			       a->n);
	if (w->n_out == 0 || a->n_rows == 0)
		return VQ_OK;
	if (n == 0) {
		empty_sum(&p);
		return VQ_OK;
	}
	if (w->n_groups != vq_ceil_div(n, wg) || a->n_groups != vq_ceil_div(n, ag))
		return vq_fail(err, VQ_E_DATA,
			       "product: want %u weight and %u input groups, got %u and %u",
			       vq_ceil_div(n, wg), vq_ceil_div(n, ag), w->n_groups, a->n_groups);
	p.seg = wg < ag ? wg : ag;
	p.n_segs = vq_ceil_div(n, p.seg);
	p.w_every = wg >= n ? p.n_segs : wg / p.seg;
	p.a_every = ag >= n ? p.n_segs : ag / p.seg;
	return vq_kernels_get()->qgemm(&p, err);
}
