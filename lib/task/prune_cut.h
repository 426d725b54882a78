/* A model without some of its decoder's blocks, in memory. */
#ifndef VQ_TASK_PRUNE_CUT_H
#define VQ_TASK_PRUNE_CUT_H

#include "model/model.h"
#include "task/prune.h"

/* *out is m with the decoder's blocks kept->v alone: weights are m's, which must outlive it; the blocks and their experts are *out's
 * own copies and may be given other weights. */
VQ_MUST_CHECK int vq_prune_cut(struct vq_model *out, const struct vq_model *m,
			       const struct vq_blocks *kept, struct vq_err *err);
void vq_prune_cut_free(struct vq_model *m); /* fine on zeroes; not vq_model_free */

#endif
