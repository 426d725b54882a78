/* Activation entropy: joint matrices of soft levels of two layers, and the dependency D(k, k+1) that tells
 * which neighbours to search together (the paper's Eqs 4 and 5, in the reading of a quantity that does not
 * change with the unit of x).
 *
 *   u   = (x - min_c) / step_c, clamped to [0, L - 1]               channel c, L = 2^bits levels
 *   w_a = exp(-(u - a)^2) / sum_a' exp(-(u - a')^2),  |u - a| <= 3   the soft level (Eq 5 with
 *                                                                    dimensionless distance)
 *   P[a][b] = mean over tokens and channels of w_a(u_k) w_b(u_k+1)
 *   D = -sum_ab P[a][b] ln(P[a][b] / sum_b' P[a][b'])                nats, 0 .. bits ln 2 (Eq 4) */
#ifndef VQ_QUANT_DEPENDENCY_H
#define VQ_QUANT_DEPENDENCY_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* One layer's side of a joint matrix. */
struct vq_levels {
	const float *x;         /* [n_rows, n_channels] */
	const float *min, *max; /* [n_channels]; step = (max - min) / (L - 1); no range: u = 0 */
};

/* Adds the outer products of n_rows * n_channels values to P [L, L] (sums, not means; the caller clears it
 * first).  The same data in the same calls give the same bytes for any number of threads.  hard: 1 at the
 * nearest level (half to even) instead of soft weights.  bits 1..8. */
VQ_MUST_CHECK int vq_joint_add(double *P, const struct vq_levels *k, const struct vq_levels *k1,
			       size_t n_rows, uint32_t n_channels, uint32_t bits, int hard,
			       struct vq_err *err);

/* D of P [L, L], which may be sums or means.  0 for an empty P. */
double vq_joint_dependency(const double *P, uint32_t L);

/* Entropy in nats of a histogram h [n] (counts or probabilities); 0 when empty.  With the row sums of P
 * it is H(k), with the whole of P the joint entropy. */
double vq_hist_entropy(const double *h, size_t n);

/* Row sums (side k) or column sums (side k+1) of P [L, L] into h [L]. */
void vq_joint_marginal(const double *P, uint32_t L, int of_k1, double *h);

#endif
