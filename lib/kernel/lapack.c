/* Products and factors in double precision through OpenBLAS. */
#include "kernel/lapack.h"

#include <cblas.h>

/* LAPACK as OpenBLAS brings it.  It counts rows and columns the other way round: our upper triangle is its lower. */
extern void dpotrf_(const char *uplo, const int *n, double *a, const int *lda, int *info);
extern void dpotri_(const char *uplo, const int *n, double *a, const int *lda, int *info);

void vq_syrk_tn(uint32_t n, uint32_t k, const double *x, size_t ldx, double *c, size_t ldc)
{
	cblas_dsyrk(CblasRowMajor, CblasUpper, CblasTrans, (int)n, (int)k, 1, x, (int)ldx, 1, c,
		    (int)ldc);
}

void vq_dgemm_tn(uint32_t m, uint32_t n, uint32_t k, double alpha, const double *a, size_t lda,
		 const double *b, size_t ldb, double *c, size_t ldc)
{
	cblas_dgemm(CblasRowMajor, CblasTrans, CblasNoTrans, (int)m, (int)n, (int)k, alpha, a,
		    (int)lda, b, (int)ldb, 1, c, (int)ldc);
}

void vq_dgemm_nn(uint32_t m, uint32_t n, uint32_t k, double alpha, const double *a, size_t lda,
		 const double *b, size_t ldb, double *c, size_t ldc)
{
	cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)m, (int)n, (int)k, alpha, a,
		    (int)lda, b, (int)ldb, 1, c, (int)ldc);
}

void vq_dgemm_nt(uint32_t m, uint32_t n, uint32_t k, double alpha, const double *a, size_t lda,
		 const double *b, size_t ldb, double *c, size_t ldc)
{
	cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)m, (int)n, (int)k, alpha, a,
		    (int)lda, b, (int)ldb, 1, c, (int)ldc);
}

int vq_chol_factor(uint32_t n, double *a)
{
	int size = (int)n, info = 0;

	dpotrf_("L", &size, a, &size, &info);
	return info == 0 ? 0 : -1;
}

int vq_chol_invert(uint32_t n, double *u)
{
	int size = (int)n, info = 0;

	dpotri_("L", &size, u, &size, &info);
	return info == 0 ? 0 : -1;
}
