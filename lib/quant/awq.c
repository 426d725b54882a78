/* AWQ on matrices. */
#include "quant/awq.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "base/num.h"
#include "kernel/lapack.h"
#include "quant/rtn.h"

#define TILE_ROWS 16u /* rows of a weight that one job takes */

/* --- grids --- */

static void round_authors(uint32_t bits, const double *w, uint32_t n, double *q)
{
	double top = (double)((1u << bits) - 1), min = w[0], max = w[0], s, z;
	uint32_t i;

	for (i = 1; i < n; i++) {
		min = w[i] < min ? w[i] : min;
		max = w[i] > max ? w[i] : max;
	}
	s = fmax(max - min, 1e-5) / top;
	z = fmin(fmax(-rint(min / s), 0), top);
	for (i = 0; i < n; i++)
		q[i] = (fmin(fmax(rint(w[i] / s) + z, 0), top) - z) * s;
}

static void round_stream(const struct vq_wgrid *g, const double *w, uint32_t n, double *q)
{
	float min = 0, max = 0;
	struct vq_wstep p;
	uint32_t i;

	for (i = 0; i < n; i++) {
		min = fminf(min, (float)w[i]);
		max = fmaxf(max, (float)w[i]);
	}
	p = vq_grid_step(g, min, max, 1);
	for (i = 0; i < n; i++)
		q[i] = (double)(p.s * ((float)vq_grid_code(g, p, (float)w[i]) - p.z));
}

/* One group. */
static void round_group(const struct vq_awq_opts *o, const double *w, uint32_t n, double *q)
{
	if (o->rule == VQ_AWQ_AUTHORS)
		round_authors(o->grid.bits, w, n, q);
	else
		round_stream(&o->grid, w, n, q);
}

/* Inputs of group j are a..b. */
static void group_at(const struct vq_wgrid *g, uint32_t n, uint32_t j, uint32_t *a, uint32_t *b)
{
	*a = j * g->group;
	*b = j + 1 == vq_grid_n_groups(g, n) ? n : *a + g->group;
}

void vq_awq_round(const struct vq_awq_opts *o, const double *w, uint32_t rows, uint32_t n,
		  double *q)
{
	uint32_t n_groups = vq_grid_n_groups(&o->grid, n), row, j, a, b;

	for (row = 0; row < rows; row++)
		for (j = 0; j < n_groups; j++) {
			size_t at = (size_t)row * n;

			group_at(&o->grid, n, j, &a, &b);
			round_group(o, w + at + a, b - a, q + at + a);
		}
}

/* --- scales --- */

void vq_awq_scales(const double *xm, const double *wm, uint32_t n, uint32_t r, double *s)
{
	double ratio = (double)r / VQ_AWQ_RATIOS, min = INFINITY, max = 0, norm;
	uint32_t j;

	for (j = 0; j < n; j++) {
		double v = pow(xm[j], ratio);

		if (wm)
			v /= pow(wm[j], 1 - ratio) + 1e-4;
		s[j] = fmax(v, 1e-4);
		min = fmin(min, s[j]);
		max = fmax(max, s[j]);
	}
	norm = sqrt(max * min);
	for (j = 0; j < n; j++) {
		s[j] /= norm;
		s[j] = isfinite(s[j]) ? s[j] : 1;
	}
}

int vq_awq_search(const double *xm, const double *wm, uint32_t n, vq_awq_loss *f, void *ctx,
		  double *s, struct vq_awq_choice *c, struct vq_err *err)
{
	double best = INFINITY;
	uint32_t r;
	int rc;

	for (r = 0; r < VQ_AWQ_RATIOS; r++) {
		vq_awq_scales(xm, wm, n, r, s);
		rc = f(ctx, s, &c->loss[r], err);
		if (rc < 0)
			return rc;
		if (c->loss[r] < best) {
			best = c->loss[r];
			c->ratio = r;
		}
	}
	if (!isfinite(best))
		return vq_fail(err, VQ_E_DATA, "AWQ: no scales give a finite output");
	vq_awq_scales(xm, wm, n, c->ratio, s);
	return VQ_OK;
}

