/* How the dependency D(k, k+1) of two layers moves with their outputs: the slope that Q-VLM's entropy loss (its Eq 8)
 * wants, in closed form.  With the notation of quant/dependency.h, D is a function of P alone and
 *
 *   dD / dP[a][b] = -ln(P[a][b] / sum_b' P[a][b'])
 *   dw_a / du     = w_a (s_a - sum_a' w_a' s_a'),  s_a = -2 (u - a);   du / dx_c = 1 / step_c
 *
 * P is that of all calibration tokens; when rows x and y of the two layers move by dx and dy, and all tokens like them,
 * D moves by sum gx dx + sum gy dy to first order.  Ranges stay; a value on their edge or beyond has slope 0, and so
 * has the reach of 3 levels, which soft levels leave with a weight of 1e-4. */
#ifndef VQ_QUANT_DEPENDENCY_SLOPE_H
#define VQ_QUANT_DEPENDENCY_SLOPE_H

#include "quant/dependency.h"

/* P [L, L], L = 2^bits, sums or means.  Adds scale times the slopes to gx and gy [n_rows, n_channels].  Conditional
 * probabilities under 1e-9 count as that: rows may show what P has not seen.  The same for any number of threads. */
VQ_MUST_CHECK int vq_joint_slope(const float *P, const struct vq_levels *k,
				 const struct vq_levels *k1, size_t n_rows, uint32_t n_channels,
				 uint32_t bits, double scale, float *gx, float *gy,
				 struct vq_err *err);

#endif
