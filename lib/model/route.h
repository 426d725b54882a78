/* Routing of rows to experts, as MoE-LLaVA's top-1 and top-2 gates do it (DeepSpeed 0.9's sharded_moe.py):
 *
 *   l    = router . x                    float32, for each row and expert
 *   p    = softmax(l)
 *   e1   = argmax p                      the lowest number among equals
 *   e2   = argmax of l + noise without e1, top-2 only; noise is 0, or Gumbel's where it is asked for
 *   gate = p[e1]                         top-1
 *   gate = p[e1] / s, p[e2] / s          top-2; s = p[e1] + p[e2], of those that were not dropped
 *
 * With capacity, an expert takes at most max(ceil(T / E * top_k * factor), min_capacity) of the T rows of a sequence in
 * one call, first choices in order before second ones; the rest are dropped, which leaves a row one expert or none.
 * (DeepSpeed's top-1 gate keeps random ones when it trains; here, the first.)  Without it nothing is dropped, as with the
 * factor 2 that the authors train and evaluate with.
 *
 * A row's choice depends on the row, and with noise on its position in the sequence; with capacity on its sequence. */
#ifndef VQ_MODEL_ROUTE_H
#define VQ_MODEL_ROUTE_H

#include "base/rng.h"
#include "model/config.h"

#define VQ_TOP_K     2u /* the most experts of a row */
#define VQ_NO_EXPERT 0xffu

/* How a model's routers choose; one for all its layers. */
struct vq_gating {
	uint32_t top_k;
	int drop; /* capacity is kept */
	float capacity_factor;
	uint32_t min_capacity;
	int noise;
	uint64_t seed; /* of the noise */
};

/* What the rows of a call chose: [n_rows, VQ_TOP_K], VQ_NO_EXPERT where there is none. */
struct vq_choice {
	uint8_t expert[VQ_TOP_K];
	float gate[VQ_TOP_K];
};

struct vq_router {
	const struct vq_gating *g;
	const float *w; /* [n_experts, hidden] */
	uint32_t n_experts, hidden, layer;
};

/* x [n_rows, hidden], rows of n_seqs sequences that begin at start[s], the first at position past[s]; both may be NULL
 * where there is neither noise nor capacity. */
VQ_MUST_CHECK int vq_route(const struct vq_router *r, const float *x, size_t n_rows,
			   uint32_t n_seqs, const uint32_t *start, const uint32_t *past,
			   struct vq_choice *out, struct vq_err *err);

/* Gates of x for experts that were chosen before: only c's gates change. */
void vq_route_gates(const struct vq_router *r, const float *x, size_t n_rows, struct vq_choice *c);

/* The noise of an expert for a token: Gumbel's distribution, from the counter-based generator. */
float vq_route_noise(const struct vq_gating *g, uint32_t layer, uint32_t position, uint32_t expert);

/* Rows gathered by expert.  Those of expert e are start[e].. start[e] + n[e].  In a call of more rows than
 * VQ_GEMM_FEW an expert's part is filled up with zeros to more than that, so that its products sum in the same order
 * whatever else is in the call: run[e] rows in all. */
struct vq_route {
	uint32_t n_experts;
	uint32_t *start, *n, *run; /* [n_experts] */
	uint32_t *row;             /* [n_rows] of the call's rows */
	float *gate;               /* [n_rows] 0 where the row did not choose the expert */
	uint32_t n_rows;           /* of all parts */
};

/* whole [n_experts] or NULL: experts that get every row, with gate 0 where it did not choose them. */
VQ_MUST_CHECK int vq_route_gather(struct vq_route *r, const struct vq_choice *c, size_t n_rows,
				  uint32_t n_experts, const uint8_t *whole, struct vq_err *err);
VQ_MUST_CHECK int vq_route_copy(struct vq_route *to, const struct vq_route *r, struct vq_err *err);
void vq_route_free(struct vq_route *r); /* fine on zeroes */

#endif
