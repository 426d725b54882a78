/* WUSH (Chen et al., ICML 2026): the transform of a block of inputs that makes the second moments of inputs and
 * weights the same, with a constant diagonal; it takes the place of the Hadamard.  Within a block of G inputs, column
 * vectors,
 *
 *   Hx = X^T X / N = B^T B (B upper),   B (W^T W / R) B^T = V S^2 V^T,   T = Had S^(1/2) V^T B^-T
 *   x' = T x,  W' = W T^-1:   T Hx T^T = T^-T (W^T W / R) T^-1 = Had S Had^T
 *
 * The diagonal of Hx grows by damp times its mean, and so does S. */
#ifndef VQ_QUANT_WUSH_H
#define VQ_QUANT_WUSH_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* Second moments of the blocks of inputs: m [n / block, block, block], upper triangles, grows by sum x_b^T x_b over
 * the rows of x [rows, n].  The same calls give the same bytes for any number of threads. */
VQ_MUST_CHECK int vq_block_moments(double *m, const float *x, size_t rows, uint32_t n,
				   uint32_t block, struct vq_err *err);

/* hx, hw [n / block, block, block], upper triangles, as means over the rows; block a power of two.  matrix [n / block,
 * block, block] is set to T^T, as struct vq_transform wants it.  A block whose inputs or weights are all 0 counts as
 * white noise there.  VQ_E_DATA when damping up to 1 does not make hx positive definite (not finite). */
VQ_MUST_CHECK int vq_wush_fit(uint32_t n, uint32_t block, const double *hx, const double *hw,
			      double damp, float *matrix, struct vq_err *err);

#endif
