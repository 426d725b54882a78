/* Second moments of a linear's input, for GPTQ and what follows from it: tokens are rows of x.
 *
 *   H = sum x^T x          D = sum (x_full - x)^T x      (GPTAQ, arXiv 2504.02692: "dXXT")
 *
 * x is what the quantized predecessors give, x_full what the full-precision model has in its place. */
#ifndef VQ_QUANT_HESSIAN_H
#define VQ_QUANT_HESSIAN_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct vq_hessian {
	uint32_t n;
	uint64_t n_rows;
	double *h; /* [n, n], upper triangle; the lower is 0 */
	double *d; /* [n, n], or NULL */
};

/* cross: with D. */
VQ_MUST_CHECK int vq_hessian_new(struct vq_hessian *h, uint32_t n, int cross, struct vq_err *err);
void vq_hessian_free(struct vq_hessian *h); /* fine on zeroes */

/* x [n_rows, n]; x_full is read where there is a D.  The same rows in the same calls give the same bytes for any
 * number of threads. */
VQ_MUST_CHECK int vq_hessian_add(struct vq_hessian *h, const float *x, const float *x_full,
				 size_t n_rows, struct vq_err *err);

/* ||D||_F / ||H||_F: how much of what reaches the linear is the doing of quantized predecessors.  0 without D, or where
 * H is 0. */
double vq_hessian_cross(const struct vq_hessian *h);

#endif
