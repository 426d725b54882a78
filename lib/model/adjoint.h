/* Adjoints (vector-Jacobian products): what a change of a layer's input does to a given functional of its
 * output.  For calibration only: one sequence at a time, full precision, the layer's input recomputed
 * forward, nothing stored but the input.  g is a stack of k cotangents; each is pulled back independently:
 *
 *     g_in = J(h)^T g_out,   J = d output / d input at h
 *
 * In a sparse layer the choice of experts is a constant, and the gates are differentiated: exact but where a row is at
 * the border between two choices.
 *
 * Checked against central differences in tests/unit/test_adjoint.c. */
#ifndef VQ_MODEL_ADJOINT_H
#define VQ_MODEL_ADJOINT_H

#include "model/model.h"

/* Takes what the gradients of a layer's weights are made of, on the way back of one cotangent (k = 1): for
 * y = x W^T + b the gradient of W is g^T x, that of b the sum of g's rows.  x [n, n_in], g [n, n_out], borrowed; one
 * call a linear.  expert: 0 but for the linears of a sparse layer's MLPs, which get the rows that the expert had, and no
 * call without rows; routers get none.  norm (or NULL): in [n, hidden], the input of norm1 or (second) norm2, and g of its output. */
struct vq_layer_sink {
	int (*linear)(void *ctx, enum vq_lin lin, uint32_t expert, const float *x, const float *g,
		      uint32_t n, struct vq_err *err);
	int (*norm)(void *ctx, int second, const float *in, const float *g, uint32_t n,
		    struct vq_err *err);
	void *ctx;
};

/* h [n, hidden]: input of the layer, positions 0..n-1.  g [k, n, hidden]: of the output, becomes of the input.
 * Weights must be floating point and inputs not quantized.  Memory about
 * n * (4 inter + 8 hidden) + min(k * n, 2048) * 3 inter + threads * 256 n floats; a sink (or NULL,
 * and k is then any) takes n * (inter + 2 hidden) more.  In a sparse layer, top_k times the inter, and n * top_k * 2 hidden. */
VQ_MUST_CHECK int vq_layer_adjoint(const struct vq_layer *l, const float *h, uint32_t n, float *g,
				   uint32_t k, const struct vq_layer_sink *sink,
				   struct vq_err *err);

/* features [n, C]; g [k, n, d] -> out [k, n, C]. */
VQ_MUST_CHECK int vq_projector_adjoint(const struct vq_config *c, const struct vq_projector *p,
				       const float *features, uint32_t n, const float *g,
				       uint32_t k, float *out, struct vq_err *err);

/* Norms, one row [n]: g becomes of the input x. b plays no part. */
void vq_norm_adjoint(enum vq_norm kind, float eps, uint32_t n, const float *x, const float *w,
		     float *g);

/* dw [n] += the gradient of the norm's weight for one row: x its input, g of its output. */
void vq_norm_weight_adjoint(enum vq_norm kind, float eps, uint32_t n, const float *x,
			    const float *g, double *dw);

/* slope = f'(x), elementwise. */
void vq_act_slope(enum vq_act_fn f, const float *x, size_t n, float *slope);

#endif
