/* WUSH, block by block. */
#include "quant/wush.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "base/num.h"
#include "kernel/lapack.h"
#include "kernel/transform.h"

#define CHUNK 256u /* rows converted to double at a time */

int vq_block_moments(double *m, const float *x, size_t rows, uint32_t n, uint32_t block,
		     struct vq_err *err)
{
	long long b, n_blocks = n / block;
	double *buf = vq_alloc((size_t)CHUNK * n, sizeof(*buf), err);
	size_t at, i;

	if (!buf)
		return VQ_E_SYS;
	for (at = 0; at < rows; at += CHUNK) {
		size_t k = rows - at < CHUNK ? rows - at : CHUNK;

		for (i = 0; i < k * n; i++)
			buf[i] = (double)x[at * n + i];
#pragma omp parallel for schedule(dynamic, 1)
		for (b = 0; b < n_blocks; b++)
			vq_syrk_tn(block, (uint32_t)k, buf + (size_t)b * block, n,
				   m + (size_t)b * block * block, block);
	}
	vq_free(buf);
	return VQ_OK;
}

/* h, upper triangle, plus damp times the mean of its diagonal, into whole (both triangles).  Of zeros: I. */
static void damped(uint32_t n, const double *h, double damp, double *whole)
{
	double mean = 0;
	uint32_t i, j;

	for (i = 0; i < n; i++)
		mean += h[(size_t)i * n + i] / n;
	for (i = 0; i < n; i++)
		for (j = i; j < n; j++) {
			double add = i != j ? 0 : mean == 0 ? 1 : damp * mean;

			whole[(size_t)i * n + j] = h[(size_t)i * n + j] + add;
			whole[(size_t)j * n + i] = whole[(size_t)i * n + j];
		}
}

/* b: the upper triangle of hx's factor, 0 below. */
static int factor(uint32_t n, const double *hx, double damp, double *b)
{
	uint32_t i, j;

	for (;; damp = damp > 0 ? fmin(10 * damp, 1) : .01) {
		damped(n, hx, damp, b);
		if (vq_chol_factor(n, b) == 0 && isfinite(b[0]))
			break;
		if (!(damp < 1))
			return -1;
	}
	for (i = 0; i < n; i++)
		for (j = 0; j < i; j++)
			b[(size_t)i * n + j] = 0;
	return 0;
}

/* S^(1/2) from the eigenvalues S^2, damped. */
static void roots(uint32_t n, double *s, double damp)
{
	double mean = 0;
	uint32_t i;

	for (i = 0; i < n; i++) {
		s[i] = sqrt(fmax(s[i], 0));
		mean += s[i] / n;
	}
	for (i = 0; i < n; i++)
		s[i] = sqrt(mean > 0 ? s[i] + damp * mean : 1);
}

/* The rows of a become the columns of out, after the Hadamard transform of each column of a: out = (Had a)^T. */
static void mix(uint32_t n, const double *a, float *out)
{
	double scale = 1 / sqrt(n);
	uint32_t i, j;

	for (j = 0; j < n; j++) {
		float *v = out + (size_t)j * n;

		for (i = 0; i < n; i++)
			v[i] = (float)(scale * a[(size_t)i * n + j]);
		vq_fwht(v, n);
	}
}

/* work [3, n, n] */
static int fit_block(uint32_t n, const double *hx, const double *hw, double damp, double *work,
		     float *matrix)
{
	size_t size = (size_t)n * n;
	double *b = work, *t = work + size, *v = work + 2 * size;
	uint32_t i, j;

	if (factor(n, hx, damp, b) < 0)
		return -1;
	damped(n, hw, 0, v);
	memset(t, 0, size * sizeof(*t));
	vq_dgemm_nt(n, n, n, 1, v, n, b, n, t, n); /* hw B^T */
	memset(v, 0, size * sizeof(*v));
	vq_dgemm_nn(n, n, n, 1, b, n, t, n, v, n); /* B hw B^T */
	if (vq_eigen_symmetric(n, v, t) < 0)
		return -1;
	roots(n, t, damp);
	for (i = 0; i < n; i++)
		for (j = 0; j < n; j++)
			v[(size_t)i * n + j] *= t[i];
	vq_solve_upper_t(n, n, b, v); /* S^(1/2) V^T B^-T */
	mix(n, v, matrix);
	return 0;
}

int vq_wush_fit(uint32_t n, uint32_t block, const double *hx, const double *hw, double damp,
		float *matrix, struct vq_err *err)
{
	size_t size = (size_t)block * block;
	long long b, n_blocks = n / block;
	double *work = vq_alloc(3 * size * (size_t)n_blocks, sizeof(*work), err);
	int bad = 0;

	if (!work)
		return VQ_E_SYS;
#pragma omp parallel for schedule(dynamic, 1) reduction(+ : bad)
	for (b = 0; b < n_blocks; b++) {
		size_t at = (size_t)b * size;

		bad += fit_block(block, hx + at, hw + at, damp, work + 3 * at, matrix + at) < 0;
	}
	vq_free(work);
	return bad ? vq_fail(err, VQ_E_DATA,
			     "WUSH: the second moments of %d of %lld blocks of %u inputs cannot be "
			     "factored: activations overflow, or are not finite",
			     bad, n_blocks, block)
		   : VQ_OK;
}
