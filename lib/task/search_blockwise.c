/* Block-wise: coordinate descent over the clips of a block by its output error. */
#include <string.h>

#include "quant/qvlm.h"
#include "task/search_sblock.h"

int vq_sblock_set(struct vq_sblock *b, const uint8_t *choice, struct vq_err *err)
{
	uint32_t i;

	for (i = 0; i < b->n_places; i++) {
		int rc = vq_place_build(&b->places[i], choice[2 * i + 1], err);

		if (rc < 0)
			return rc;
		vq_place_set(&b->places[i], choice[2 * i], choice[2 * i + 1]);
	}
	return VQ_OK;
}

static int finish_walk(struct vq_sblock *b, struct vq_walk *w, double *error, struct vq_err *err)
{
	int rc = VQ_OK;

	while (rc == VQ_OK && !vq_walk_done(w)) {
		rc = vq_walk_next(w, err);
		b->cost.n_places++;
	}
	b->cost.n_evals++;
	return rc < 0 ? rc : vq_score_of(&b->score, vq_walk_output(w), error, err);
}

static int restart(struct vq_sblock *b, struct vq_err *err)
{
	vq_walk_end(&b->walk);
	b->at = 0;
	return vq_walk_begin(&b->walk, b->quant, b->first, b->last, b->input, b->acts->width,
			     &b->batch, b->routes, err);
}

static int enter(void *ctx, uint32_t coord, const uint8_t *choice, struct vq_err *err)
{
	struct vq_sblock *b = ctx;
	uint32_t place = coord / 2, v;
	int rc = vq_sblock_set(b, choice, err);

	if (rc == VQ_OK && place < b->at)
		rc = restart(b, err);
	for (; rc == VQ_OK && b->at < place; b->at++) {
		vq_place_keep(&b->places[b->at], choice[2 * b->at + 1]);
		rc = vq_walk_next(&b->walk, err);
		b->cost.n_places++;
	}
	for (v = 0; rc == VQ_OK && coord % 2 == 1 && v < VQ_QVLM_VALUES; v++)
		if (b->places[place].w_usable[v])
			rc = vq_place_build(&b->places[place], v, err);
	return rc;
}

static int eval(void *ctx, uint32_t coord, const uint8_t *choice, double *error, struct vq_err *err)
{
	struct vq_sblock *b = ctx;
	uint32_t place = coord / 2;
	struct vq_walk w = {0};
	int rc;

	vq_place_set(&b->places[place], choice[2 * place], choice[2 * place + 1]);
	rc = vq_walk_fork(&w, &b->walk, err);
	if (rc == VQ_OK)
		rc = finish_walk(b, &w, error, err);
	vq_walk_end(&w);
	return rc;
}

int vq_sblock_error(struct vq_sblock *b, const uint8_t *choice, double *error, struct vq_err *err)
{
	int rc = vq_sblock_set(b, choice, err);

	if (rc == VQ_OK)
		rc = restart(b, err);
	if (rc == VQ_OK)
		rc = finish_walk(b, &b->walk, error, err);
	return rc;
}

int vq_sblock_blockwise(struct vq_sblock *b, struct vq_err *err)
{
	struct vq_descent d = {.n_coords = 2 * b->n_places,
			       .sweeps = b->o->sweeps,
			       .usable = b->usable,
			       .enter = enter,
			       .eval = eval,
			       .ctx = b,
			       .error = b->cost.layerwise};
	int rc;

	if (!(b->cost.layerwise < b->cost.plain)) {
		memset(b->choice, 0, (size_t)2 * b->n_places);
		d.error = b->cost.plain;
	}
	rc = restart(b, err);
	if (rc == VQ_OK)
		rc = vq_qvlm_descend(&d, b->choice, err);
	b->cost.error = d.error;
	return rc;
}
