/* What the linears of one input share in GPTQ: the order of columns, the factor of H, and GPTAQ's and polishing's
 * squares. */
#include "quant/gptq.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/num.h"
#include "kernel/lapack.h"

#define STRIP_ROWS 32u /* rows of P that one job takes */

struct rank {
	double h;
	uint32_t column;
};

static int by_falling_h(const void *a, const void *b)
{
	const struct rank *x = a, *y = b;

	if (x->h != y->h)
		return x->h > y->h ? -1 : 1;
	return x->column < y->column ? -1 : 1;
}

static int order_columns(struct vq_gptq *g, const double *diag, int act_order, struct vq_err *err)
{
	struct rank *r = vq_alloc(g->n, sizeof(*r), err);
	uint32_t i;

	if (!r)
		return VQ_E_SYS;
	for (i = 0; i < g->n; i++)
		r[i] = (struct rank){diag[i], i};
	if (act_order)
		qsort(r, g->n, sizeof(*r), by_falling_h);
	for (i = 0; i < g->n; i++)
		g->perm[i] = r[i].column;
	vq_free(r);
	return VQ_OK;
}

static double upper(const double *h, size_t n, size_t i, size_t j)
{
	return i < j ? h[i * n + j] : h[j * n + i];
}

/* u: H in the order of steps with diag on its diagonal and damping -> U.  -1 when H is not positive definite. */
static int factor(struct vq_gptq *g, const struct vq_hessian *h, const double *diag, double add)
{
	uint32_t n = g->n, i, j;
	int bad = 0;

	for (i = 0; i < n; i++)
		for (j = 0; j < n; j++)
			g->u[(size_t)i * n + j] =
				j > i ? upper(h->h, n, g->perm[i], g->perm[j]) : 0;
	for (i = 0; i < n; i++)
		g->u[(size_t)i * n + i] = diag[g->perm[i]] + add;
		/* One thread works: inside a parallel region OpenBLAS starts no others. */
#pragma omp parallel
#pragma omp single
	bad = vq_chol_factor(n, g->u) < 0 || vq_chol_invert(n, g->u) < 0 ||
	      vq_chol_factor(n, g->u) < 0;
	for (i = 0; i < n && !bad; i++)
		bad = !isfinite(g->u[(size_t)i * n + i]) || !(g->u[(size_t)i * n + i] > 0);
	return bad ? -1 : 0;
}

/* Some rows of P; d and t are work space of [STRIP_ROWS, n]. */
static void make_strip(struct vq_gptq *g, const struct vq_hessian *h, double alpha, uint32_t first,
		       double *d, double *t)
{
	uint32_t n = g->n, rows = n - first < STRIP_ROWS ? n - first : STRIP_ROWS, i, j;

	for (i = 0; i < rows; i++)
		for (j = 0; j < n; j++)
			d[(size_t)i * n + j] = h->d[(size_t)g->perm[first + i] * n + g->perm[j]];
	memset(t, 0, (size_t)rows * n * sizeof(*t));
	vq_dgemm_nt(rows, n, n, alpha, d, n, g->u, n, t, n);
	for (i = 0; i < rows; i++)
		memset(t + (size_t)i * n, 0, (first + i + 1) * sizeof(*t));
	vq_dgemm_nn(rows, n, n, 1, t, n, g->u, n, g->p + (size_t)first * n, n);
}

/* P = alpha striu(D U^T) U, strip by strip: a square of doubles is a gigabyte at 11008 inputs. */
static int make_p(struct vq_gptq *g, const struct vq_hessian *h, double alpha, struct vq_err *err)
{
	long long strip, n_strips = (long long)vq_ceil_div(g->n, STRIP_ROWS);
	size_t size = (size_t)STRIP_ROWS * g->n;
	int failed = 0;

	g->p = vq_calloc((size_t)g->n * g->n, sizeof(*g->p), err);
	if (!g->p)
		return VQ_E_SYS;
#pragma omp parallel
	{
		double *buf = vq_alloc(2 * size, sizeof(*buf), NULL);

		if (!buf) {
#pragma omp atomic write
			failed = 1;
		}
#pragma omp for schedule(static)
		for (strip = 0; strip < n_strips; strip++)
			if (buf)
				make_strip(g, h, alpha, (uint32_t)strip * STRIP_ROWS, buf,
					   buf + size);
		vq_free(buf);
	}
	return failed ? vq_fail(err, VQ_E_SYS, "memory: cannot have %u rows of %u doubles",
				2 * STRIP_ROWS, g->n)
		      : VQ_OK;
}

/* The objective of polishing, in natural order. */
static int make_objective(struct vq_gptq *g, const struct vq_hessian *h, const double *diag,
			  double add, double alpha, struct vq_err *err)
{
	size_t n = g->n, i, j;

	g->h = vq_alloc(n * n, sizeof(*g->h), err);
	g->target = g->h && alpha > 0 ? vq_alloc(n * n, sizeof(*g->target), err) : NULL;
	if (!g->h || (alpha > 0 && !g->target))
		return VQ_E_SYS;
	for (i = 0; i < n; i++)
		for (j = 0; j < n; j++)
			g->h[i * n + j] = i == j ? diag[i] + add : upper(h->h, n, i, j);
	for (i = 0; g->target && i < n * n; i++)
		g->target[i] = g->h[i] + alpha * h->d[i];
	return VQ_OK;
}

int vq_gptq_prepare(struct vq_gptq *g, const struct vq_hessian *h, const struct vq_gptq_opts *o,
		    struct vq_err *err)
{
	size_t n = h->n, i;
	double *diag = vq_alloc(n, sizeof(*diag), err), mean = 0;
	int rc = VQ_E_SYS;

	*g = (struct vq_gptq){.n = h->n, .damp = o->damp, .diag = diag};
	g->perm = vq_alloc(n, sizeof(*g->perm), err);
	g->dead = g->perm ? vq_alloc(n, 1, err) : NULL;
	g->u = g->dead ? vq_alloc(n * n, sizeof(*g->u), err) : NULL;
	if (!diag || !g->u)
		goto out;
	for (i = 0; i < n; i++) {
		g->dead[i] = h->h[i * n + i] == 0;
		diag[i] = g->dead[i] ? 1 : h->h[i * n + i];
		mean += diag[i] / (double)n;
	}
	rc = order_columns(g, diag, o->act_order, err);
	while (rc == VQ_OK && factor(g, h, diag, g->damp * mean) < 0) {
		if (!(g->damp < 1) || !isfinite(mean))
			rc = vq_fail(err, VQ_E_DATA,
				     "GPTQ: the %zu inputs' second moments cannot be factored with "
				     "damping %g: activations overflow, or are not finite",
				     n, g->damp);
		else
			g->damp = g->damp > 0 ? fmin(10 * g->damp, 1) : .01;
	}
	if (rc == VQ_OK && o->alpha > 0)
		rc = make_p(g, h, o->alpha, err);
	if (rc == VQ_OK && o->polish)
		rc = make_objective(g, h, diag, g->damp * mean, o->alpha, err);
out:
	if (rc < 0)
		vq_gptq_free(g);
	return rc;
}

void vq_gptq_free(struct vq_gptq *g)
{
	vq_free(g->perm);
	vq_free(g->dead);
	vq_free(g->diag);
	vq_free(g->u);
	vq_free(g->p);
	vq_free(g->h);
	vq_free(g->target);
	memset(g, 0, sizeof(*g));
}
