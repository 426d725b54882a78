/* A walk through the places of a block: it stands before a place, knows its input, and can be forked there, so that
 * what comes before a place is computed once for all the candidates of the place. */
#ifndef VQ_TASK_SEARCH_WALK_H
#define VQ_TASK_SEARCH_WALK_H

#include "model/model.h"

struct vq_walk {
	struct vq_model *m;           /* borrowed; its linears may change between steps */
	const struct vq_batch *batch; /* borrowed */
	uint32_t unit, last;          /* at hand, and of the block */
	int projector;
	uint32_t slot;
	float *h;                /* hidden states [n_rows, hidden]; owned */
	struct vq_layer_run run; /* of a layer */
	float *x;                /* of the projector: [n_rows, width]; owned */
	uint32_t width;
	size_t n_rows;
};

/* Before the first place of units first..last, with h [n_rows, width] (copied) as input. */
VQ_MUST_CHECK int vq_walk_begin(struct vq_walk *w, struct vq_model *m, uint32_t first,
				uint32_t last, const float *h, uint32_t width,
				const struct vq_batch *b, struct vq_err *err);
/* Input of the place at hand. */
const float *vq_walk_input(const struct vq_walk *w);
/* Runs the place and what follows, up to the next place or the end of the block. */
VQ_MUST_CHECK int vq_walk_next(struct vq_walk *w, struct vq_err *err);
int vq_walk_done(const struct vq_walk *w);
/* The block's output, once done: [n_rows, width of the output]. */
const float *vq_walk_output(const struct vq_walk *w);
/* A second walk at the same place. */
VQ_MUST_CHECK int vq_walk_fork(struct vq_walk *to, const struct vq_walk *w, struct vq_err *err);
void vq_walk_end(struct vq_walk *w); /* fine on zeroes */

#endif
