/* Full-precision products through OpenBLAS.  Beside lapack.c the only file that sees cblas.h is blas.c.  Work is cut into
 * fixed tiles that OpenMP shares out, and OpenBLAS itself runs on one thread, so a result does not depend
 * on the number of threads. */
#ifndef VQ_KERNEL_BLAS_H
#define VQ_KERNEL_BLAS_H

#include <stddef.h>
#include <stdint.h>

/* For jobs of an OpenMP loop, on the calling thread (outside of one, OpenBLAS starts its own threads); rows are
 * lda, ldb, ldc elements apart.
 *   nt:  c [m, n] = alpha a [m, k] b^T, b [n, k]
 *   nn:  c [m, n] = a [m, k] b [k, n]
 *   tn:  c [m, n] += a^T b, a [k, m], b [k, n] */
void vq_gemm_nt(uint32_t m, uint32_t n, uint32_t k, float alpha, const float *a, size_t lda,
		const float *b, size_t ldb, float *c, size_t ldc);
void vq_gemm_nn(uint32_t m, uint32_t n, uint32_t k, const float *a, size_t lda, const float *b,
		size_t ldb, float *c, size_t ldc);
void vq_gemm_tn(uint32_t m, uint32_t n, uint32_t k, const float *a, size_t lda, const float *b,
		size_t ldb, float *c, size_t ldc);

/* "Cooperlake", "Haswell", ...: the core that OpenBLAS chose. */
const char *vq_blas_core(void);

/* Called by main once: OpenMP gets n threads (0: the cores, or SLURM_CPUS_PER_TASK).  OpenBLAS has one
 * inside parallel regions; nothing calls it outside of them. */
void vq_threads_setup(uint32_t n);

#endif
