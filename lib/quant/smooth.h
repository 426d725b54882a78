/* Smoothing (SmoothQuant, Xiao et al., ICML 2023): inputs are divided by s_j, and the columns of the weights that share
 * them multiplied,
 *
 *   s_j = max|X_j|^a / max|W_j|^(1-a)
 *
 * with max|W_j| and s_j at least 1e-5, as in the authors' code.  An input that is 0 in all of X counts as the largest
 * one, so that it is not blown up when, one day, it is not 0.
 *
 * And the weights of transformed inputs: for x' = (x scale) T the weight is W' = (W / scale) T^-T, which is a
 * transform too, the dual. */
#ifndef VQ_QUANT_SMOOTH_H
#define VQ_QUANT_SMOOTH_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "kernel/transform.h"

/* max [n] grows to the largest |x| of each column of x [rows, n]. */
void vq_column_max(const float *x, size_t rows, uint32_t n, float *max);

/* scale [n] = 1 / s, what inputs are multiplied by; times sign [n], when that is not NULL. */
void vq_smooth_scale(const float *x_max, const float *w_max, const float *sign, uint32_t n,
		     double a, float *scale);

/* The dual of t: vq_transform_rows(dual, W, n_out, W') is the weight for inputs that t transforms.  Its arrays are
 * its own.  VQ_E_DATA when a scale is 0 or a matrix singular. */
VQ_MUST_CHECK int vq_transform_dual(struct vq_transform *dual, const struct vq_transform *t,
				    struct vq_err *err);
/* Frees the arrays of a transform that owns them; fine on zeroes. */
void vq_transform_free(struct vq_transform *t);

#endif
