/* GPTQ on matrices. */
#include "quant/gptq.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/num.h"
#include "kernel/lapack.h"

#define TILE_ROWS 32u /* rows of a weight, or of P, that one job takes */

/* --- what the linears share --- */

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

/* Some rows of P; d and t are work space of [TILE_ROWS, n]. */
static void make_strip(struct vq_gptq *g, const struct vq_hessian *h, double alpha, uint32_t first,
		       double *d, double *t)
{
	uint32_t n = g->n, rows = n - first < TILE_ROWS ? n - first : TILE_ROWS, i, j;

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
	long long strip, n_strips = (long long)vq_ceil_div(g->n, TILE_ROWS);
	size_t size = (size_t)TILE_ROWS * g->n;
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
				make_strip(g, h, alpha, (uint32_t)strip * TILE_ROWS, buf,
					   buf + size);
		vq_free(buf);
	}
	return failed ? vq_fail(err, VQ_E_SYS, "memory: cannot have %u rows of %u doubles",
				2 * TILE_ROWS, g->n)
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

/* --- grids --- */

static struct vq_gptq_step authors_step(const struct vq_wgrid *grid, double min, double max)
{
	double top = (double)((1u << grid->bits) - 1);
	struct vq_gptq_step p;

	if (grid->sym) {
		max = fmax(-min, max);
		min = min < 0 ? -max : min;
	}
	if (min == 0 && max == 0) {
		min = -1;
		max = 1;
	}
	p.s = (max - min) / top;
	p.z = grid->sym ? (top + 1) / 2 : rint(-min / p.s);
	return p;
}

static struct vq_gptq_step make_step(const struct vq_gptq_opts *o, double min, double max,
				     double clip)
{
	struct vq_wstep p;

	if (o->rule == VQ_GPTQ_AUTHORS)
		return authors_step(&o->grid, clip * min, clip * max);
	p = vq_grid_step(&o->grid, (float)min, (float)max, (float)clip);
	return (struct vq_gptq_step){(double)p.s, (double)p.z};
}

static uint8_t code_of(const struct vq_wgrid *grid, struct vq_gptq_step p, double w)
{
	double top = (double)((1u << grid->bits) - 1), u;

	if (p.s == 0)
		return (uint8_t)p.z;
	u = rint(w / p.s) + p.z;
	u = u > 0 ? u : 0;
	return (uint8_t)(u < top ? u : top);
}

static double step_error(const struct vq_gptq_opts *o, struct vq_gptq_step s, const double *w,
			 const double *diag, uint32_t n)
{
	double sum = 0;
	uint32_t i;

	for (i = 0; i < n; i++) {
		double d = s.s * ((double)code_of(&o->grid, s, w[i]) - s.z) - w[i];

		sum += diag[i] * d * d;
	}
	return sum;
}

#define CLIPS     25
#define CLIP_STEP .02

/* The grid of weights w[0..n), which lie in one group, in natural order as diag. */
static struct vq_gptq_step fit_step(const struct vq_gptq_opts *o, const double *w,
				    const double *diag, uint32_t n)
{
	double min = 0, max = 0, least, e;
	struct vq_gptq_step best, s;
	uint32_t i;

	for (i = 0; i < n; i++) {
		min = w[i] < min ? w[i] : min;
		max = w[i] > max ? w[i] : max;
	}
	best = make_step(o, min, max, 1);
	if (!o->clip)
		return best;
	least = step_error(o, best, w, diag, n);
	for (i = 1; i <= CLIPS; i++) {
		s = make_step(o, min, max, 1 - i * CLIP_STEP);
		e = step_error(o, s, w, diag, n);
		if (e < least) {
			least = e;
			best = s;
		}
	}
	return best;
}

/* --- rows --- */

struct rows {
	const struct vq_gptq *g;
	const struct vq_gptq_opts *o;
	uint32_t rows, group, n_groups;
	double *w;       /* [rows, n] in the order of steps */
	double *e, *old; /* [rows, block] errors; weights before rounding */
	uint8_t *codes;
	struct vq_gptq_step *steps;
	double loss;
};

static uint32_t group_end(const struct rows *r, uint32_t first)
{
	return r->g->n - first < r->group ? r->g->n : first + r->group;
}

/* Grids of the groups that begin in columns first..end, from the weights as they are. */
static void fit_groups(struct rows *r, uint32_t first, uint32_t end)
{
	uint32_t n = r->g->n, c, row;

	for (c = vq_ceil_div(first, r->group) * r->group; c < end; c += r->group)
		for (row = 0; row < r->rows; row++)
			r->steps[(size_t)row * r->n_groups + c / r->group] =
				fit_step(r->o, r->w + (size_t)row * n + c, r->g->diag + c,
					 group_end(r, c) - c);
}

