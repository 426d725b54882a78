/* Ranges for activation grids that store them (kernel/qact.h), from calibration rows: the bounds of the paper's
 * percentiles (quant/clip.h), for each group of inputs, input channel, or position by itself.
 *
 * Of the N values of a range sorted, lo = min(0, x[floor(N (1 - p))]), hi = max(0, x[min(floor(N p), N - 1)]), exactly
 * those values: the lowest and highest 2 % are kept while rows pass by, at most twice over, so about 8 % of the
 * rows' own memory. */
#ifndef VQ_QUANT_RANGE_H
#define VQ_QUANT_RANGE_H

#include "kernel/qact.h"
#include "quant/clip.h"

struct vq_range_tail;

struct vq_range_meter {
	struct vq_agrid grid; /* n_ranges set, no ranges yet */
	uint32_t n_in;
	size_t n_rows;              /* to come in all */
	struct vq_range_tail *tail; /* [n_ranges, 2] */
	float *kept;                /* what they hold */
	double *loss;               /* [VQ_N_PERCENTILES, n_ranges] */
};

/* For n_rows rows of n_in inputs, in sequences of n_positions (ranges by position; n_rows is a multiple). */
VQ_MUST_CHECK int vq_range_begin(struct vq_range_meter *m, const struct vq_agrid *g, size_t n_rows,
				 uint32_t n_in, uint32_t n_positions, struct vq_err *err);
void vq_range_end(struct vq_range_meter *m); /* frees; fine on zeroes and after a failure */

/* Some rows: whole sequences for ranges by position. */
void vq_range_add(struct vq_range_meter *m, const float *x, size_t n_rows);

/* After all rows: ranges [VQ_N_PERCENTILES, 2, n_ranges], lows and highs of each percentile. */
void vq_range_bounds(struct vq_range_meter *m, float *ranges);

/* Once more some rows: how far each percentile's quantizer moves them, sum |x' - x|^power for each range.  buf as
 * large as x. */
void vq_range_try(struct vq_range_meter *m, const float *ranges, double power, const float *x,
		  size_t n_rows, float *buf);
/* After all rows: the best percentile of each range (the first of equals) takes the place of percentile 1. */
void vq_range_pick(const struct vq_range_meter *m, float *ranges);

#endif
