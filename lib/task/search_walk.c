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
		  const float *h, uint32_t width, const struct vq_batch *b, struct vq_err *err)
{
	*w = (struct vq_walk){.m = m, .batch = b, .unit = first, .last = last, .width = width};
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

const float *vq_walk_input(const struct vq_walk *w)
{
	return w->projector ? w->x : w->run.x;
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
		vq_projector_activate(c, y, n);
	else
		w->unit++;
	return VQ_OK;
}

int vq_walk_next(struct vq_walk *w, struct vq_err *err)
{
	int rc;

	if (w->projector)
		return next_projector(w, err);
	rc = vq_layer_next(&w->run, err);
	if (rc < 0)
		return rc;
	w->slot++;
	if (w->slot < VQ_N_SLOTS)
		return VQ_OK;
	vq_layer_end(&w->run);
	w->slot = 0;
	if (++w->unit > w->last)
		return VQ_OK;
	return vq_layer_begin(&w->run, vq_model_layer(w->m, w->unit), w->h, w->batch, NULL, err);
}

/* A layer's run between two stages is its h, its x, what a parallel one keeps, and the slot: nothing else has to be
 * copied. */
int vq_walk_fork(struct vq_walk *to, const struct vq_walk *w, struct vq_err *err)
{
	*to = *w;
	to->h = NULL;
	to->x = NULL;
	to->run.x = NULL;
	to->run.kept = NULL;
	if (w->projector) {
		to->x = copy(w->x, w->n_rows, w->width, err);
		return to->x ? VQ_OK : VQ_E_SYS;
	}
	to->h = copy(w->h, w->n_rows, w->width, err);
	to->run.h = to->h;
	if (to->h && w->run.x)
		to->run.x = copy(w->run.x, w->n_rows, w->run.x_width, err);
	if (to->h && w->run.kept)
		to->run.kept = copy(w->run.kept, w->n_rows, w->run.layer->cfg->hidden, err);
	return to->h && (to->run.x || !w->run.x) && (to->run.kept || !w->run.kept) ? VQ_OK
										   : VQ_E_SYS;
}

void vq_walk_end(struct vq_walk *w)
{
	if (!w->projector)
		vq_layer_end(&w->run);
	vq_free(w->h);
	vq_free(w->x);
	memset(w, 0, sizeof(*w));
}
