/* Which prompts go through the decoder together, so that tokens they share at their beginning go through once. */
#ifndef VQ_TASK_INFER_PREFIX_H
#define VQ_TASK_INFER_PREFIX_H

#include <stdint.h>

#include "base/err.h"

/* A prompt as the decoder reads it; borrowed. */
struct vq_lead {
	const int32_t *tokens; /* [n], n > 0 */
	uint32_t n;
	uint64_t picture
		[2]; /* what its image tokens stand for; two prompts share them where this is equal */
};

/* Of a batch. */
struct vq_group_limits {
	int32_t image_token; /* -1: none */
	uint32_t prompts;
	uint32_t rows; /* that go through the decoder, shared ones once; one prompt may exceed it */
	uint32_t answer; /* tokens that may follow a prompt */
	uint64_t
		cells; /* prompts times the longest with its answer: the cache; one prompt may exceed it */
	int whole; /* every prompt goes through whole: nothing is shared */
	/* Several batches run at a time: one ends where the next prompt shares least, and the last ones are smaller. */
	int taper;
};

struct vq_groups {
	uint32_t n, n_batches;
	uint32_t *order; /* [n] prompts, batch after batch */
	uint32_t *
		shared; /* [n] tokens that order[i] begins with like order[i - 1]; fewer than it has, 0 for
			   * the first of a batch */
	uint32_t *start; /* [n_batches + 1] */
};

/* Tokens that two prompts begin with alike, fewer than b has: its last one is its own. */
uint32_t vq_lead_shared(const struct vq_lead *a, const struct vq_lead *b, int32_t image_token);

/* Prompts in the order of their tokens, cut into batches of about equal work.  Depends on the prompts and the limits
 * alone. */
VQ_MUST_CHECK int vq_groups_make(struct vq_groups *p, const struct vq_lead *v, uint32_t n,
				 const struct vq_group_limits *limits, struct vq_err *err);
void vq_groups_free(struct vq_groups *p); /* fine on zeroes */

#endif
