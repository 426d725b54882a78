/* AWQ in one planned block: scales of all places by the full-precision stream, then clips and codes.
 *
 * Losses are of the inspected module, which is run as it is, with the place's linears rounded and its input divided:
 *   qkv: attention and o     o: o     up, gate: the MLP     down: down
 * all others in full precision and unscaled.  "Joint": the input of the place is quantized too (MBQ, CVPR 2025, the
 * search for weights and activations).  Clips are searched by what is divided, never quantized. */
#ifndef VQ_TASK_SEARCH_AWQ_H
#define VQ_TASK_SEARCH_AWQ_H

#include "quant/awq.h"
#include "task/search_block.h"
#include "task/search_fold.h"

/* What was chosen at a place. */
struct vq_awq_place {
	struct vq_awq_choice scale; /* of a place that has scales */
	double clip; /* mean of the bounds over max|w|, of the linears that are clipped */
};

/* Fills b->awq and b->folds, by the input of the block in full precision, and gives the quantized model the norms,
 * biases and routers that scales change. */
VQ_MUST_CHECK int vq_sblock_awq_scales(struct vq_sblock *b, const float *full_in,
				       struct vq_err *err);

/* Codes of place i; xf [n_rows, n_in] is its input in full precision. */
VQ_MUST_CHECK int vq_sblock_awq_codes(struct vq_sblock *b, uint32_t i, const float *xf,
				      size_t n_rows, struct vq_err *err);

/* What finished records of an interrupted run hold beside weights, into the quantized model. */
VQ_MUST_CHECK int vq_sblock_awq_adopt(struct vq_sblock *b, const struct vq_held_list *done,
				      struct vq_err *err);

/* 1 when scales are chosen at the place. */
int vq_sblock_awq_scaled(const struct vq_sblock *b, const struct vq_place *p);

/* task/search_awq_said.c: what was chosen. */
json_t *vq_sblock_awq_stat(const struct vq_sblock *b); /* given; NULL: no memory */
void vq_sblock_awq_say(const struct vq_sblock *b);
void vq_sblock_awq_free(struct vq_sblock *b);

#endif
