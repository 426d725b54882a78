/* Cross entropy of the next token, and its gradient. */
#ifndef VQ_MODEL_LOSS_H
#define VQ_MODEL_LOSS_H

#include "model/model.h"

#define VQ_NO_TARGET (-1) /* nothing is asked of the row */

/* What rows are measured by. */
struct vq_loss {
	const int32_t *targets; /* [n] the token that row i is asked for, or VQ_NO_TARGET */
	/* [n, d], or NULL: hidden states of another model with the same norm and head, which rows with a target (any) are
	 * to be like: the loss of a row is then sum_v p_v log(p_v / softmax(logits)_v) with p of the other (Hinton et al.,
	 * arXiv 1503.02531, at temperature 1). */
	const float *teacher;
};

/* h [n, d]: hidden states after the last layer.  *nll: the sum over rows with a target of -log softmax(logits)[target],
 * or what the teacher says; natural logarithm.  g [n, d], h itself or NULL: scale times the gradient of that sum to h.  The head in pieces: memory for some
 * hundred rows of logits.  A target out of the vocabulary, a head that is no float: VQ_E_DATA. */
VQ_MUST_CHECK int vq_decoder_loss(const struct vq_model *m, const float *h, uint32_t n,
				  const struct vq_loss *loss, double *nll, float scale, float *g,
				  struct vq_err *err);

#endif