/* --- clips --- */

/* Sum of squares. */
static double squares(const double *y, uint32_t n)
{
	double sum = 0;
	uint32_t i;

	for (i = 0; i < n; i++)
		sum += y[i] * y[i];
	return sum;
}

static double largest(const double *w, uint32_t n)
{
	double max = 0;
	uint32_t i;

	for (i = 0; i < n; i++)
		max = fmax(max, fabs(w[i]));
	return max;
}

/* A group of one row: what each clip changes, d [CLIPS, n]. */
static void clip_errors(const struct vq_awq_opts *o, const double *w, uint32_t n, double max,
			double *d)
{
	uint32_t i, k;

	for (k = 0; k < VQ_AWQ_CLIPS; k++, d += n) {
		double m = max * (1 - (double)k / VQ_AWQ_RATIOS);

		for (i = 0; i < n; i++)
			d[i] = fmin(fmax(w[i], -m), m);
		round_group(o, d, n, d);
		for (i = 0; i < n; i++)
			d[i] -= w[i];
	}
}

int vq_awq_clip(const struct vq_awq_opts *o, const double *w, uint32_t rows, uint32_t n,
		const double *x, uint32_t tokens, double *m, struct vq_err *err)
{
	uint32_t n_groups = vq_grid_n_groups(&o->grid, n), j, a, b, row, k;
	size_t wide = n_groups == 1 ? n : o->grid.group, tried = (size_t)rows * VQ_AWQ_CLIPS;
	double *d = vq_alloc(tried * (wide + tokens), sizeof(*d), err), *y = d + tried * wide;

	if (!d)
		return VQ_E_SYS;
	for (j = 0; j < n_groups; j++) {
		group_at(&o->grid, n, j, &a, &b);
		for (row = 0; row < rows; row++) {
			const double *g = w + (size_t)row * n + a;

			m[(size_t)row * n_groups + j] = largest(g, b - a);
			clip_errors(o, g, b - a, m[(size_t)row * n_groups + j],
				    d + (size_t)row * VQ_AWQ_CLIPS * (b - a));
		}
		memset(y, 0, tried * tokens * sizeof(*y));
		vq_dgemm_nt((uint32_t)tried, tokens, b - a, 1, d, b - a, x + a, n, y, tokens);
		for (row = 0; row < rows; row++) {
			double max = m[(size_t)row * n_groups + j], best = INFINITY;

			for (k = 0; k < VQ_AWQ_CLIPS; k++) {
				double e = squares(y + ((size_t)row * VQ_AWQ_CLIPS + k) * tokens,
						   tokens);

				if (e < best) {
					best = e;
					m[(size_t)row * n_groups + j] =
						max * (1 - (double)k / VQ_AWQ_RATIOS);
				}
			}
		}
	}
	vq_free(d);
	return VQ_OK;
}

/* --- whole weights --- */

void vq_awq_rows(const struct vq_awq_weight *w, uint32_t first, uint32_t rows, float *to)
{
	struct vq_tensor t = {w->type, 2, {w->n_out, w->n_in}, w->w};
	uint32_t row, i;

	/* The type is one that converts: this cannot fail. */
	(void)!vq_tensor_to_f32(&t, (size_t)first * w->n_in, (size_t)rows * w->n_in, to, NULL);
	for (row = 0; row < rows; row++, to += w->n_in) {
		for (i = 0; w->in && i < w->n_in; i++)
			to[i] *= w->in[i];
		for (i = 0; w->out && i < w->n_in; i++)
			to[i] /= w->out[first + row];
	}
}

/* One job's buffers: some rows as float, as double, and bounds. */
struct tile {
	float *f;
	double *d, *m;
	uint32_t first, rows;
};

