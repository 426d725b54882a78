/* Cross entropy of the next token, and its gradient. */
#ifndef VQ_MODEL_LOSS_H
#define VQ_MODEL_LOSS_H

#include "model/model.h"

#define VQ_NO_TARGET (-1)

/* What row i of a sequence is asked for: token i + 1.  Rows before a picture's row, and the last, are asked for nothing
 * (VQ_NO_TARGET): pictures are read, not said.  Returns how many are asked. */
uint32_t vq_loss_targets(const struct vq_config *c, const int32_t *tokens, uint32_t n,
			 int32_t *targets);

/* h [n, d]: hidden states after the last layer.  *nll: the sum over rows with a target of -log softmax(logits)[target],
 * natural logarithm.  g [n, d], h itself or NULL: scale times the gradient of that sum to h.  The head in pieces: memory for some
 * hundred rows of logits.  A target out of the vocabulary, a head that is no float: VQ_E_DATA. */
VQ_MUST_CHECK int vq_decoder_loss(const struct vq_model *m, const float *h, uint32_t n,
				  const int32_t *targets, double *nll, float scale, float *g,
				  struct vq_err *err);

#endif
