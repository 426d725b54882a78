/* How much a picture's token counts beside text's, by gradients: MBQ's weight (CVPR 2025), per decoder layer
 *
 *   ratio = mean |g| over the rows of pictures / mean |g| over the other rows,   lambda = max(ratio, median of ratios)
 *
 * with g the sign vectors at the final hidden state pulled back to the layer's output (task/calib_probe.h); MBQ takes
 * the gradient of the loss there.  The last layer's rows are reached at the last token only: its ratio is 0, and the
 * median stands in. */
#ifndef VQ_TASK_CALIB_VISION_WEIGHT_H
#define VQ_TASK_CALIB_VISION_WEIGHT_H

#include "model/config.h"
#include "model/prompt.h"
#include "stream/writer.h"

struct vq_calib_vision_weight {
	const struct vq_config *cfg;
	double *sum;   /* [decoder layers, 2] of |g|: text, pictures */
	uint64_t n[2]; /* rows of the samples that came */
};

VQ_MUST_CHECK int vq_calib_vision_weight_new(struct vq_calib_vision_weight *v,
					     const struct vq_config *c, struct vq_err *err);
void vq_calib_vision_weight_free(struct vq_calib_vision_weight *v); /* fine on zeroes */

/* g [k, tokens, d] at the output of a decoder layer; every layer gets every sample once. */
void vq_calib_vision_weight_add(struct vq_calib_vision_weight *v, uint32_t layer,
				const struct vq_prompt *p, const float *g, uint32_t k);

/* STAT stat/vision_weight, f32 [n_units]: lambda of decoder layers, 1 elsewhere.  Nothing without rows of either kind,
 * or where no gradient reaches the text. */
VQ_MUST_CHECK int vq_calib_vision_weight_write(const struct vq_calib_vision_weight *v,
					       struct vq_writer *w, struct vq_err *err);

#endif
