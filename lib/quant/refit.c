/* Moments and their solution. */
#include "quant/refit.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "base/num.h"
#include "kernel/lapack.h"

/* Rows turned into double at a time, and rows of a product of a job: fixed, so that sums do not depend on threads. */
#define CHUNK 256u
#define TILE  64u

int vq_refit_new(struct vq_refit *r, uint32_t n_in, uint32_t n_out, struct vq_err *err)
{
	struct vq_refit t = {.n_in = n_in, .n_out = n_out};
	int rc = vq_hessian_new(&t.h, n_in, 0, err);

	if (rc < 0)
		return rc;
	t.g = vq_calloc(n_out, n_in * sizeof(double), err);
	if (!t.g) {
		vq_refit_free(&t);
		return VQ_E_SYS;
	}
	*r = t;
	return VQ_OK;
}

void vq_refit_free(struct vq_refit *r)
{
	vq_hessian_free(&r->h);
	vq_free(r->g);
	memset(r, 0, sizeof(*r));
}

enum order { NN, NT, TN };

/* c [m, n] += op(a) op(b) in strips of c's rows; a and c have m rows but for TN, where a is [k, m]. */
static void product(enum order order, uint32_t m, uint32_t n, uint32_t k, const double *a,
		    const double *b, double *c)
{
	long long strip, strips = (long long)vq_ceil_div(m, TILE);

#pragma omp parallel for schedule(dynamic, 1)
	for (strip = 0; strip < strips; strip++) {
		uint32_t at = (uint32_t)strip * TILE, rows = m - at < TILE ? m - at : TILE;
		double *to = c + (size_t)at * n;

		if (order == TN)
			vq_dgemm_tn(rows, n, k, 1, a + at, m, b, n, to, n);
		else if (order == NT)
			vq_dgemm_nt(rows, n, k, 1, a + (size_t)at * k, k, b, k, to, n);
		else
			vq_dgemm_nn(rows, n, k, 1, a + (size_t)at * k, k, b, n, to, n);
	}
}

int vq_refit_add(struct vq_refit *r, const float *x, const float *e, const float *s, uint32_t n,
		 struct vq_err *err)
{
	float *scaled = vq_alloc(CHUNK, r->n_in * sizeof(float), err);
	double *xs = vq_alloc(CHUNK, r->n_in * sizeof(double), err);
	double *es = vq_alloc(CHUNK, r->n_out * sizeof(double), err);
	uint32_t at, i, j, rows;
	int rc = scaled && xs && es ? VQ_OK : VQ_E_SYS;

	for (at = 0; rc >= 0 && at < n; at += rows) {
		rows = n - at < CHUNK ? n - at : CHUNK;
		for (i = 0; i < rows; i++) {
			float root = sqrtf(s[at + i]);

			for (j = 0; j < r->n_in; j++) {
				float v = x[(size_t)(at + i) * r->n_in + j] * root;

				scaled[(size_t)i * r->n_in + j] = v;
				xs[(size_t)i * r->n_in + j] = v;
			}
			for (j = 0; j < r->n_out; j++) {
				double v = (double)e[(size_t)(at + i) * r->n_out + j] * root;

				es[(size_t)i * r->n_out + j] = v;
				r->e2 += v * v;
			}
		}
		rc = vq_hessian_add(&r->h, scaled, NULL, rows, err);
		if (rc >= 0)
			product(TN, r->n_out, r->n_in, rows, es, xs, r->g);
	}
	vq_free(scaled);
	vq_free(xs);
	vq_free(es);
	return rc;
}

void vq_refit_sum(struct vq_refit *r, const struct vq_refit *other)
{
	size_t i;

	for (i = 0; i < (size_t)r->n_in * r->n_in; i++)
		r->h.h[i] += other->h.h[i];
	for (i = 0; i < (size_t)r->n_out * r->n_in; i++)
		r->g[i] += other->g[i];
	r->h.n_rows += other->h.n_rows;
	r->e2 += other->e2;
}

/* The lower triangle from the upper one. */
static void mirror(double *a, uint32_t n)
{
	size_t i, j;

	for (i = 0; i < n; i++)
		for (j = i + 1; j < n; j++)
			a[j * n + i] = a[i * n + j];
}

