/* A weight that is fitted again: moments of inputs x and of what is missing in the outputs, e, over weighted rows, and the
 * change of the weight that brings the least squared error.
 *
 *   H = sum s x^T x   [n_in, n_in]     G = sum s e^T x   [n_out, n_in]     e2 = sum s |e|^2
 *   change = G (H + ridge diag(H))^-1   minimises   sum s |e - change x|^2 + ridge sum_j H_jj |change_j|^2
 *
 * so the more ridge, the nearer to the weight as it is. */
#ifndef VQ_QUANT_REFIT_H
#define VQ_QUANT_REFIT_H

#include "quant/hessian.h"

struct vq_refit {
	uint32_t n_in, n_out;
	struct vq_hessian h; /* upper triangle */
	double *g, e2;       /* [n_out, n_in] */
};

VQ_MUST_CHECK int vq_refit_new(struct vq_refit *r, uint32_t n_in, uint32_t n_out,
			       struct vq_err *err);
void vq_refit_free(struct vq_refit *r); /* fine on zeroes */

/* x [n, n_in], e [n, n_out], s [n] >= 0.  The same bytes for any number of threads. */
VQ_MUST_CHECK int vq_refit_add(struct vq_refit *r, const float *x, const float *e, const float *s,
			       uint32_t n, struct vq_err *err);
/* r += other, of the same sizes. */
void vq_refit_sum(struct vq_refit *r, const struct vq_refit *other);
/* Of inputs y = W x, w [n_y, n_in]: *out is new, its n_in is n_y. */
VQ_MUST_CHECK int vq_refit_behind(struct vq_refit *out, const struct vq_refit *r, const float *w,
				  uint32_t n_y, struct vq_err *err);

/* change [n_out, n_in].  Moments that cannot be inverted (NaN, infinity): VQ_E_DATA. */
VQ_MUST_CHECK int vq_refit_solve(const struct vq_refit *r, double ridge, double *change,
				 struct vq_err *err);
/* out [n_out, n_in] = x w, x [n_out, n_y] a change behind w [n_y, n_in]: what it is of w. */
VQ_MUST_CHECK int vq_refit_fold(const double *x, const float *w, uint32_t n_out, uint32_t n_y,
				uint32_t n_in, double *out, struct vq_err *err);
/* *error = sum s |e - change x|^2 / e2, 0 where e2 is. */
VQ_MUST_CHECK int vq_refit_error(const struct vq_refit *r, const double *change, double *error,
				 struct vq_err *err);

#endif
