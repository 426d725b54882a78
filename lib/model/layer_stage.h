/* What the files of a layer's stages share: layer.c, layer_experts.c, layer_fork.c. */
#ifndef VQ_MODEL_LAYER_STAGE_H
#define VQ_MODEL_LAYER_STAGE_H

#include "model/layer.h"

/* [n_rows, width] */
float *vq_layer_rows(size_t n_rows, uint32_t width, struct vq_err *err);
/* x is taken over. */
void vq_layer_set_x(struct vq_layer_run *r, float *x, uint32_t width);

/* Position of a sequence's first row. */
uint32_t vq_layer_past(const struct vq_layer_run *r, uint32_t s);

/* The rows that ask: all, or the last of each sequence.  start is to be freed. */
struct vq_queries {
	struct vq_batch batch;
	uint32_t *start, *past; /* [n_seqs + 1], [n_seqs] position of the first */
};
VQ_MUST_CHECK int vq_layer_queries(struct vq_queries *q, const struct vq_layer_run *r,
				   struct vq_err *err);

/* Of a sparse layer: to SLOT_UP with x = norm2(h), taken over; and the places of the last two slots. */
VQ_MUST_CHECK int vq_layer_route(struct vq_layer_run *r, float *x, struct vq_err *err);
VQ_MUST_CHECK int vq_layer_next_expert(struct vq_layer_run *r, struct vq_err *err);

#endif