static double *whole(const struct vq_refit *r, struct vq_err *err)
{
	size_t bytes = (size_t)r->n_in * r->n_in * sizeof(double);
	double *h = vq_alloc(bytes, 1, err);

	if (h) {
		memcpy(h, r->h.h, bytes);
		mirror(h, r->n_in);
	}
	return h;
}

int vq_refit_behind(struct vq_refit *out, const struct vq_refit *r, const float *w, uint32_t n_y,
		    struct vq_err *err)
{
	double *h = whole(r, err), *wd = vq_alloc(n_y, r->n_in * sizeof(double), err);
	double *wh = vq_calloc(n_y, r->n_in * sizeof(double), err);
	struct vq_refit t = {0};
	size_t i;
	int rc = h && wd && wh ? vq_refit_new(&t, n_y, r->n_out, err) : VQ_E_SYS;

	if (rc >= 0) {
		for (i = 0; i < (size_t)n_y * r->n_in; i++)
			wd[i] = (double)w[i];
		product(NN, n_y, r->n_in, r->n_in, wd, h, wh);
		product(NT, n_y, n_y, r->n_in, wh, wd, t.h.h);
		product(NT, r->n_out, n_y, r->n_in, r->g, wd, t.g);
		t.e2 = r->e2;
		*out = t;
	}
	vq_free(h);
	vq_free(wd);
	vq_free(wh);
	return rc;
}

/* One thread of a region of its own: see kernel/lapack.h. */
static int invert(double *a, uint32_t n)
{
	int bad = 0;

#pragma omp parallel
#pragma omp single
	bad = vq_chol_factor(n, a) < 0 || vq_chol_invert(n, a) < 0;
	mirror(a, n);
	return bad ? -1 : 0;
}

int vq_refit_solve(const struct vq_refit *r, double ridge, double *change, struct vq_err *err)
{
	double *a = whole(r, err);
	size_t n = r->n_in, i;
	int rc = VQ_OK;

	if (!a)
		return VQ_E_SYS;
	for (i = 0; i < n; i++) /* an input that is always 0 keeps its weight */
		a[i * n + i] = a[i * n + i] > 0 ? a[i * n + i] * (1 + ridge) : 1;
	if (invert(a, r->n_in) < 0) {
		rc = vq_fail(err, VQ_E_DATA,
			     "refit: the second moments of %u inputs cannot be inverted with ridge "
			     "%g",
			     r->n_in, ridge);
	} else {
		memset(change, 0, (size_t)r->n_out * n * sizeof(double));
		product(NN, r->n_out, r->n_in, r->n_in, r->g, a, change);
	}
	vq_free(a);
	return rc;
}

int vq_refit_fold(const double *x, const float *w, uint32_t n_out, uint32_t n_y, uint32_t n_in,
		  double *out, struct vq_err *err)
{
	double *wd = vq_alloc(n_y, n_in * sizeof(double), err);
	size_t i;

	if (!wd)
		return VQ_E_SYS;
	for (i = 0; i < (size_t)n_y * n_in; i++)
		wd[i] = (double)w[i];
	memset(out, 0, (size_t)n_out * n_in * sizeof(double));
	product(NN, n_out, n_in, n_y, x, wd, out);
	vq_free(wd);
	return VQ_OK;
}

int vq_refit_error(const struct vq_refit *r, const double *change, double *error,
		   struct vq_err *err)
{
	double *h = whole(r, err), *ch = vq_calloc(r->n_out, r->n_in * sizeof(double), err), sum;
	size_t i;
	int rc = h && ch ? VQ_OK : VQ_E_SYS;

	if (rc >= 0) {
		product(NN, r->n_out, r->n_in, r->n_in, change, h, ch);
		for (i = 0, sum = r->e2; i < (size_t)r->n_out * r->n_in; i++)
			sum += change[i] * (ch[i] - 2 * r->g[i]);
		*error = r->e2 > 0 ? sum / r->e2 : 0;
	}
	vq_free(h);
	vq_free(ch);
	return rc;
}
