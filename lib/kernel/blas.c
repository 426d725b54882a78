/* Full-precision products through OpenBLAS. */
#include "kernel/blas.h"

#include <cblas.h>
#include <omp.h>
#include <stdlib.h>

#include "base/parse.h"

extern char *openblas_get_corename(void); /* not declared by every cblas.h */

void vq_gemm_nt(uint32_t m, uint32_t n, uint32_t k, float alpha, const float *a, size_t lda,
		const float *b, size_t ldb, float *c, size_t ldc)
{
	cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)m, (int)n, (int)k, alpha, a,
		    (int)lda, b, (int)ldb, 0.0f, c, (int)ldc);
}

void vq_gemm_nn(uint32_t m, uint32_t n, uint32_t k, const float *a, size_t lda, const float *b,
		size_t ldb, float *c, size_t ldc)
{
	cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)m, (int)n, (int)k, 1.0f, a,
		    (int)lda, b, (int)ldb, 0.0f, c, (int)ldc);
}

void vq_gemm_tn(uint32_t m, uint32_t n, uint32_t k, const float *a, size_t lda, const float *b,
		size_t ldb, float *c, size_t ldc)
{
	cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, (int)m, (int)n, (int)k, 1.0f, a,
		    (int)lda, b, (int)ldb, 1.0f, c, (int)ldc);
}

const char *vq_blas_core(void)
{
	return openblas_get_corename();
}

void vq_threads_setup(uint32_t n)
{
	const char *slurm = getenv("SLURM_CPUS_PER_TASK");

	if (n == 0 && (!slurm || vq_parse_u32(&n, slurm, 1, 1024) < 0))
		n = (uint32_t)omp_get_num_procs();
	omp_set_num_threads((int)n);
}
