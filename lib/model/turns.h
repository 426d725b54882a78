/* Cosines and sines of positions, for rotary embeddings: made once, as far as they were asked for. */
#ifndef VQ_MODEL_TURNS_H
#define VQ_MODEL_TURNS_H

#include "base/err.h"

#include <stdint.h>

struct vq_turns {
	float *c, *s; /* [n, head_dim / 2], rows of vq_rotary_table */
	uint32_t n, room;
	uint32_t head_dim;
	float theta;
};

/* Positions 0 .. n - 1 are there then.  Other angles than before: all are made anew.  Fine on zeroes, as the next. */
VQ_MUST_CHECK int vq_turns_make(struct vq_turns *t, uint32_t n, uint32_t head_dim, float theta,
				struct vq_err *err);
void vq_turns_free(struct vq_turns *t);

#endif
