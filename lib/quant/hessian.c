/* Second moments of a linear's input. */
#include "quant/hessian.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "base/num.h"
#include "kernel/lapack.h"

/* Rows converted to double at a time, and columns of a job: fixed, so that sums do not depend on threads. */
#define CHUNK 256u
#define TILE  128u

int vq_hessian_new(struct vq_hessian *h, uint32_t n, int cross, struct vq_err *err)
{
	struct vq_hessian t = {.n = n};
	size_t size;

	if (vq_mul_size(&size, n, n) < 0)
		return vq_fail(err, VQ_E_DATA, "Hessian: %u inputs are too many", n);
	t.h = vq_calloc(size, sizeof(double), err);
	t.d = t.h && cross ? vq_calloc(size, sizeof(double), err) : NULL;
	if (!t.h || (cross && !t.d)) {
		vq_hessian_free(&t);
		return VQ_E_SYS;
	}
	*h = t;
	return VQ_OK;
}

void vq_hessian_free(struct vq_hessian *h)
{
	vq_free(h->h);
	vq_free(h->d);
	memset(h, 0, sizeof(*h));
}

/* Rows first..first + w of H, from the diagonal on, and of D. */
static void add_strip(struct vq_hessian *h, uint32_t first, const double *x, const double *diff,
		      uint32_t k)
{
	uint32_t n = h->n, w = n - first < TILE ? n - first : TILE, right = n - first - w;
	double *row = h->h + (size_t)first * n;

	vq_syrk_tn(w, k, x + first, n, row + first, n);
	if (right)
		vq_dgemm_tn(w, right, k, 1, x + first, n, x + first + w, n, row + first + w, n);
	if (h->d)
		vq_dgemm_tn(w, n, k, 1, diff + first, n, x, n, h->d + (size_t)first * n, n);
}

int vq_hessian_add(struct vq_hessian *h, const float *x, const float *x_full, size_t n_rows,
		   struct vq_err *err)
{
	size_t n = h->n, all = CHUNK * n, at, i;
	double *buf = vq_alloc(all * 2, sizeof(double), err), *diff = buf ? buf + all : NULL;
	long long strip, n_strips = (long long)vq_ceil_div(h->n, TILE);

	if (!buf)
		return VQ_E_SYS;
	for (at = 0; at < n_rows; at += CHUNK) {
		size_t rows = n_rows - at < CHUNK ? n_rows - at : CHUNK;

		for (i = 0; i < rows * n; i++) {
			buf[i] = (double)x[at * n + i];
			diff[i] = h->d ? (double)x_full[at * n + i] - buf[i] : 0;
		}
#pragma omp parallel for schedule(dynamic, 1)
		for (strip = 0; strip < n_strips; strip++)
			add_strip(h, (uint32_t)strip * TILE, buf, diff, (uint32_t)rows);
	}
	h->n_rows += n_rows;
	vq_free(buf);
	return VQ_OK;
}

double vq_hessian_cross(const struct vq_hessian *h)
{
	double hh = 0, dd = 0;
	size_t n = h->n, i, j;

	for (i = 0; h->d && i < n; i++)
		for (j = 0; j < n; j++) {
			double v = h->h[i * n + j], d = h->d[i * n + j];

			hh += j > i ? 2 * v * v : v * v; /* the lower triangle is 0 */
			dd += d * d;
		}
	return hh > 0 ? sqrt(dd / hh) : 0;
}
