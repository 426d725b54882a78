/* Low-rank adapters of the decoder's linears (LoRA, Hu et al., arXiv 2106.09685):
 *
 *   W' = W + (alpha / rank) B A,   A [rank, n_in],  B [n_out, rank]
 *
 * A begins uniform in +-1/sqrt(n_in), B as 0, so training begins with the model as it is.  A block's W' is made when the
 * block runs: products with it are those of a plain linear, and the gradients of A and B follow from a linear's input x
 * and the gradient g of its output without that of W:
 *
 *   dB = (alpha / rank) g^T (x A^T)      dA = (alpha / rank) (g B)^T x
 *
 * Training is AdamW (Loshchilov and Hutter, arXiv 1711.05101). */
#ifndef VQ_MODEL_LORA_H
#define VQ_MODEL_LORA_H

#include "model/layer.h"

struct vq_lora {
	const struct vq_layer *layers; /* borrowed */
	uint32_t n_layers, rank;
	float scale; /* alpha / rank */
	size_t n;    /* numbers in all adapters: each layer's linears by number, A before B */
	float *value, *grad;      /* [n] */
	float *moment1, *moment2; /* [n] of the gradients: mean, mean square */
};

/* Every linear of layers [n_layers], which lora borrows for good, gets adapters, those of experts too; routers none. */
VQ_MUST_CHECK int vq_lora_new(struct vq_lora *a, const struct vq_layer *layers, uint32_t n_layers,
			      uint32_t rank, float alpha, uint64_t seed, struct vq_err *err);
void vq_lora_free(struct vq_lora *a); /* fine on zeroes */

/* The adapters of linear `number` of a layer (vq_layer_linear_at): a [rank, n_in] and b [n_out, rank], inside value. */
struct vq_adapter {
	float *a, *b;
};
struct vq_adapter vq_lora_at(const struct vq_lora *l, uint32_t layer, uint32_t number);

/* out [n_out, n_in] = W'. */
VQ_MUST_CHECK int vq_lora_merge(const struct vq_lora *l, uint32_t layer, uint32_t number,
				float *out, struct vq_err *err);

/* Adds to the gradients what n rows bring: x [n, n_in], g [n, n_out]. */
VQ_MUST_CHECK int vq_lora_grad(struct vq_lora *l, uint32_t layer, uint32_t number, const float *x,
			       const float *g, uint32_t n, struct vq_err *err);

/* Step t = 1, 2, ... of AdamW (betas 0.9 and 0.999, eps 1e-8, decay 0.01) with the gradients, which become 0. */
void vq_lora_step(struct vq_lora *l, uint32_t t, double rate);

#endif
