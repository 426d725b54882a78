/* GPTQ on matrices. */
#include "quant/gptq.h"

#include <math.h>

#include "base/mem.h"
#include "base/num.h"
#include "kernel/lapack.h"
#include "quant/gptq_code.h"

#define TILE_ROWS 32u /* rows of a weight that one job takes */

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

static double step_error(const struct vq_gptq_opts *o, struct vq_gptq_step s, const double *w,
			 const double *diag, uint32_t n)
{
	double sum = 0;
	uint32_t i;

	for (i = 0; i < n; i++) {
		double d = s.s * ((double)vq_gptq_code(&o->grid, s, w[i]) - s.z) - w[i];

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
		uint8_t code = vq_gptq_code(&r->o->grid, *s, was);

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
