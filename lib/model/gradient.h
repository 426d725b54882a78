/* Gradients of the decoder's weights: of a weighted sum of the losses of sequences (model/loss.h), block after block.
 *
 * The way forward keeps the hidden states at the blocks' inputs; the way back computes what is inside a block once more
 * and hands on, for one block at a time, what its gradients are made of.  Nothing of the size of the model is held.
 * Checked against central differences in tests/unit/test_gradient.c and against PyTorch in tests/e2e/taylor.py. */
#ifndef VQ_MODEL_GRADIENT_H
#define VQ_MODEL_GRADIENT_H

#include "model/adjoint.h"
#include "model/loss.h"

struct vq_gradient {
	const struct vq_model *m;
	const struct vq_batch *b;
	struct vq_loss loss; /* [rows] */
	const float *weight; /* [n_seqs] of a sequence's summed loss */
	void *ctx;
	/* Before a block runs, forward and back: l is a copy of the model's layer and may be given other weights, which
	 * stay until the next call.  NULL: none. */
	int (*enter)(void *ctx, uint32_t layer, struct vq_layer *l, struct vq_err *err);
	/* On the way back, from the last block to the first: sequence by sequence, as in vq_layer_sink ... */
	struct vq_layer_sink sink;
	/* ... and after a block's last sequence.  NULL: nothing. */
	int (*leave)(void *ctx, uint32_t layer, struct vq_err *err);
};

/* h [rows, d]: what enters the decoder; afterwards the gradient to it.  nll [n_seqs]: summed losses, not weighted.
 * Memory: rows * d * (layers + 1) floats beside that of vq_layer_adjoint for the longest sequence. */
VQ_MUST_CHECK int vq_decoder_gradient(const struct vq_gradient *q, float *h, double *nll,
				      struct vq_err *err);

/* The same without a way back: the losses alone.  h is lost. */
VQ_MUST_CHECK int vq_decoder_losses(const struct vq_gradient *q, float *h, double *nll,
				    struct vq_err *err);

#endif
