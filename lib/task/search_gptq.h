/* GPTQ at one place: codes of its linears from the activations that come there. */
#ifndef VQ_TASK_SEARCH_GPTQ_H
#define VQ_TASK_SEARCH_GPTQ_H

#include "task/search.h"
#include "task/search_place.h"

/* What it brought, over the places of a block. */
struct vq_gptq_cost {
	double loss; /* sum of tr((Q - W) H (Q - W)^T) / 2, H the mean over tokens, before polishing */
	double damp;       /* the largest */
	double cross;      /* sum over places of ||D||_F / ||H||_F, with gptaq */
	uint32_t n_few;    /* places with fewer than 8 tokens per input: damping 10 % */
	uint32_t n_raised; /* places where the factorization wanted more damping */
};

/* Chooses and builds the codes of p for choice [2], its values of the input's clip and of the weights, from its input
 * x [n_rows, n_in], which is transformed and quantized here as the place does it, and
 * from what full precision has there.  r [n_rows]: weights of the rows, mean 1; NULL: all 1.  Adds to cost. */
VQ_MUST_CHECK int vq_place_gptq(struct vq_place *p, const struct vq_search_opts *o,
				const uint8_t *choice, const float *x, const float *x_full,
				const float *r, size_t n_rows, struct vq_gptq_cost *cost,
				struct vq_err *err);

#endif
