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

/* Divides what the module reads in a fork of its walk: of a sparse layer the gathered rows of all experts. */
static void divide_input(const struct vq_awq_module *m, struct vq_walk *w, const float *s)
{
	size_t n_rows;
	/* the cast: the fork is the caller's own */
	float *x = (float *)(uintptr_t)vq_walk_input(w, &n_rows);

	if (m->rest && w->run.route.start) {
		x = w->run.x;
		n_rows = w->run.route.n_rows;
	}
	divide(x, n_rows, m->p->lin[0].full->n_in, s);
}

/* What the rest of a layer adds to its hidden state. */
static int rest_of_layer(struct vq_walk *w, size_t n, float *y, struct vq_err *err)
{
	int rc = VQ_OK;

	memset(w->h, 0, n * sizeof(float));
	while (rc == VQ_OK && w->run.slot < VQ_N_SLOTS)
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
	const float *x;
	size_t n_rows;

	if (rc == VQ_OK && s)
		divide_input(m, &w, s);
	w.run.layer = l;
	if (rc == VQ_OK && m->rest) {
		rc = rest_of_layer(&w, m->n_rows * m->width, y, err);
		goto out;
	}
	/* Attention and MLP are all that is between their first linears and their last. */
	if (rc == VQ_OK && (slot == VQ_SLOT_QKV || slot == VQ_SLOT_UP))
		rc = vq_layer_next(&w.run, err);
	if (rc == VQ_OK) {
		x = vq_walk_input(&w, &n_rows);
		rc = vq_linear_one(vq_layer_linear((struct vq_layer *)(uintptr_t)l,
						   slot == VQ_SLOT_QKV || slot == VQ_SLOT_O
							   ? VQ_LIN_O
							   : VQ_LIN_DOWN,
						   m->p->expert),
				   x, n_rows, y, err);
	}
out:
	vq_walk_end(&w);
	return rc;
}

uint32_t vq_awq_module_places(const struct vq_awq_module *m)
{
	uint32_t slot = m->p->slot;

	if (m->rest)
		return vq_layer_n_places(&m->layer) - slot;
	return slot == VQ_SLOT_QKV || slot == VQ_SLOT_UP ? 2 : 1;
}

/* The router is never rounded. */
static void scale_router(struct vq_awq_module *m)
{
	const float *full = vq_model_layer(m->b->full, m->p->unit)->router;
	size_t d = m->width, i;

	for (i = 0; m->router && i < m->layer.n_experts * d; i++)
		m->router[i] = full[i] * m->s[i % d];
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
		const struct vq_linear *l = m->readers[k].full;

		rc = vq_awq_fake(&o,
				 &(struct vq_awq_weight){l->w, l->dtype, l->n_out, n, m->s, NULL},
				 m->readers[k].w, err);
	}
	scale_router(m);
	if (rc == VQ_OK)
		rc = output(m, &m->layer, m->s, m->y, err);
	if (rc == VQ_OK)
		*loss = vq_sum_weighted2(m->y, m->target, m->r, m->n_rows, m->width) /
			((double)m->n_rows * m->width);
	return rc;
}

void vq_awq_module_free(struct vq_awq_module *m)
{
	uint32_t k;

	for (k = 0; k < m->n; k++)
		vq_free(m->readers[k].w);
	vq_free(m->readers);
	vq_free(m->layer.experts);
	vq_free(m->router);
	vq_free(m->s);
	vq_free(m->target);
	vq_free(m->y);
}

static void add_reader(struct vq_awq_module *m, struct vq_layer *l, enum vq_lin which,
		       uint32_t expert)
{
	m->readers[m->n++] =
		(struct vq_awq_reader){vq_layer_linear(l, which, expert), which, expert, NULL};
}

