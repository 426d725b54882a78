/* A walk through the places of a block: it stands before a place, knows its input, and can be forked there, so that
 * what comes before a place is computed once for all the candidates of the place. */
#ifndef VQ_TASK_SEARCH_WALK_H
#define VQ_TASK_SEARCH_WALK_H

#include "model/model.h"

/* Which rows the experts of a sparse layer get in the walks of a search: those that full precision sends to them,
 * whatever the quantized stream would choose, so that both streams have the same rows at a place and errors do not jump
 * where a choice flips.  Gates are those of the walk's own stream. */
struct vq_walk_route {
	struct vq_choice *
		choice; /* [n_rows] owned; NULL: none yet, rows go where the walk's own router says */
	uint8_t whole
		[VQ_LIMIT_EXPERTS]; /* 1: starved, gets every row (with gate 0, see vq_route_gather) */
};

struct vq_walk {
	struct vq_model *m;                 /* borrowed; its linears may change between steps */
	const struct vq_batch *batch;       /* borrowed */
	const struct vq_walk_route *routes; /* [units of the block] borrowed, or NULL */
	uint32_t first, unit, last;         /* of the block, at hand, of the block */
	int projector;
	uint32_t slot;           /* of the projector */
	float *h;                /* hidden states [n_rows, hidden]; owned */
	struct vq_layer_run run; /* of a layer */
	float *x;                /* of the projector: [n_rows, width]; owned */
	uint32_t width;
	size_t n_rows;
	uint64_t
		n_rerouted; /* rows that the walk's own router would have sent elsewhere than its routes did */
};

/* Before the first place of units first..last, with h [n_rows, width] (copied) as input. */
VQ_MUST_CHECK int vq_walk_begin(struct vq_walk *w, struct vq_model *m, uint32_t first,
				uint32_t last, const float *h, uint32_t width,
				const struct vq_batch *b, const struct vq_walk_route *routes,
				struct vq_err *err);
/* Input of the place at hand, and its rows: of an expert, those that it gets. */
const float *vq_walk_input(const struct vq_walk *w, size_t *n_rows);
/* Runs the place and what follows, up to the next place or the end of the block. */
VQ_MUST_CHECK int vq_walk_next(struct vq_walk *w, struct vq_err *err);
int vq_walk_done(const struct vq_walk *w);
/* The block's output, once done: [n_rows, width of the output]. */
const float *vq_walk_output(const struct vq_walk *w);
/* A second walk at the same place. */
VQ_MUST_CHECK int vq_walk_fork(struct vq_walk *to, const struct vq_walk *w, struct vq_err *err);
void vq_walk_end(struct vq_walk *w); /* fine on zeroes */

#endif
