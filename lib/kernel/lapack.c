/* Products and factors in double precision through OpenBLAS. */
#include "kernel/lapack.h"

#include <cblas.h>

#include "base/mem.h"

/* LAPACK as OpenBLAS brings it.  It counts rows and columns the other way round: our upper triangle is its lower. */
extern void dpotrf_(const char *uplo, const int *n, double *a, const int *lda, int *info);
extern void dpotri_(const char *uplo, const int *n, double *a, const int *lda, int *info);
extern void dgetrf_(const int *m, const int *n, double *a, const int *lda, int *pivot, int *info);
extern void dgetri_(const int *n, double *a, const int *lda, const int *pivot, double *work,
		    const int *n_work, int *info);
extern void dsyevd_(const char *job, const char *uplo, const int *n, double *a, const int *lda,
		    double *values, double *work, const int *n_work, int *iwork, const int *n_iwork,
		    int *info);

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

int vq_lu_invert(uint32_t n, double *a)
{
	int size = (int)n, n_work = 64 * size, info = -1;
	int *pivot = vq_alloc(n, sizeof(*pivot), NULL);
	double *work = pivot ? vq_alloc((size_t)n_work, sizeof(*work), NULL) : NULL;

	if (work) /* the transpose's inverse is the inverse's transpose */
		dgetrf_(&size, &size, a, &size, pivot, &info);
	if (info == 0)
		dgetri_(&size, a, &size, pivot, work, &n_work, &info);
	vq_free(work);
	vq_free(pivot);
	return info == 0 ? 0 : -1;
}

int vq_eigen_symmetric(uint32_t n, double *a, double *values)
{
	/* What dsyevd's manual asks for. */
	int size = (int)n, n_work = 1 + 6 * size + 2 * size * size, n_iwork = 3 + 5 * size,
	    info = -1;
	double *work = vq_alloc((size_t)n_work, sizeof(*work), NULL), t;
	int *iwork = work ? vq_alloc((size_t)n_iwork, sizeof(*iwork), NULL) : NULL;
	uint32_t i, j, k;

	/* Its columns, one vector each, are our rows; its order is the rising one. */
	if (iwork)
		dsyevd_("V", "L", &size, a, &size, values, work, &n_work, iwork, &n_iwork, &info);
	for (i = 0, k = n; info == 0 && i < --k; i++) {
		t = values[i];
		values[i] = values[k];
		values[k] = t;
		for (j = 0; j < n; j++) {
			t = a[(size_t)i * n + j];
			a[(size_t)i * n + j] = a[(size_t)k * n + j];
			a[(size_t)k * n + j] = t;
		}
	}
	vq_free(iwork);
	vq_free(work);
	return info == 0 ? 0 : -1;
}

void vq_solve_upper_t(uint32_t m, uint32_t n, const double *u, double *x)
{
	cblas_dtrsm(CblasRowMajor, CblasRight, CblasUpper, CblasTrans, CblasNonUnit, (int)m, (int)n,
		    1, u, (int)n, x, (int)n);
}