/* The linears that read what the place does: its own, and where the rest of the layer is judged, up and gate of all. */
static int find_readers(struct vq_awq_module *m, struct vq_layer *l, struct vq_err *err)
{
	uint32_t mlps = l->n_experts ? l->n_experts : 1, i, e, k;

	m->readers = vq_calloc(3 + 2 * (size_t)mlps, sizeof(*m->readers), err);
	if (!m->readers)
		return VQ_E_SYS;
	for (i = 0; i < m->p->n && !(m->rest && m->p->slot == VQ_SLOT_UP); i++)
		add_reader(m, l, m->p->lin[i].which, m->p->expert);
	for (e = 0; m->rest && e < mlps; e++)
		for (k = VQ_LIN_UP; k <= VQ_LIN_GATE; k++)
			if (vq_layer_linear(l, (enum vq_lin)k, e)->n_out)
				add_reader(m, l, (enum vq_lin)k, e);
	return VQ_OK;
}

/* The candidate's own copies of what the scales change. */
static int candidate_new(struct vq_awq_module *m, const struct vq_layer *l, struct vq_err *err)
{
	size_t n_own = (size_t)l->n_experts * VQ_EXPERT_LINEARS;
	uint32_t k;

	m->layer = *l;
	m->layer.experts = vq_alloc(n_own, sizeof(*l->experts), err);
	if (!m->layer.experts)
		return VQ_E_SYS;
	if (n_own)
		memcpy(m->layer.experts, l->experts, n_own * sizeof(*l->experts));
	for (k = 0; k < m->n; k++) {
		struct vq_awq_reader *r = &m->readers[k];
		struct vq_linear *c = vq_layer_linear(&m->layer, r->which, r->expert);

		r->w = vq_alloc_f32((size_t)c->n_out * c->n_in, err);
		if (!r->w)
			return VQ_E_SYS;
		c->w = r->w;
		c->dtype = VQ_F32;
		if (m->b->o->awq_joint)
			c->act = m->p->a;
	}
	if (m->rest && l->n_experts) {
		m->router = vq_alloc_f32((size_t)l->n_experts * m->width, err);
		m->layer.router = m->router;
	}
	return m->rest && l->n_experts && !m->router ? VQ_E_SYS : VQ_OK;
}

int vq_awq_module_new(struct vq_awq_module *m, const struct vq_sblock *b, const struct vq_place *p,
		      const struct vq_walk *at, struct vq_err *err)
{
	struct vq_layer *l = vq_model_layer(b->full, p->unit);
	int shared = p->slot == VQ_SLOT_UP && l->n_experts, rc;
	size_t n_y;

	*m = (struct vq_awq_module){.b = b, .p = p, .at = at, .width = l->cfg->hidden};
	m->rest = shared || (p->slot == VQ_SLOT_QKV && l->cfg->parallel);
	m->x = vq_walk_input(at, &m->n_rows);
	m->r = b->r;
	if (shared) { /* rows as they are before they are gathered */
		m->x = at->run.wide;
		m->n_rows = at->run.n_rows;
		m->r = b->tokens.r;
	}
	rc = find_readers(m, l, err);
	if (rc == VQ_OK)
		rc = candidate_new(m, l, err);
	if (rc < 0)
		return rc;
	n_y = m->n_rows * m->width;
	m->s = vq_alloc_f32(p->lin[0].full->n_in, err);
	m->target = m->s ? vq_alloc_f32(n_y, err) : NULL;
	m->y = m->target ? vq_alloc_f32(n_y, err) : NULL;
	return m->y ? output(m, l, NULL, m->target, err) : VQ_E_SYS;
}

int vq_awq_module_means(const struct vq_awq_module *m, double *xm, double *wm, struct vq_err *err)
{
	struct vq_awq_weight *w;
	uint32_t k;
	int rc;

	vq_awq_input_mean(m->x, m->n_rows, m->p->lin[0].full->n_in, xm);
	if (!m->b->o->awq_duo)
		return VQ_OK;
	w = vq_alloc(m->n, sizeof(*w), err);
	if (!w)
		return VQ_E_SYS;
	for (k = 0; k < m->n; k++) {
		const struct vq_linear *l = m->readers[k].full;

		w[k] = (struct vq_awq_weight){l->w, l->dtype, l->n_out, l->n_in, NULL, NULL};
	}
	rc = vq_awq_weight_mean(&m->p->w, w, m->n, wm, err);
	vq_free(w);
	return rc;
}
