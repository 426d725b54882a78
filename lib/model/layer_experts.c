/* The last two slots of a sparse layer: rows gathered by expert, and their sums put back. */
#include <string.h>

#include "base/mem.h"
#include "kernel/share.h"
#include "model/layer_stage.h"

#define FEW_ROWS 16 /* one thread adds them */

static struct vq_router router_of(const struct vq_layer *l)
{
	return (struct vq_router){l->gating, l->router, l->n_experts, l->cfg->hidden, l->index};
}

int vq_layer_gather(struct vq_layer_run *r, const struct vq_choice *choice, const uint8_t *whole,
		    struct vq_err *err)
{
	const struct vq_router router = router_of(r->layer);
	uint32_t d = r->layer->cfg->hidden, i;
	struct vq_route route;
	float *x;
	int rc;

	if (choice) {
		if (choice != r->choice)
			memcpy(r->choice, choice, r->n_rows * sizeof(*choice));
		vq_route_gates(&router, r->wide, r->n_rows, r->choice);
	}
	rc = vq_route_gather(&route, r->choice, r->n_rows, r->layer->n_experts, whole, err);
	if (rc < 0)
		return rc;
	x = vq_layer_rows(route.n_rows, d, err);
	if (!x) {
		vq_route_free(&route);
		return VQ_E_SYS;
	}
	memset(x, 0, (size_t)route.n_rows * d * sizeof(float)); /* of the rows that fill up */
	for (i = 0; i < route.n_experts; i++) {
		uint32_t k = route.start[i], end = k + route.n[i];

		for (; k < end; k++)
			memcpy(x + (size_t)k * d, r->wide + (size_t)route.row[k] * d,
			       d * sizeof(float));
	}
	vq_route_free(&r->route);
	r->route = route;
	vq_layer_set_x(r, x, d);
	return VQ_OK;
}

int vq_layer_route(struct vq_layer_run *r, float *x, struct vq_err *err)
{
	const struct vq_router router = router_of(r->layer);
	struct vq_queries at = {0};
	int rc = VQ_E_SYS;
	uint32_t k;
	size_t i;

	r->wide = x;
	r->expert = 0;
	if (!r->layer->router)
		return vq_fail(err, VQ_E_DATA, "a layer with experts has no router");
	r->choice = vq_alloc(r->n_rows, sizeof(*r->choice), err);
	if (r->choice)
		rc = vq_layer_queries(&at, r, err);
	if (rc >= 0)
		rc = vq_route(&router, x, r->n_rows, at.batch.n_seqs, at.start, at.past, r->choice,
			      err);
	vq_free(at.start);
	for (i = 0; rc >= 0 && r->layer->counts && i < r->n_rows; i++)
		for (k = 0; k < VQ_TOP_K; k++)
			if (r->choice[i].expert[k] != VQ_NO_EXPERT)
				r->layer->counts[r->choice[i].expert[k]]++;
	return rc < 0 ? rc : vq_layer_gather(r, NULL, NULL, err);
}

/* Row start[e] of an array that has the rows of the route. */
static float *part(const struct vq_layer_run *r, float *x, uint32_t width)
{
	return x + (size_t)r->route.start[r->expert] * width;
}

static int up(struct vq_layer_run *r, struct vq_err *err)
{
	const struct vq_layer_config *c = r->layer->cfg;
	const struct vq_linear *l = r->layer->experts + (size_t)r->expert * VQ_EXPERT_LINEARS;
	size_t n = r->route.run[r->expert];

	if (!r->mid)
		r->mid = vq_layer_rows(r->route.n_rows, c->inter, err);
	if (!r->mid)
		return VQ_E_SYS;
	return vq_linear_act(&l[0], c->gated ? &l[VQ_LIN_GATE - VQ_LIN_UP] : NULL, c->act,
			     part(r, r->x, c->hidden), n, part(r, r->mid, c->inter), err);
}

struct adding {
	const struct vq_layer_run *r;
	const float *y; /* [n, hidden] */
};

static void add_rows(void *ctx, size_t first, size_t end)
{
	const struct adding *a = ctx;
	const struct vq_route *route = &a->r->route;
	uint32_t d = a->r->layer->cfg->hidden, j;
	size_t i;

	for (i = first; i < end; i++) {
		size_t at = route->start[a->r->expert] + i;
		float *h = a->r->h + (size_t)route->row[at] * d, gate = route->gate[at];

		for (j = 0; j < d; j++)
			h[j] += gate * a->y[i * d + j];
	}
}

/* h += gate * down(x).  A row's experts are added in the order of their numbers. */
static int down(struct vq_layer_run *r, struct vq_err *err)
{
	const struct vq_layer_config *c = r->layer->cfg;
	uint32_t e = r->expert;
	float *y = vq_layer_rows(r->route.run[e], c->hidden, err);
	struct adding a = {r, y};
	int rc = VQ_E_SYS;

	if (y)
		rc = vq_linear_one(
			&r->layer->experts[(size_t)e * VQ_EXPERT_LINEARS + VQ_LIN_DOWN - VQ_LIN_UP],
			part(r, r->x, c->inter), r->route.run[e], y, err);
	if (rc >= 0)
		vq_share(r->route.n[e], r->route.n[e] <= FEW_ROWS, add_rows, &a);
	vq_free(y);
	return rc;
}

int vq_layer_next_expert(struct vq_layer_run *r, struct vq_err *err)
{
	int rc = r->slot == VQ_SLOT_UP ? up(r, err) : down(r, err);

	if (rc < 0 || ++r->expert < r->layer->n_experts)
		return rc;
	r->expert = 0;
	if (r->slot++ == VQ_SLOT_UP) {
		vq_layer_set_x(r, r->mid, r->layer->cfg->inter);
		r->mid = NULL;
		vq_free(r->wide);
		r->wide = NULL;
	}
	return VQ_OK;
}