static int tile_new(struct tile *t, const struct vq_wgrid *g, uint32_t n)
{
	t->f = vq_alloc_f32((size_t)TILE_ROWS * n, NULL);
	t->d = vq_alloc((size_t)TILE_ROWS * n, sizeof(double), NULL);
	t->m = vq_alloc((size_t)TILE_ROWS * vq_grid_n_groups(g, n), sizeof(double), NULL);
	return t->f && t->d && t->m ? 0 : -1;
}

static void tile_free(struct tile *t)
{
	vq_free(t->f);
	vq_free(t->d);
	vq_free(t->m);
}

static void tile_load(struct tile *t, const struct vq_awq_weight *w, long long job)
{
	size_t i;

	t->first = (uint32_t)job * TILE_ROWS;
	t->rows = w->n_out - t->first < TILE_ROWS ? w->n_out - t->first : TILE_ROWS;
	vq_awq_rows(w, t->first, t->rows, t->f);
	for (i = 0; i < (size_t)t->rows * w->n_in; i++)
		t->d[i] = (double)t->f[i];
}

static int no_memory(uint32_t n, struct vq_err *err)
{
	return vq_fail(err, VQ_E_SYS, "memory: cannot have %u rows of %u weights", TILE_ROWS, n);
}

int vq_awq_fake(const struct vq_awq_opts *o, const struct vq_awq_weight *w, float *q,
		struct vq_err *err)
{
	long long job, n_jobs = (long long)vq_ceil_div(w->n_out, TILE_ROWS);
	int failed = 0;

#pragma omp parallel
	{
		struct tile t = {0};
		int bad = tile_new(&t, &o->grid, w->n_in) < 0;
		size_t i;

		if (bad) {
#pragma omp atomic write
			failed = 1;
		}
#pragma omp for schedule(dynamic, 1)
		for (job = 0; job < n_jobs; job++) {
			if (bad)
				continue;
			tile_load(&t, w, job);
			vq_awq_round(o, t.d, t.rows, w->n_in, t.d);
			for (i = 0; i < (size_t)t.rows * w->n_in; i++)
				q[(size_t)t.first * w->n_in + i] = (float)t.d[i];
		}
		tile_free(&t);
	}
	return failed ? no_memory(w->n_in, err) : VQ_OK;
}

void vq_awq_input_mean(const float *x, size_t n_rows, uint32_t n, double *xm)
{
	long long j;

#pragma omp parallel for schedule(static)
	for (j = 0; j < (long long)vq_ceil_div(n, 64); j++) {
		uint32_t a = (uint32_t)j * 64, b = n - a < 64 ? n : a + 64, i;
		size_t row;

		for (i = a; i < b; i++)
			xm[i] = 0;
		for (row = 0; row < n_rows; row++)
			for (i = a; i < b; i++)
				xm[i] += fabs((double)x[row * n + i]);
		for (i = a; i < b; i++)
			xm[i] /= (double)n_rows;
	}
}

int vq_awq_weight_mean(const struct vq_wgrid *g, const struct vq_awq_weight *w, uint32_t n_weights,
		       double *wm, struct vq_err *err)
{
	uint32_t n = w->n_in, n_groups = vq_grid_n_groups(g, n), k, row, j, i, a, b;
	float *buf = vq_alloc_f32(n, err);
	size_t n_rows = 0;

	if (!buf)
		return VQ_E_SYS;
	memset(wm, 0, n * sizeof(*wm));
	for (k = 0; k < n_weights; k++)
		for (row = 0; row < w[k].n_out; row++, n_rows++) {
			vq_awq_rows(&w[k], row, 1, buf);
			for (j = 0; j < n_groups; j++) {
				double max = 0;

				group_at(g, n, j, &a, &b);
				for (i = a; i < b; i++)
					max = fmax(max, (double)fabsf(buf[i]));
				for (i = a; i < b; i++)
					wm[i] += (double)fabsf(buf[i]) / (max + 1e-6);
			}
		}
	for (i = 0; i < n; i++)
		wm[i] /= (double)n_rows;
	vq_free(buf);
	return VQ_OK;
}

