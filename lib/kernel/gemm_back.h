/* The products of the way back through a linear layer: of its input and of its weight. */
#ifndef VQ_KERNEL_GEMM_BACK_H
#define VQ_KERNEL_GEMM_BACK_H

#include "stream/tensor.h"

/* y [n, n_in] = g [n, n_out] W, W [n_out, n_in] F32, F16 or BF16.  Fixed tiles as in blas.h: the result does not
 * depend on the number of threads. */
VQ_MUST_CHECK int vq_gemm_back(const float *g, size_t n, const void *w, enum vq_dtype w_type,
			       uint32_t n_out, uint32_t n_in, float *y, struct vq_err *err);

/* dw [n_out, n_in] += g^T x: the gradient of the weight for inputs x [n, n_in] and g [n, n_out] of the outputs. */
void vq_gemm_weight_grad(const float *g, const float *x, size_t n, uint32_t n_out, uint32_t n_in,
			 float *dw);

#endif