/* Rounds column c, and gives its error to the columns up to end. */
static void round_column(struct rows *r, uint32_t c, uint32_t first, uint32_t end)
{
	uint32_t n = r->g->n, row, j, block = r->o->block, column = r->g->perm[c];
	const double *u = r->g->u + (size_t)c * n;
	const double *p = r->g->p ? r->g->p + (size_t)c * n : NULL;

	for (row = 0; row < r->rows; row++) {
		double *w = r->w + (size_t)row * n, was = w[c], e;
		const struct vq_gptq_step *s =
			&r->steps[(size_t)row * r->n_groups + column / r->group];
		uint8_t code = code_of(&r->o->grid, *s, was);

		r->codes[(size_t)row * n + column] = code;
		e = (was - s->s * ((double)code - s->z)) / u[c];
		r->loss += e * e / 2;
		for (j = c; j < end; j++)
			w[j] -= e * u[j];
		for (j = c + 1; p && j < end; j++)
			w[j] += was * p[j];
		r->e[(size_t)row * block + c - first] = e;
		r->old[(size_t)row * block + c - first] = was;
	}
}

/* A block ends where a group does, where it can: its groups' ranges are then up to date. */
static uint32_t block_end(const struct rows *r, uint32_t first)
{
	uint32_t n = r->g->n, end = n - first < r->o->block ? n : first + r->o->block;
	uint32_t cut = end / r->group * r->group;

	return end < n && cut > first ? cut : end;
}

static void round_block(struct rows *r, uint32_t first, uint32_t end)
{
	uint32_t n = r->g->n, block = r->o->block, c;
	size_t at = (size_t)first * n + end;

	if (r->o->stale && !r->o->act_order)
		fit_groups(r, first, end);
	for (c = first; c < end; c++) {
		if (!r->o->stale && !r->o->act_order)
			fit_groups(r, c, c + 1);
		round_column(r, c, first, end);
	}
	if (end == n)
		return;
	vq_dgemm_nn(r->rows, n - end, end - first, -1, r->e, block, r->g->u + at, n, r->w + end, n);
	if (r->g->p)
		vq_dgemm_nn(r->rows, n - end, end - first, 1, r->old, block, r->g->p + at, n,
			    r->w + end, n);
}

int vq_gptq_rows(const struct vq_gptq *g, const struct vq_gptq_opts *o, const double *w,
		 uint32_t rows, uint8_t *codes, struct vq_gptq_step *steps, double *loss,
		 struct vq_err *err)
{
	size_t n = g->n, per = n + 2 * (size_t)o->block, i;
	struct rows r = {.g = g, .o = o, .rows = rows, .codes = codes, .steps = steps};
	uint32_t first, end, row;
	double *buf = vq_alloc(rows * per, sizeof(*buf), err);

	if (!buf)
		return VQ_E_SYS;
	r.w = buf;
	r.e = buf + rows * n;
	r.old = r.e + (size_t)rows * o->block;
	r.n_groups = vq_grid_n_groups(&o->grid, g->n);
	r.group = r.n_groups == 1 ? g->n : o->grid.group;
	for (row = 0; row < rows; row++)
		for (i = 0; i < n; i++)
			r.w[row * n + i] = g->dead[i] ? 0 : w[row * n + i];
	if (o->act_order) {
		fit_groups(&r, 0, g->n);
		for (row = 0; row < rows; row++)
			for (i = 0; i < n; i++)
				r.w[row * n + i] =
					g->dead[g->perm[i]] ? 0 : w[row * n + g->perm[i]];
	}
	for (first = 0; first < g->n; first = end) {
		end = block_end(&r, first);
		round_block(&r, first, end);
	}
	*loss += r.loss;
	vq_free(buf);
	return o->polish ? vq_gptq_polish(g, o, w, rows, codes, steps, err) : VQ_OK;
}

/* --- polish --- */

/* One row: b = W H_target, gap = b - Q H. */
static void polish_row(const struct vq_gptq *g, const struct vq_gptq_opts *o, uint8_t *codes,
		       const struct vq_gptq_step *steps, uint32_t group, double *gap)
{
	uint32_t n = g->n, round, i, j, changed = 1;

	for (round = 0; round < o->polish && changed; round++)
		for (i = 0, changed = 0; i < n; i++) {
			const double *h = g->h + (size_t)i * n;
			struct vq_gptq_step s = steps[i / group];
			double q = s.s * ((double)codes[i] - s.z), step;
			uint8_t code = code_of(&o->grid, s, q + gap[i] / h[i]);

			if (code == codes[i])
				continue;
			step = s.s * ((double)code - (double)codes[i]);
			codes[i] = code;
			changed = 1;
			for (j = 0; j < n; j++)
				gap[j] -= step * h[j];
		}
}

int vq_gptq_polish(const struct vq_gptq *g, const struct vq_gptq_opts *o, const double *w,
		   uint32_t rows, uint8_t *codes, const struct vq_gptq_step *steps,
		   struct vq_err *err)
{
	size_t n = g->n, i, row;
	uint32_t n_groups = vq_grid_n_groups(&o->grid, g->n);
	uint32_t group = n_groups == 1 ? g->n : o->grid.group;
	double *buf = vq_calloc(rows * n, 2 * sizeof(*buf), err),
	       *gap = buf ? buf + rows * n : NULL;

