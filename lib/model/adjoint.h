/* Adjoints (vector-Jacobian products): what a change of a layer's input does to a given functional of its
 * output.  For calibration only: one sequence at a time, full precision, the layer's input recomputed
 * forward, nothing stored but the input.  g is a stack of k cotangents; each is pulled back independently:
 *
 *     g_in = J(h)^T g_out,   J = d output / d input at h
 *
 * Checked against central differences in tests/unit/test_adjoint.c. */
#ifndef VQ_MODEL_ADJOINT_H
#define VQ_MODEL_ADJOINT_H

#include "model/model.h"

/* h [n, hidden]: input of the layer, positions 0..n-1.  g [k, n, hidden]: of the output, becomes of the input.
 * Weights must be floating point and inputs not quantized.  Memory about
 * n * (4 inter + 8 hidden) + min(k * n, 2048) * 3 inter + threads * 5 n^2 floats. */
VQ_MUST_CHECK int vq_layer_adjoint(const struct vq_layer *l, const float *h, uint32_t n, float *g,
				   uint32_t k, struct vq_err *err);

/* features [n, C]; g [k, n, d] -> out [k, n, C]. */
VQ_MUST_CHECK int vq_projector_adjoint(const struct vq_config *c, const struct vq_projector *p,
				       const float *features, uint32_t n, const float *g,
				       uint32_t k, float *out, struct vq_err *err);

/* Norms, one row [n]: g becomes of the input x. b plays no part. */
void vq_norm_adjoint(enum vq_norm kind, float eps, uint32_t n, const float *x, const float *w,
		     float *g);

/* slope = f'(x), elementwise. */
void vq_act_slope(enum vq_act_fn f, const float *x, size_t n, float *slope);

#endif