double *vq_awq_tokens(const float *x, size_t n_rows, uint32_t n, const float *s, uint32_t *n_tokens,
		      struct vq_err *err)
{
	size_t step = n_rows / VQ_AWQ_TOKENS ? n_rows / VQ_AWQ_TOKENS : 1;
	size_t tokens = (n_rows + step - 1) / step, t;
	double *out = vq_alloc(tokens * n, sizeof(*out), err);
	uint32_t i;

	for (t = 0; out && t < tokens; t++)
		for (i = 0; i < n; i++)
			out[t * n + i] =
				(double)(s ? x[t * step * n + i] / s[i] : x[t * step * n + i]);
	*n_tokens = (uint32_t)tokens;
	return out;
}

struct sums {
	double error2, weight2, clip;
};

/* Clamps the float rows of t to the bounds that its doubles ask for. */
static int clip_tile(struct tile *t, const struct vq_awq_opts *o, uint32_t n, const double *x,
		     uint32_t tokens, double *clip)
{
	uint32_t n_groups = vq_grid_n_groups(&o->grid, n), row, j, a, b, i;

	if (vq_awq_clip(o, t->d, t->rows, n, x, tokens, t->m, NULL) < 0)
		return -1;
	for (row = 0; row < t->rows; row++)
		for (j = 0; j < n_groups; j++) {
			double m = t->m[(size_t)row * n_groups + j], max;

			group_at(&o->grid, n, j, &a, &b);
			max = largest(t->d + (size_t)row * n + a, b - a);
			*clip += max > 0 ? m / max : 1;
			for (i = a; i < b; i++) {
				float *w = t->f + (size_t)row * n + i;

				*w = fminf(fmaxf(*w, (float)-m), (float)m);
			}
		}
	return 0;
}

static int fit_tile(struct tile *t, struct vq_codes *c, const struct vq_awq_opts *o,
		    const double *x, uint32_t tokens, struct sums *sum)
{
	uint32_t n = c->n_in;
	struct vq_codes v = vq_codes_rows(c, t->first, t->rows);
	size_t i;

	sum->clip = x ? 0 : (double)t->rows * vq_grid_n_groups(&o->grid, n);
	if (x && clip_tile(t, o, n, x, tokens, &sum->clip) < 0)
		return -1;
	vq_grid_fit(&v, t->f, 1);
	vq_grid_dequant(&v, t->f);
	for (i = 0; i < (size_t)t->rows * n; i++) {
		double d = (double)t->f[i] - t->d[i];

		sum->error2 += d * d;
		sum->weight2 += t->d[i] * t->d[i];
	}
	return 0;
}

int vq_awq_fit(struct vq_codes *c, const struct vq_awq_weight *w, const double *x, uint32_t tokens,
	       double *error, double *clip, struct vq_err *err)
{
	const struct vq_awq_opts o = {c->grid, VQ_AWQ_STREAM};
	long long job, n_jobs = (long long)vq_ceil_div(w->n_out, TILE_ROWS);
	struct sums *part = vq_calloc((size_t)n_jobs, sizeof(*part), err), all = {0, 0, 0};
	int failed = 0;

	if (!part)
		return VQ_E_SYS;
#pragma omp parallel
	{
		struct tile t = {0};
		int bad = tile_new(&t, &o.grid, w->n_in) < 0;

#pragma omp for schedule(dynamic, 1)
		for (job = 0; job < n_jobs; job++) {
			if (!bad)
				tile_load(&t, w, job);
			if (bad || fit_tile(&t, c, &o, x, tokens, &part[job]) < 0) {
#pragma omp atomic write
				failed = 1;
			}
		}
		tile_free(&t);
	}
	for (job = 0; job < n_jobs; job++) {
		all.error2 += part[job].error2;
		all.weight2 += part[job].weight2;
		all.clip += part[job].clip;
	}
	*error = all.weight2 > 0 ? all.error2 / all.weight2 : 0;
	*clip = all.clip / ((double)w->n_out * vq_grid_n_groups(&c->grid, w->n_in));
	vq_free(part);
	return failed ? no_memory(w->n_in, err) : VQ_OK;
}
