/* Adjoint of an MLP, down(act(gate x) * up x) or down(act(up x)), and of experts with their router. */
#ifndef VQ_MODEL_ADJOINT_MLP_H
#define VQ_MODEL_ADJOINT_MLP_H

#include "model/adjoint.h"

/* An MLP, and what its forward pass leaves for the way back: [n, inter] each, the caller's. */
struct vq_mlp {
	const struct vq_layer_config *cfg;
	const struct vq_linear *up, *gate, *down;
	uint32_t n, expert;
	float *value; /* gated: act(gate); else NULL */
	float *slope; /* gated: up * act'(gate); else act'(up) */
	float *act;   /* the input of down; NULL: not wanted */
};

/* x [n, hidden] */
VQ_MUST_CHECK int vq_mlp_trace(const struct vq_mlp *m, const float *x, struct vq_err *err);

/* g [k, n, hidden] of the output -> gx of the input, written.  sink (or NULL; then k is 1) gets the linears, of input x. */
VQ_MUST_CHECK int vq_mlp_back(const struct vq_mlp *m, const float *g, uint32_t k, float *gx,
			      const struct vq_layer_sink *sink, const float *x, struct vq_err *err);

/* The same for all experts of a sparse layer with n rows. */
struct vq_experts_trace {
	float *x; /* [n, hidden] */
	struct vq_choice *choice;
	struct vq_route route;
	float *value, *slope, *act; /* [route.n_rows, inter], as in vq_mlp */
	float *y;                   /* [route.n_rows, hidden] outputs before the gates */
};
/* x [n, hidden] is taken over. */
VQ_MUST_CHECK int vq_experts_trace(struct vq_experts_trace *t, const struct vq_layer *l, float *x,
				   uint32_t n, int with_act, struct vq_err *err);
VQ_MUST_CHECK int vq_experts_back(const struct vq_experts_trace *t, const struct vq_layer *l,
				  uint32_t n, const float *g, uint32_t k, float *gx,
				  const struct vq_layer_sink *sink, struct vq_err *err);
void vq_experts_trace_free(struct vq_experts_trace *t); /* fine on zeroes */

/* out = g W for y = x W^T, and out += g W with room for one product in tmp. */
VQ_MUST_CHECK int vq_linear_back(const struct vq_linear *l, const float *g, size_t n, float *out,
				 struct vq_err *err);
VQ_MUST_CHECK int vq_linear_add_back(const struct vq_linear *l, const float *g, size_t n,
				     float *tmp, float *out, struct vq_err *err);

#endif
