/* The layer-wise contrast to Q-VLM (its Eq 2): the linears of one place of a layer are chosen by their own output
 * error, one place after the other.  Here: how errors are summed and what the best pair of clips is. */
#ifndef VQ_QUANT_LAYERWISE_H
#define VQ_QUANT_LAYERWISE_H

#include <stddef.h>
#include <stdint.h>

/* sum (a - b)^2 over [n_rows, width], and of squares of b.  In double, in an order that depends on the shape alone. */
double vq_sum_error2(const float *a, const float *b, size_t n_rows, size_t width);
double vq_sum_squares(const float *b, size_t n_rows, size_t width);

/* The same with each row's sum times r [n_rows]; r NULL, or all 1: the very same number.  a NULL: of b's squares. */
double vq_sum_weighted2(const float *a, const float *b, const float *r, size_t n_rows,
			size_t width);

/* The smallest of errors [n_a, n_w]; of equal ones the first in row-major order.  NaN is never the smallest, unless
 * all are: then 0, 0. */
void vq_layerwise_pick(const double *errors, uint32_t n_a, uint32_t n_w, uint32_t *a, uint32_t *w);

#endif
