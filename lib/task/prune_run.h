/* Samples through the decoder, block by block. */
#ifndef VQ_TASK_PRUNE_RUN_H
#define VQ_TASK_PRUNE_RUN_H

#include "model/model.h"
#include "task/prune_samples.h"

struct vq_prune_run {
	struct vq_model model; /* weights mapped */
	const struct vq_prune_samples *samples;
	uint32_t rows, width; /* of the hidden states of all samples */
	float *h0;            /* [rows, width] before the first block */
};

/* Every weight is looked through for NaN and infinity; the vision tower and the embedding run.  k and s must outlive r. */
VQ_MUST_CHECK int vq_prune_run_open(struct vq_prune_run *r, const struct vq_config *c,
				    const struct vq_ckpt *k, const struct vq_prune_samples *s,
				    struct vq_err *err);
void vq_prune_run_close(struct vq_prune_run *r); /* fine on zeroes */

/* Block b over n copies of the hidden states of all samples, h [n, rows, width], in place. */
VQ_MUST_CHECK int vq_prune_run_block(const struct vq_prune_run *r, uint32_t b, float *h, uint32_t n,
				     struct vq_err *err);

/* Of hidden states h [rows, width] after the last block: exp of the mean of -log p over every token that the model is
 * asked for (vq_prune_target). */
VQ_MUST_CHECK int vq_prune_run_ppl(const struct vq_prune_run *r, const float *h, double *ppl,
				   struct vq_err *err);

/* The same without one block each: score [alive->n] of the model that has all of alive but the i-th.  state_bytes: what
 * the hidden states of models that run together may take; it changes no score. */
VQ_MUST_CHECK int vq_prune_ppl(const struct vq_prune_run *run, const struct vq_blocks *alive,
			       size_t state_bytes, double *score, struct vq_err *err);

#endif
