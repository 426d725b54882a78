/* Integer products: what is checked before a kernel runs. */
#include "kernel/qgemm.h"

#include "base/mem.h"
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

/* Fills in how p is cut into segments.  Sets *empty where nothing is left to do. */
static int plan(struct vq_product *p, const struct vq_agrid *g, int *empty, struct vq_err *err)
{
	const struct vq_packed *w = p->w;
	const struct vq_qact *a = p->a;
	uint32_t n = w->n_in, wg = whole(w->group, n), ag = whole(g->group, n);
	int rc = vq_qgemm_check(w, g, err);

	*empty = 1;
	if (rc < 0)
		return rc;
	if (a->n != n)
		return vq_fail(err, VQ_E_DATA, "product: the weight has %u inputs, the input %u", n,
			       a->n);
	if (w->n_out == 0 || a->n_rows == 0)
		return VQ_OK;
	if (n == 0) {
		empty_sum(p);
		return VQ_OK;
	}
	if (w->n_groups != vq_ceil_div(n, wg) || a->n_groups != vq_ceil_div(n, ag))
		return vq_fail(err, VQ_E_DATA,
			       "product: want %u weight and %u input groups, got %u and %u",
			       vq_ceil_div(n, wg), vq_ceil_div(n, ag), w->n_groups, a->n_groups);
	p->has_za = !g->sym;
	p->seg = wg < ag ? wg : ag;
	p->n_segs = vq_ceil_div(n, p->seg);
	p->w_every = wg >= n ? p->n_segs : wg / p->seg;
	p->a_every = ag >= n ? p->n_segs : ag / p->seg;
	*empty = 0;
	return VQ_OK;
}

int vq_qgemm(const struct vq_packed *w, const struct vq_qact *a, const struct vq_agrid *g,
	     const float *bias, int add, float *y, struct vq_err *err)
{
	struct vq_product p = {.w = w, .a = a, .bias = bias, .add = add, .y = y};
	int empty, rc = plan(&p, g, &empty, err);

	return rc < 0 || empty ? rc : vq_kernels_get()->qgemm(&p, err);
}

/* One after the other. */
static int act_apart(const struct vq_packed *w, const struct vq_qact *a, const struct vq_agrid *g,
		     const float *bias, const struct vq_qgemm_act *act, float *y,
		     struct vq_err *err)
{
	size_t n = a->n_rows * (size_t)w->n_out;
	float *gate = act->gate ? vq_alloc_f32(n, err) : NULL;
	int rc = act->gate && !gate ? VQ_E_SYS : VQ_OK;

	if (rc >= 0 && gate)
		rc = vq_qgemm(act->gate, a, g, act->gate_bias, 0, gate, err);
	if (rc >= 0)
		rc = vq_qgemm(w, a, g, bias, 0, y, err);
	if (rc >= 0)
		vq_activate(act->f, gate ? gate : y, gate ? y : NULL, n, y);
	vq_free(gate);
	return rc;
}

static int alike(const struct vq_packed *a, const struct vq_packed *b)
{
	return a->n_in == b->n_in && a->bits == b->bits && a->n_groups == b->n_groups &&
	       whole(a->group, a->n_in) == whole(b->group, b->n_in) && !a->value == !b->value;
}

int vq_qgemm_act(const struct vq_packed *w, const struct vq_qact *a, const struct vq_agrid *g,
		 const float *bias, const struct vq_qgemm_act *act, float *y, struct vq_err *err)
{
	struct vq_product p = {.w = w, .a = a, .bias = bias, .act = act, .y = y};
	int empty, rc;

	if (act->gate && act->gate->n_out != w->n_out)
		return vq_fail(err, VQ_E_DATA, "product: a gate of %u for %u outputs",
			       act->gate->n_out, w->n_out);
	rc = plan(&p, g, &empty, err);
	if (rc < 0)
		return rc;
	/* A step may not straddle segments; empty sums are not worth a word. */
	if (empty || !vq_kernels_get()->fuses_act || (p.n_segs > 1 && p.seg % 4 != 0) ||
	    (act->gate && !alike(w, act->gate)))
		return act_apart(w, a, g, bias, act, y, err);
	return vq_kernels_get()->qgemm(&p, err);
}
