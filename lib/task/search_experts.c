/* The experts of sparse layers while their block is searched. */
#include <math.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "task/search_sblock.h"

/* What the rows of a walk that has come to a layer's experts chose. */
static int take_route(struct vq_walk_route *r, const struct vq_walk *w, uint32_t layer,
		      struct vq_err *err)
{
	const struct vq_layer_run *run = &w->run;
	uint32_t e;

	r->choice = vq_alloc(run->n_rows, sizeof(*r->choice), err);
	if (!r->choice)
		return VQ_E_SYS;
	memcpy(r->choice, run->choice, run->n_rows * sizeof(*r->choice));
	for (e = 0; e < run->route.n_experts; e++) {
		uint32_t n = run->route.n[e];

		r->whole[e] = n < VQ_STARVED && n < run->n_rows;
		if (r->whole[e])
			vq_warn("decoder layer %u: expert %u got %u of %zu calibration rows, fewer "
				"than %u: it is searched with all of them; more samples "
				"(vqlm-calib -n) or --rows give it its own",
				layer, e, n, run->n_rows, VQ_STARVED);
	}
	return VQ_OK;
}

int vq_sblock_next_full(struct vq_sblock *b, struct vq_walk *full, struct vq_err *err)
{
	struct vq_walk_route *r = &b->routes[full->unit - b->first];
	const struct vq_layer_run *run = &full->run;
	int rc = vq_walk_next(full, err);

	if (rc < 0 || full->projector || !run->route.start || run->slot != VQ_SLOT_UP ||
	    run->expert || r->choice)
		return rc;
	b->cost.n_routed += run->n_rows;
	rc = take_route(r, full, run->layer->index, err);
	return rc < 0 ? rc : vq_layer_gather(&full->run, r->choice, r->whole, err);
}

int vq_sblock_rows(struct vq_sblock *b, const struct vq_walk *at, struct vq_err *err)
{
	const struct vq_route *route = &at->run.route;
	size_t n, i;

	b->r = b->tokens.r;
	if (!b->r || at->projector || !route->start || at->run.slot < VQ_SLOT_UP)
		return VQ_OK;
	n = route->n[at->run.expert];
	vq_free(b->r_part);
	b->r_part = vq_alloc_f32(n, err);
	if (!b->r_part)
		return VQ_E_SYS;
	for (i = 0; i < n; i++)
		b->r_part[i] = b->tokens.r[route->row[route->start[at->run.expert] + i]];
	b->r = b->r_part;
	return VQ_OK;
}
