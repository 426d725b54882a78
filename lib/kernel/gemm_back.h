/* The product that pulls back through a linear layer. */
#ifndef VQ_KERNEL_GEMM_BACK_H
#define VQ_KERNEL_GEMM_BACK_H

#include "stream/tensor.h"

/* y [n, n_in] = g [n, n_out] W, W [n_out, n_in] F32, F16 or BF16.  Fixed tiles as in blas.h: the result does not
 * depend on the number of threads. */
VQ_MUST_CHECK int vq_gemm_back(const float *g, size_t n, const void *w, enum vq_dtype w_type,
			       uint32_t n_out, uint32_t n_in, float *y, struct vq_err *err);

#endif
