/* Transforms of some rows (transform.h), one function an instruction set. */
#ifndef VQ_KERNEL_TRANSFORM_ROWS_H
#define VQ_KERNEL_TRANSFORM_ROWS_H

#include "kernel/transform.h"

/* x [n_rows, n] -> out [n_rows, n] on the calling thread; out = x is fine. */
void vq_transform_generic(const struct vq_transform *t, const float *x, size_t n_rows, float *out);

#if defined(__x86_64__)
void vq_transform_avx2(const struct vq_transform *t, const float *x, size_t n_rows, float *out);
void vq_transform_avx512(const struct vq_transform *t, const float *x, size_t n_rows, float *out);
#elif defined(__aarch64__)
void vq_transform_neon(const struct vq_transform *t, const float *x, size_t n_rows, float *out);
#endif

#endif
