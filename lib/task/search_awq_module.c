/* AWQ: the module that a place's scales are judged by. */
#include "task/search_awq_module.h"

#include <string.h>

#include "base/mem.h"
#include "quant/layerwise.h"

/* x / s. */
static void divide(float *x, size_t n_rows, uint32_t n, const float *s)
{
	long long row;

#pragma omp parallel for schedule(static)
	for (row = 0; row < (long long)n_rows; row++) {
		uint32_t i;

		for (i = 0; i < n; i++)
			x[(size_t)row * n + i] /= s[i];
	}
}

/* What a parallel layer adds to its input, from its first stage on. */
static int both_halves(struct vq_walk *w, size_t n, float *y, struct vq_err *err)
{
	int rc = VQ_OK, i;

	memset(w->h, 0, n * sizeof(float));
	for (i = 0; rc == VQ_OK && i < VQ_N_SLOTS; i++)
		rc = vq_layer_next(&w->run, err);
	if (rc == VQ_OK)
		memcpy(y, w->h, n * sizeof(float));
	return rc;
}

/* y: the module's output with the linears of l, its input divided by s unless that is NULL. */
static int output(const struct vq_awq_module *m, const struct vq_layer *l, const float *s, float *y,
		  struct vq_err *err)
{
	struct vq_walk w = {0};
	int rc = vq_walk_fork(&w, m->at, err);
	uint32_t slot = m->p->slot;
	size_t n_rows;
	float *x;

	/* the cast: the fork is this function's */
	x = rc == VQ_OK ? (float *)(uintptr_t)vq_walk_input(&w, &n_rows) : NULL;
	if (rc == VQ_OK && s)
		divide(x, n_rows, m->p->lin[0].full->n_in, s);
	w.run.layer = l;
	if (rc == VQ_OK && m->n > m->p->n) {
		rc = both_halves(&w, m->n_rows * m->width, y, err);
		goto out;
	}
	/* Attention and MLP are all that is between their first linears and their last. */
	if (rc == VQ_OK && (slot == VQ_SLOT_QKV || slot == VQ_SLOT_UP))
		rc = vq_layer_next(&w.run, err);
	if (rc == VQ_OK)
		rc = vq_linear_one(vq_layer_linear((struct vq_layer *)(uintptr_t)l,
						   slot == VQ_SLOT_QKV || slot == VQ_SLOT_O
							   ? VQ_LIN_O
							   : VQ_LIN_DOWN,
						   m->p->expert),
				   vq_walk_input(&w, &n_rows), n_rows, y, err);
out:
	vq_walk_end(&w);
	return rc;
}

int vq_awq_module_loss(void *ctx, const double *s, double *loss, struct vq_err *err)
{
	struct vq_awq_module *m = ctx;
	const struct vq_awq_opts o = {m->p->w, VQ_AWQ_STREAM};
	uint32_t n = m->p->lin[0].full->n_in, k;
	int rc = VQ_OK;

	for (k = 0; k < n; k++)
		m->s[k] = (float)s[k];
	for (k = 0; rc == VQ_OK && k < m->n; k++) {
		const struct vq_linear *l = m->full[k];

		rc = vq_awq_fake(&o,
				 &(struct vq_awq_weight){l->w, l->dtype, l->n_out, n, m->s, NULL},
				 m->w[k], err);
	}
	if (rc == VQ_OK)
		rc = output(m, &m->layer, m->s, m->y, err);
	if (rc == VQ_OK)
		*loss = vq_sum_weighted2(m->y, m->target, m->b->r, m->n_rows, m->width) /
			((double)m->n_rows * m->width);
	return rc;
}

void vq_awq_module_free(struct vq_awq_module *m)
{
	uint32_t k;

	for (k = 0; k < VQ_AWQ_MOST; k++)
		vq_free(m->w[k]);
	vq_free(m->layer.experts);
	vq_free(m->s);
	vq_free(m->target);
	vq_free(m->y);
}

static void collect(struct vq_awq_module *m, const struct vq_layer *l)
{
	enum vq_lin i;

	for (m->n = 0; m->n < m->p->n; m->n++) {
		m->full[m->n] = m->p->lin[m->n].full;
		m->which[m->n] = m->p->lin[m->n].which;
	}
	for (i = VQ_LIN_UP; i <= VQ_LIN_GATE; i++)
		if (l->cfg->parallel && m->p->slot == VQ_SLOT_QKV && l->lin[i].n_out) {
			m->full[m->n] = &l->lin[i];
			m->which[m->n++] = i;
		}
}

int vq_awq_module_new(struct vq_awq_module *m, const struct vq_sblock *b, const struct vq_place *p,
		      const struct vq_walk *at, struct vq_err *err)
{
	const struct vq_layer *l = vq_model_layer(b->full, p->unit);
	size_t n_y, n_own = (size_t)l->n_experts * VQ_EXPERT_LINEARS;
	uint32_t k;

	*m = (struct vq_awq_module){.b = b, .p = p, .at = at, .layer = *l, .width = l->cfg->hidden};
	collect(m, l);
	vq_walk_input(at, &m->n_rows);
	n_y = m->n_rows * m->width;
	m->layer.experts = vq_alloc(n_own, sizeof(*l->experts), err);
	if (!m->layer.experts)
		return VQ_E_SYS;
	if (n_own)
		memcpy(m->layer.experts, l->experts, n_own * sizeof(*l->experts));
	m->s = vq_alloc_f32(p->lin[0].full->n_in, err);
	m->target = m->s ? vq_alloc_f32(n_y, err) : NULL;
	m->y = m->target ? vq_alloc_f32(n_y, err) : NULL;
	for (k = 0; m->y && k < m->n; k++) {
		struct vq_linear *c = vq_layer_linear(&m->layer, m->which[k], p->expert);

		m->w[k] = vq_alloc_f32((size_t)c->n_out * c->n_in, err);
		if (!m->w[k])
			return VQ_E_SYS;
		c->w = m->w[k];
		c->dtype = VQ_F32;
		if (b->o->awq_joint)
			c->act = p->a;
	}
	return m->y ? output(m, l, NULL, m->target, err) : VQ_E_SYS;
}

/* xm, and wm with duo: [n_in] each. */
int vq_awq_module_means(const struct vq_awq_module *m, double *xm, double *wm, struct vq_err *err)
{
	struct vq_awq_weight w[VQ_AWQ_MOST];
	size_t n_rows;
	const float *x = vq_walk_input(m->at, &n_rows);
	uint32_t k;

	vq_awq_input_mean(x, n_rows, m->full[0]->n_in, xm);
	for (k = 0; k < m->n; k++) {
		const struct vq_linear *l = m->full[k];

		w[k] = (struct vq_awq_weight){l->w, l->dtype, l->n_out, l->n_in, NULL, NULL};
	}
	return m->b->o->awq_duo ? vq_awq_weight_mean(&m->p->w, w, m->n, wm, err) : VQ_OK;
}