	if (!buf)
		return VQ_E_SYS;
	for (row = 0; row < rows; row++)
		for (i = 0; i < n; i++)
			buf[row * n + i] = g->dead[i] ? 0 : w[row * n + i];
	vq_dgemm_nn(rows, g->n, g->n, 1, buf, n, g->target ? g->target : g->h, n, gap, n);
	for (row = 0; row < rows; row++)
		for (i = 0; i < n; i++) {
			struct vq_gptq_step s = steps[row * n_groups + i / group];

			buf[row * n + i] = s.s * ((double)codes[row * n + i] - s.z);
		}
	vq_dgemm_nn(rows, g->n, g->n, -1, buf, n, g->h, n, gap, n);
	for (row = 0; row < rows; row++)
		polish_row(g, o, codes + row * n, steps + row * n_groups, group, gap + row * n);
	vq_free(buf);
	return VQ_OK;
}

/* --- whole weights --- */

struct sums {
	double loss, error2, weight2;
};

/* The steps of some rows into c, and how far the values are from w. */
static void store(struct vq_codes *c, uint32_t first, uint32_t rows, const double *w,
		  const struct vq_gptq_step *steps, struct sums *sum)
{
	uint32_t n_groups = vq_grid_n_groups(&c->grid, c->n_in);
	uint32_t group = n_groups == 1 ? c->n_in : c->grid.group, row, i;
	size_t at = (size_t)first * n_groups, k;

	for (k = 0; k < (size_t)rows * n_groups; k++) {
		c->scale[at + k] = vq_f32_to_f16((float)steps[k].s);
		if (c->zero)
			c->zero[at + k] = (uint8_t)steps[k].z;
	}
	for (row = 0; row < rows; row++)
		for (i = 0; i < c->n_in; i++) {
			const struct vq_gptq_step *s = &steps[(size_t)row * n_groups + i / group];
			double was = w[(size_t)row * c->n_in + i], d;

			d = s->s * ((double)c->codes[(size_t)(first + row) * c->n_in + i] - s->z) -
			    was;
			sum->error2 += d * d;
			sum->weight2 += was * was;
		}
}

static int fit_tile(struct vq_codes *c, const struct vq_tensor *t, uint32_t first,
		    const struct vq_gptq *g, const struct vq_gptq_opts *o, struct sums *sum)
{
	uint32_t rows = c->n_out - first < TILE_ROWS ? c->n_out - first : TILE_ROWS;
	size_t n = (size_t)rows * c->n_in, i;
	double *w = vq_alloc(n, sizeof(*w), NULL);
	float *buf = w ? vq_alloc_f32(n, NULL) : NULL;
	struct vq_gptq_step *steps =
		buf ? vq_alloc((size_t)rows * vq_grid_n_groups(&c->grid, c->n_in), sizeof(*steps),
			       NULL)
		    : NULL;
	int rc = steps ? VQ_OK : VQ_E_SYS;

	if (rc == VQ_OK)
		rc = vq_tensor_to_f32(t, (size_t)first * c->n_in, n, buf, NULL);
	for (i = 0; rc == VQ_OK && i < n; i++)
		w[i] = (double)buf[i];
	if (rc == VQ_OK)
		rc = vq_gptq_rows(g, o, w, rows, c->codes + (size_t)first * c->n_in, steps,
				  &sum->loss, NULL);
	if (rc == VQ_OK)
		store(c, first, rows, w, steps, sum);
	vq_free(w);
	vq_free(buf);
	vq_free(steps);
	return rc;
}

int vq_gptq_fit(struct vq_codes *c, const void *w, enum vq_dtype type, const struct vq_gptq *g,
		const struct vq_gptq_opts *o, double *loss, double *error, struct vq_err *err)
{
	struct vq_tensor t = {type, 2, {c->n_out, c->n_in}, w};
	long long tile, n_tiles = (long long)vq_ceil_div(c->n_out, TILE_ROWS);
	struct sums *part = vq_calloc((size_t)n_tiles, sizeof(*part), err), all = {0, 0, 0};
	int failed = 0;

	if (!part)
		return VQ_E_SYS;
#pragma omp parallel for schedule(dynamic, 1)
	for (tile = 0; tile < n_tiles; tile++)
		if (fit_tile(c, &t, (uint32_t)tile * TILE_ROWS, g, o, part + tile) < 0) {
#pragma omp atomic write
			failed = 1;
		}
	for (tile = 0; tile < n_tiles; tile++) {
		all.loss += part[tile].loss;
		all.error2 += part[tile].error2;
		all.weight2 += part[tile].weight2;
	}
	*loss = all.loss;
	*error = all.weight2 > 0 ? all.error2 / all.weight2 : 0;
	vq_free(part);
	if (failed)
		return vq_fail(err, VQ_E_SYS, "memory: cannot have %u rows of %u weights",
			       TILE_ROWS, c->n_in);
	return VQ_OK;
}
