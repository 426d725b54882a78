/* A walk through the places of a block. */
#include "task/search_walk.h"

#include <string.h>

#include "base/mem.h"

static float *copy(const float *src, size_t n_rows, size_t width, struct vq_err *err)
{
	size_t n;
	float *p;

	if (vq_mul_size(&n, n_rows, width) < 0) {
		vq_fail(err, VQ_E_SYS, "memory: %zu rows of %zu numbers", n_rows, width);
		return NULL;
	}
	p = vq_alloc_f32(n, err);
	if (p)
		memcpy(p, src, n * sizeof(float));
	return p;
}

int vq_walk_begin(struct vq_walk *w, struct vq_model *m, uint32_t first, uint32_t last,
		  const float *h, uint32_t width, const struct vq_batch *b,
		  const struct vq_walk_route *routes, struct vq_err *err)
{
	*w = (struct vq_walk){.m = m,
			      .batch = b,
			      .routes = routes,
			      .first = first,
			      .unit = first,
			      .last = last,
			      .width = width};
	w->n_rows = b->start[b->n_seqs];
	w->projector = m->cfg.has_vision && first == vq_config_projector_unit(&m->cfg);
	if (w->projector) {
		w->x = copy(h, w->n_rows, width, err);
		return w->x ? VQ_OK : VQ_E_SYS;
	}
	w->h = copy(h, w->n_rows, width, err);
	if (!w->h)
		return VQ_E_SYS;
	return vq_layer_begin(&w->run, vq_model_layer(m, first), w->h, b, NULL, err);
}

const float *vq_walk_input(const struct vq_walk *w, size_t *n_rows)
{
	*n_rows = w->n_rows;
	return w->projector ? w->x : vq_layer_input(&w->run, n_rows);
}

int vq_walk_done(const struct vq_walk *w)
{
	return w->unit > w->last;
}

const float *vq_walk_output(const struct vq_walk *w)
{
	return w->projector ? w->x : w->h;
}

static int next_projector(struct vq_walk *w, struct vq_err *err)
{
	const struct vq_config *c = &w->m->cfg;
	const struct vq_linear *l = &w->m->projector.fc[w->slot];
	size_t n;
	float *y;
	int rc;

	if (vq_mul_size(&n, w->n_rows, l->n_out) < 0)
		return vq_fail(err, VQ_E_SYS, "memory: %zu rows of %u", w->n_rows, l->n_out);
	y = vq_alloc_f32(n, err);
	if (!y)
		return VQ_E_SYS;
	rc = vq_linear_one(l, w->x, w->n_rows, y, err);
	if (rc < 0) {
		vq_free(y);
		return rc;
	}
	vq_free(w->x);
	w->x = y;
	w->width = l->n_out;
	if (++w->slot < c->projector.n_linears)
		vq_activate(c->projector.act, y, NULL, n, y);
	else
		w->unit++;
	return VQ_OK;
}

/* Rows whose experts are not those of c, in whatever order. */
static size_t rerouted(const struct vq_layer_run *r, const struct vq_choice *c)
{
	size_t n = 0, i;

	for (i = 0; i < r->n_rows; i++) {
		const uint8_t *a = r->choice[i].expert, *b = c[i].expert;

		n += !((a[0] == b[0] && a[1] == b[1]) || (a[0] == b[1] && a[1] == b[0]));
	}
	return n;
}

int vq_walk_next(struct vq_walk *w, struct vq_err *err)
{
	int rc;

	if (w->projector)
		return next_projector(w, err);
	rc = vq_layer_next(&w->run, err);
	if (rc < 0)
		return rc;
	if (w->run.route.start && w->run.slot == VQ_SLOT_UP && w->run.expert == 0 && w->routes) {
		const struct vq_walk_route *r = &w->routes[w->unit - w->first];

		w->n_rerouted += r->choice ? rerouted(&w->run, r->choice) : 0;
		return r->choice ? vq_layer_gather(&w->run, r->choice, r->whole, err) : VQ_OK;
	}
	if (w->run.slot < VQ_N_SLOTS)
		return VQ_OK;
	vq_layer_end(&w->run);
	if (++w->unit > w->last)
		return VQ_OK;
	return vq_layer_begin(&w->run, vq_model_layer(w->m, w->unit), w->h, w->batch, NULL, err);
}

int vq_walk_fork(struct vq_walk *to, const struct vq_walk *w, struct vq_err *err)
{
	*to = *w;
	to->h = NULL;
	to->x = NULL;
	to->run = (struct vq_layer_run){0};
	if (w->projector) {
		to->x = copy(w->x, w->n_rows, w->width, err);
		return to->x ? VQ_OK : VQ_E_SYS;
	}
	to->h = copy(w->h, w->n_rows, w->width, err);
	return to->h ? vq_layer_fork(&to->run, &w->run, to->h, err) : VQ_E_SYS;
}

void vq_walk_end(struct vq_walk *w)
{
	if (!w->projector)
		vq_layer_end(&w->run);
	vq_free(w->h);
	vq_free(w->x);
	memset(w, 0, sizeof(*w));
}
