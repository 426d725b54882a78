/* Full-precision products through OpenBLAS.  Beside lapack.c the only file that sees cblas.h is blas.c.  Work is cut into
 * fixed tiles that OpenMP shares out, and OpenBLAS itself runs on one thread, so a result does not depend
 * on the number of threads. */
#ifndef VQ_KERNEL_BLAS_H
#define VQ_KERNEL_BLAS_H

#include "stream/tensor.h"

/* y [n, n_out] = x [n, n_in] W^T (+ bias), W [n_out, n_in] F32, F16 or BF16 (converted tile by tile).
 * bias [n_out] may be NULL. */
VQ_MUST_CHECK int vq_gemm(const float *x, size_t n, const void *w, enum vq_dtype w_type,
			  uint32_t n_out, uint32_t n_in, const float *bias, float *y,
			  struct vq_err *err);

/* The same for a weight in any other form: rows writes rows first.. first + n of it as float to out [n, n_in].
 * first is a multiple of VQ_GEMM_ROWS.  It is called from several threads at once. */
#define VQ_GEMM_ROWS 32u
typedef void (*vq_rows_fn)(const void *w, size_t first, uint32_t n, uint32_t n_in, float *out);
VQ_MUST_CHECK int vq_gemm_rows(const float *x, size_t n, vq_rows_fn rows, const void *w,
			       uint32_t n_out, uint32_t n_in, const float *bias, float *y,
			       struct vq_err *err);

/* For jobs of an OpenMP loop, on the calling thread (outside of one, OpenBLAS starts its own threads); rows are
 * lda, ldb, ldc elements apart.
 *   nt:  c [m, n] = alpha a [m, k] b^T, b [n, k]
 *   nn:  c [m, n] = a [m, k] b [k, n] */
void vq_gemm_nt(uint32_t m, uint32_t n, uint32_t k, float alpha, const float *a, size_t lda,
		const float *b, size_t ldb, float *c, size_t ldc);
void vq_gemm_nn(uint32_t m, uint32_t n, uint32_t k, const float *a, size_t lda, const float *b,
		size_t ldb, float *c, size_t ldc);

/* "Cooperlake", "Haswell", ...: the core that OpenBLAS chose. */
const char *vq_blas_core(void);

/* Called by main once: OpenMP gets n threads (0: the cores, or SLURM_CPUS_PER_TASK).  OpenBLAS has one
 * inside parallel regions; nothing calls it outside of them. */
void vq_threads_setup(uint32_t n);

#endif
