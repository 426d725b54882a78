/* Clip ratios for the percentiles of the paper's rounding functions (p = 1 .. .98, PACT-like bounds), for
 * quantizers whose range is taken anew for every group of every token.
 *
 * A dynamic quantizer has no fixed bounds to cut, only a ratio c of each group's own range.  So the values
 * are measured against their group: u = |x| / max|x| for a symmetric grid; for an asymmetric one, each side
 * against its own end, u = x / max(0, max x) for x > 0 and x / min(0, min x) for x < 0, and both sides are
 * pooled, for c shrinks both.  Over all the calibration data, c(p) is the quantile 2p - 1 of u: the
 * percentile p cuts 1 - p of the values on each side, 2 (1 - p) in all.  c(1) = 1.  The ends of a group are not counted:
 * they have u = 1 whatever the data are, one value in 32 of a group of 32, and would hide the quantile.
 * Nor is a group of zeros. */
#ifndef VQ_QUANT_CLIP_H
#define VQ_QUANT_CLIP_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define VQ_N_PERCENTILES 5
extern const double vq_clip_percentiles[VQ_N_PERCENTILES]; /* 1, .995, .99, .985, .98 */

#define VQ_CLIP_BINS 4096

/* About 32 KiB.  vq_clip_init, add any number of times, then ask for ratios. */
struct vq_clip_hist {
	uint32_t group; /* inputs a group; 0 = the whole row */
	int sym;
	uint64_t total;
	uint64_t count[VQ_CLIP_BINS]; /* of u in (i / BINS, (i + 1) / BINS]; u = 0 in the first */
};

void vq_clip_init(struct vq_clip_hist *h, uint32_t group, int sym);

/* x [rows, n]: activations (rows are tokens) or weights (rows are outputs). */
void vq_clip_add(struct vq_clip_hist *h, const float *x, size_t rows, uint32_t n);

/* The ratio for p in (.5, 1], in (0, 1]; 1 for an empty histogram. */
float vq_clip_ratio(const struct vq_clip_hist *h, double p);

/* The ranks of percentile p among n > 0 values sorted, from 0: floor(n (1 - p)) and floor(n p), at most n - 1. */
void vq_clip_ranks(size_t n, double p, size_t *lo, size_t *hi);

/* Percentile bounds of a whole tensor, for grids with stored ranges: of the n values sorted,
 * lo = x[floor(n (1 - p))], hi = x[min(floor(n p), n - 1)].  Sorts x; 0, 0 when n is 0. */
void vq_clip_bounds(float *x, size_t n, double p, float *lo, float *hi);

#endif
