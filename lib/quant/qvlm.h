/* Q-VLM's block search (NeurIPS 2024, Eq 3): coordinate descent over a small set of values for each rounding function
 * of a block, by the error of the block's output.  What the values mean and how the error comes about is the
 * caller's. */
#ifndef VQ_QUANT_QVLM_H
#define VQ_QUANT_QVLM_H

#include <stdint.h>

#include "base/err.h"
#include "quant/clip.h"

/* The values of a coordinate are percentiles of quant/clip.h: 0 is no clipping. */
#define VQ_QVLM_VALUES VQ_N_PERCENTILES

struct vq_descent {
	uint32_t n_coords;
	uint32_t sweeps;
	const uint8_t
		*usable; /* [n_coords, VQ_QVLM_VALUES] 0: never tried, for want of difference */

	/* Called when the search comes to a coordinate; those before it keep their choice until `enter` is called with
	 * a lower one, so that a caller may compute what depends on them alone once.  Coordinates come in ascending
	 * order in a sweep. */
	int (*enter)(void *ctx, uint32_t coord, const uint8_t *choice, struct vq_err *err);
	/* The error with this choice, which differs from that of `enter` in coord only. */
	int (*eval)(void *ctx, uint32_t coord, const uint8_t *choice, double *error,
		    struct vq_err *err);
	void *ctx;

	double error;     /* in: of the first choice; out: of the last */
	uint64_t n_evals; /* out: calls of eval */
};

/* Improves choice [n_coords] in place, in at most d->sweeps rounds; a round without a change is the last.  A value is
 * taken when its error is smaller than all before it; ties keep the lower value (less clipping).  A coordinate is not
 * looked at again while nothing else has changed.  So the error never rises. */
VQ_MUST_CHECK int vq_qvlm_descend(struct vq_descent *d, uint8_t *choice, struct vq_err *err);

#endif
