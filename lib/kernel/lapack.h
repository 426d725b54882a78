/* Products and factors in double precision through OpenBLAS.  Beside blas.c the only file that sees cblas.h.
 *
 * All functions are for the calling thread inside a parallel region, where OpenBLAS has one thread; outside of one
 * it takes as many as it likes, and sums depend on their number.  Matrices are row-major; ld is the distance of
 * rows in elements. */
#ifndef VQ_KERNEL_LAPACK_H
#define VQ_KERNEL_LAPACK_H

#include <stddef.h>
#include <stdint.h>

/* The upper triangle of c [n, n] += x^T x, x [k, n]. */
void vq_syrk_tn(uint32_t n, uint32_t k, const double *x, size_t ldx, double *c, size_t ldc);

/* c [m, n] += alpha op(a) op(b):   tn: a [k, m], b [k, n];   nn: a [m, k], b [k, n];   nt: b [n, k]. */
void vq_dgemm_tn(uint32_t m, uint32_t n, uint32_t k, double alpha, const double *a, size_t lda,
		 const double *b, size_t ldb, double *c, size_t ldc);
void vq_dgemm_nn(uint32_t m, uint32_t n, uint32_t k, double alpha, const double *a, size_t lda,
		 const double *b, size_t ldb, double *c, size_t ldc);
void vq_dgemm_nt(uint32_t m, uint32_t n, uint32_t k, double alpha, const double *a, size_t lda,
		 const double *b, size_t ldb, double *c, size_t ldc);

/* The upper triangle of a [n, n], symmetric, becomes U with a = U^T U.  0, or -1 when a is not positive definite
 * (a is then spoilt).  The lower triangle is not touched. */
int vq_chol_factor(uint32_t n, double *a);
/* From U: the upper triangle of the inverse of U^T U.  0, or -1 when U has a 0 on its diagonal. */
int vq_chol_invert(uint32_t n, double *u);

/* The inverse of a [n, n] in its place.  0, or -1 when a is singular or there is no memory (a is then spoilt). */
int vq_lu_invert(uint32_t n, double *a);
/* a [n, n], symmetric, upper triangle: becomes its eigenvectors, one a row, with values [n] in falling order.  0, or
 * -1 when the iteration fails or there is no memory. */
int vq_eigen_symmetric(uint32_t n, double *a, double *values);
/* x [m, n] becomes x u^-T, u [n, n] upper. */
void vq_solve_upper_t(uint32_t m, uint32_t n, const double *u, double *x);

#endif
