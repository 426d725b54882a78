/* quant/gptq against vectors.json, which tests/vectors/ref.py made and which agrees with the authors' code
 * (IST-DASLab/gptq; for P, Intelligent-Computing-Lab-Panda/GPTAQ), and its invariants. */
#include <math.h>
#include <omp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/mem.h"
#include "base/rng.h"
#include "quant/gptq.h"
#include "quant/rtn.h"
#include "matrix.h"
#include "vectors.h"

/* --- fixtures --- */

static struct matrix random_matrix(uint32_t rows, uint32_t cols, uint64_t seed)
{
	struct matrix m = new_matrix(rows, cols);
	struct vq_rng r = vq_rng_new(seed, "test");
	uint32_t i;

	for (i = 0; i < rows * cols; i++)
		m.a[i] = (double)(float)vq_rng_normal(r, i);
	return m;
}

/* The second moments of x [rows, n] and what is missing from x_full, by their definition. */
static struct vq_hessian moments(const struct matrix *x, const struct matrix *x_full)
{
	struct vq_hessian h;
	uint32_t n = x->cols, i, j, t;

	assert_int_equal(vq_hessian_new(&h, n, x_full != NULL, NULL), VQ_OK);
	for (i = 0; i < n; i++)
		for (j = 0; j < n; j++)
			for (t = 0; t < x->rows; t++) {
				double b = x->a[(size_t)t * n + j], a = x->a[(size_t)t * n + i];

				if (j >= i)
					h.h[(size_t)i * n + j] += a * b;
				if (x_full)
					h.d[(size_t)i * n + j] +=
						(x_full->a[(size_t)t * n + i] - a) * b;
			}
	return h;
}

static struct vq_hessian hessian_of(const struct matrix *full)
{
	struct vq_hessian h;
	uint32_t n = full->cols, i, j;

	assert_int_equal(vq_hessian_new(&h, n, 0, NULL), VQ_OK);
	for (i = 0; i < n; i++)
		for (j = i; j < n; j++)
			h.h[(size_t)i * n + j] = full->a[(size_t)i * n + j];
	return h;
}

static struct vq_gptq_opts authors(uint32_t bits, uint32_t group, int sym)
{
	return (struct vq_gptq_opts){
		.grid = {bits, group, sym}, .rule = VQ_GPTQ_AUTHORS, .damp = .01, .block = 128};
}

struct result {
	uint32_t n;
	uint8_t *codes;
	struct vq_gptq_step *steps;
	double loss;
	struct vq_gptq g;
};

static struct result solve(const struct matrix *w, const struct vq_hessian *h,
			   const struct vq_gptq_opts *o)
{
	struct result r = {.n = w->rows * w->cols};
	struct vq_err err = {0};

	r.codes = vq_alloc(r.n, 1, NULL);
	r.steps = vq_alloc(r.n, sizeof(*r.steps), NULL);
	assert_int_equal(vq_gptq_prepare(&r.g, h, o, &err), VQ_OK);
	assert_int_equal(vq_gptq_rows(&r.g, o, w->a, w->rows, r.codes, r.steps, &r.loss, &err),
			 VQ_OK);
	return r;
}

static void result_free(struct result *r)
{
	vq_free(r->codes);
	vq_free(r->steps);
	vq_gptq_free(&r->g);
}

static void check_codes(const uint8_t *codes, const json_t *want)
{
	struct matrix m = matrix_of(want);
	uint32_t i;

	for (i = 0; i < m.rows * m.cols; i++)
		assert_int_equal(codes[i], (int)m.a[i]);
	vq_free(m.a);
}

static double value(const struct result *r, const struct matrix *w, uint32_t group, uint32_t row,
		    uint32_t i)
{
	uint32_t n_groups = group ? w->cols / group : 1;
	struct vq_gptq_step s = r->steps[row * n_groups + (group ? i / group : 0)];

	return s.s * ((double)r->codes[row * w->cols + i] - s.z);
}

/* tr((Q - W) M (Q - W)^T) / 2 with M damped as g was. */
static double objective(const struct result *r, const struct matrix *w, uint32_t group,
			const struct vq_hessian *h)
{
	uint32_t n = w->cols, row, i, j;
	double mean = 0, sum = 0;

	for (i = 0; i < n; i++)
		mean += h->h[(size_t)i * n + i] / n;
	for (row = 0; row < w->rows; row++)
		for (i = 0; i < n; i++)
			for (j = 0; j < n; j++) {
				double di = value(r, w, group, row, i) - w->a[row * n + i];
				double dj = value(r, w, group, row, j) - w->a[row * n + j];
				double m =
					i < j ? h->h[(size_t)i * n + j] : h->h[(size_t)j * n + i];

				sum += di * dj * (m + (i == j ? r->g.damp * mean : 0)) / 2;
			}
	return sum;
}

/* --- the vectors --- */

static void check_vector(const char *name, const struct vq_gptq_opts *o)
{
	struct matrix w = matrix_of(vector("gptq_in", "W")),
		      full = matrix_of(vector("gptq_in", "H"));
	struct vq_hessian h = hessian_of(&full);
	struct result r = solve(&w, &h, o);
	double want = json_number_value(vector(name, "loss"));

	print_message("# figure: GPTQ vector %s: loss %.12f, want %.12f\n", name, r.loss, want);
	check_codes(r.codes, vector(name, "I"));
	assert_true(fabs(r.loss - want) < 1e-9 * want);
	result_free(&r);
	vq_hessian_free(&h);
	vq_free(w.a);
	vq_free(full.a);
}

static void plain_gptq_gives_the_authors_codes_and_loss(void **state)
{
	struct vq_gptq_opts o = authors(4, 0, 0);

	(void)state;
	check_vector("gptq_row", &o);
}

static void act_order_gives_the_authors_order_codes_and_loss(void **state)
{
	struct matrix full = matrix_of(vector("gptq_in", "H"));
	struct vq_hessian h = hessian_of(&full);
	struct vq_gptq_opts o = authors(4, 0, 0);
	struct vq_gptq g;
	uint32_t i;

	(void)state;
	o.act_order = 1;
	check_vector("gptq_actorder", &o);
	assert_int_equal(vq_gptq_prepare(&g, &h, &o, NULL), VQ_OK);
	for (i = 0; i < g.n; i++)
		assert_int_equal(g.perm[i], (int)json_integer_value(json_array_get(
						    vector("gptq_actorder", "perm"), i)));
	vq_gptq_free(&g);
	vq_hessian_free(&h);
	vq_free(full.a);
}

static void symmetric_and_grouped_grids_give_the_authors_codes_and_losses(void **state)
{
	struct vq_gptq_opts sym = authors(4, 0, 1), g8 = authors(4, 8, 0);

	(void)state;
	check_vector("gptq_sym", &sym);
	check_vector("gptq_g8", &g8);
	g8.block = 4;
	check_vector("gptq_g8_blk4", &g8);
}

static void act_order_with_static_groups_gives_the_authors_codes_and_loss(void **state)
{
	struct vq_gptq_opts o = authors(4, 8, 0);

	(void)state;
	o.act_order = 1;
	check_vector("gptq_g8_static_act", &o);
}

static void stale_ranges_give_the_authors_codes_where_groups_are_smaller_than_blocks(void **state)
{
	struct vq_gptq_opts o = authors(4, 8, 0);

	(void)state;
	o.block = 16;
	o.stale = 1;
	check_vector("gptq_g8_blk16_stale", &o);
}

/* Two inputs as in the closed form w2' = w2 + (w1 - q1) H12 / H22; a third, apart from them, makes the step 1/4. */
static void a_case_done_by_hand(void **state)
{
	double weights[3] = {.37, -.90, .85}, moment[9] = {2, 1, 0, 1, 3, 0, 0, 0, 1}, d1, d2;
	struct matrix w = {1, 3, weights}, full = {3, 3, moment};
	struct vq_hessian h = hessian_of(&full);
	struct vq_gptq_opts o = authors(3, 0, 0);
	struct result r;

	(void)state;
	o.damp = 0;
	r = solve(&w, &h, &o);
	assert_true(fabs(r.steps[0].s - .25) < 1e-12);
	d1 = value(&r, &w, 0, 0, 0) - w.a[0];
	d2 = value(&r, &w, 0, 0, 1) - w.a[1];
	assert_true(fabs(value(&r, &w, 0, 0, 0) - .25) < 1e-12);
	assert_true(fabs(value(&r, &w, 0, 0, 1) + .75) < 1e-12); /* to nearest: -1 */
	assert_true(fabs(2 * d1 * d1 + 2 * d1 * d2 + 3 * d2 * d2 - .0603) < 1e-12);
	result_free(&r);
	vq_hessian_free(&h);
}

static void gptaq_gives_the_authors_matrix_and_codes(void **state)
{
	struct matrix w = matrix_of(vector("gptq_in", "W")), x = matrix_of(vector("gptq_in", "X")),
		      x_full = matrix_of(vector("gptaq", "Xfp")),
		      p = matrix_of(vector("gptaq", "P"));
	struct vq_hessian h = moments(&x, &x_full);
	struct vq_gptq_opts o = authors(4, 0, 0);
	struct result r, plain;
	uint32_t i;

	(void)state;
	plain = solve(&w, &h, &o);
	check_codes(plain.codes, vector("gptq_row", "I")); /* alpha 0 is GPTQ */
	o.alpha = 1;
	for (o.block = 1; o.block <= 32; o.block *= 2) {
		r = solve(&w, &h, &o);
		check_codes(r.codes, vector("gptaq", "I_alpha1"));
		for (i = 0; i < x.cols * x.cols; i++)
			assert_true(fabs(r.g.p[i] - p.a[i]) < 1e-12);
		result_free(&r);
	}
	result_free(&plain);
	vq_hessian_free(&h);
	vq_free(w.a);
	vq_free(x.a);
	vq_free(x_full.a);
	vq_free(p.a);
}

/* From the codes at hand, one sweep at a time. */
static void check_polish(struct result *r, const struct matrix *w, const struct vq_hessian *h,
			 struct vq_gptq_opts *o, const double *want, int n)
{
	double before = objective(r, w, 0, h);
	int i;

	o->polish = 1;
	assert_true(fabs(before - want[0]) < 1e-6);
	for (i = 1; i <= n; i++) {
		double now;

		assert_int_equal(vq_gptq_polish(&r->g, o, w->a, w->rows, r->codes, r->steps, NULL),
				 VQ_OK);
		now = objective(r, w, 0, h);
		print_message("# figure: polish, sweep %d: objective %.6f, want %.6f\n", i, now,
			      want[i]);
		assert_true(fabs(now - want[i]) < 1e-6 && now <= before);
		before = now;
	}
}

static void polish_goes_down_as_the_reference_does(void **state)
{
	struct matrix w = matrix_of(vector("gptq_in", "W")),
		      full = matrix_of(vector("gptq_in", "H"));
	struct vq_hessian h = hessian_of(&full);
	struct vq_gptq_opts o = authors(4, 0, 0);
	struct result r;
	uint32_t i;

	(void)state;
	o.polish = 1; /* prepares the objective; rounds are counted below */
	r = solve(&w, &h, &o);
	for (i = 0; i < r.n; i++) {
		struct vq_gptq_step s = r.steps[i / w.cols];

		r.codes[i] = (uint8_t)fmin(fmax(rint(w.a[i] / s.s) + s.z, 0), 15);
	}
	check_polish(&r, &w, &h, &o, (const double[]){.018920, .011431, .009987, .009493}, 3);
	o.polish = 0;
	assert_int_equal(vq_gptq_rows(&r.g, &o, w.a, w.rows, r.codes, r.steps, &r.loss, NULL),
			 VQ_OK);
	check_polish(&r, &w, &h, &o, (const double[]){.011147, .009276}, 1);
	result_free(&r);
	vq_hessian_free(&h);
	vq_free(w.a);
	vq_free(full.a);
}

static void fresh_cases_agree_with_the_independent_reference(void **state)
{
	const size_t n = 24;
	size_t i;
	json_t *all = fresh_cases("gptq_ref.py", 2024, n);

	(void)state;
	for (i = 0; i < n; i++) {
		const json_t *c = json_array_get(all, i);
		struct matrix w = matrix_of(json_object_get(c, "W")),
			      full = matrix_of(json_object_get(c, "H"));
		struct vq_hessian h = hessian_of(&full);
		int group = (int)json_integer_value(json_object_get(c, "group"));
		double want = json_number_value(json_object_get(c, "loss"));
		struct vq_gptq_opts o = authors(
			(uint32_t)json_integer_value(json_object_get(c, "bits")),
			group < 0 ? 0 : (uint32_t)group, json_is_true(json_object_get(c, "sym")));
		struct result r;

		o.damp = json_number_value(json_object_get(c, "percdamp"));
		o.act_order = json_is_true(json_object_get(c, "act_order"));
		o.block = (uint32_t)json_integer_value(json_object_get(c, "block"));
		o.stale = 1;
		r = solve(&w, &h, &o);
		check_codes(r.codes, json_object_get(c, "I"));
		assert_true(fabs(r.loss - want) < 1e-9 * want);
		result_free(&r);
		vq_hessian_free(&h);
		vq_free(w.a);
		vq_free(full.a);
	}
	print_message("# figure: GPTQ: %zu of %zu fresh cases equal the reference\n", i, n);
	json_decref(all);
}

/* --- invariants --- */

/* sum H_jj (q(w_j) - w_j)^2 when all of w is rounded to nearest with the steps of r. */
static double nearest_error(const struct result *r, const struct matrix *w,
			    const struct vq_hessian *h, uint32_t bits, uint32_t group)
{
	double sum = 0, top = (double)((1u << bits) - 1);
	uint32_t row, j;

	for (row = 0; row < w->rows; row++)
		for (j = 0; j < w->cols; j++) {
			struct vq_gptq_step s = r->steps[row * (w->cols / group) + j / group];
			double v = w->a[row * w->cols + j], u = rint(v / s.s) + s.z;
			double d = s.s * (fmin(fmax(u, 0), top) - s.z) - v;

			sum += h->h[(size_t)j * w->cols + j] * d * d;
		}
	return sum;
}

static void clipped_ranges_have_the_least_weighted_error_of_26(void **state)
{
	struct matrix w = random_matrix(8, 64, 31), x = random_matrix(200, 64, 32);
	struct vq_hessian h = moments(&x, NULL);
	struct vq_gptq_opts o = authors(3, 16, 0);
	double least[2] = {0, 0}, clipped, plain;
	uint32_t row, g, i, j;
	struct result r;

	(void)state;
	o.rule = VQ_GPTQ_STREAM;
	o.act_order = 1; /* grids of the original weights */
	r = solve(&w, &h, &o);
	plain = nearest_error(&r, &w, &h, 3, 16);
	result_free(&r);
	o.clip = 1;
	r = solve(&w, &h, &o);
	clipped = nearest_error(&r, &w, &h, 3, 16);
	/* Each group by itself, by quant/grid.h's own clip. */
	for (row = 0; row < 8; row++)
		for (g = 0; g < 4; g++) {
			const double *v = w.a + row * 64 + g * 16;
			float min = 0, max = 0;

			for (j = 0; j < 16; j++) {
				min = fminf(min, (float)v[j]);
				max = fmaxf(max, (float)v[j]);
			}
			for (i = 0; i < 26; i++) {
				struct vq_wstep s =
					vq_grid_step(&o.grid, min, max, (float)(1 - i * .02));
				double e = 0;

				for (j = 0; j < 16; j++) {
					double u = rint(v[j] / (double)s.s) + (double)s.z;
					double d =
						(double)s.s * (fmin(fmax(u, 0), 7) - (double)s.z) -
						v[j];

					e += h.h[(size_t)(g * 16 + j) * 65] * d * d;
				}
				least[1] = i == 0 || e < least[1] ? e : least[1];
			}
			least[0] += least[1];
		}
	assert_true(fabs(clipped - least[0]) < 1e-9 * clipped);
	assert_true(clipped < .95 * plain);
	result_free(&r);
	vq_hessian_free(&h);
	vq_free(w.a);
	vq_free(x.a);
}

static void codes_depend_neither_on_the_block_nor_on_the_scale_of_h(void **state)
{
	static const uint32_t groups[] = {0, 8, 12};
	struct matrix w = random_matrix(3, 48, 1), x = random_matrix(200, 48, 2);
	struct vq_hessian h = moments(&x, NULL);
	uint32_t k, i;

	(void)state;
	for (k = 0; k < 3; k++) {
		struct vq_gptq_opts o = authors(3, groups[k], 0);
		struct result one, r;

		o.block = 1;
		one = solve(&w, &h, &o);
		for (o.block = 2; o.block <= 64; o.block *= 2) {
			r = solve(&w, &h, &o);
			assert_memory_equal(r.codes, one.codes, r.n);
			result_free(&r);
		}
		for (i = 0; i < 48 * 48; i++)
			h.h[i] *= 1024;
		r = solve(&w, &h, &o);
		assert_memory_equal(r.codes, one.codes, r.n);
		result_free(&r);
		result_free(&one);
	}
	vq_hessian_free(&h);
	vq_free(w.a);
	vq_free(x.a);
}

static void the_loss_is_half_the_trace_of_the_error_in_h(void **state)
{
	struct matrix w = random_matrix(4, 32, 3), x = random_matrix(100, 32, 4);
	struct vq_hessian h = moments(&x, NULL);
	struct vq_gptq_opts o = authors(3, 0, 1);
	struct result r = solve(&w, &h, &o);

	(void)state;
	assert_true(fabs(objective(&r, &w, 0, &h) - r.loss) < 1e-9 * r.loss);
	result_free(&r);
	vq_hessian_free(&h);
	vq_free(w.a);
	vq_free(x.a);
}

/* Optimal brain quantization by its definition: a fresh inverse of what is left for every column. */
static void the_factor_gives_what_a_fresh_inverse_for_each_column_gives(void **state)
{
	enum { N = 12 };
	struct matrix w = random_matrix(1, N, 5), x = random_matrix(60, N, 6);
	struct vq_hessian h = moments(&x, NULL);
	struct vq_gptq_opts o = authors(3, 0, 0);
	struct result r = solve(&w, &h, &o);
	double left[N], mean = 0;
	uint32_t c, i, j, k;

	(void)state;
	memcpy(left, w.a, sizeof(left));
	for (i = 0; i < N; i++)
		mean += h.h[i * N + i] / N;
	for (c = 0; c < N; c++) {
		double a[N][N], b[N] = {0}, e;
		uint32_t m = N - c;

		/* The first column of the inverse of the rest of H, by elimination. */
		for (i = 0; i < m; i++)
			for (j = 0; j < m; j++)
				a[i][j] = h.h[(c + (i < j ? i : j)) * N + c + (i < j ? j : i)] +
					  (i == j ? .01 * mean : 0);
		b[0] = 1;
		for (k = 0; k < m; k++)
			for (i = 0; i < m; i++) {
				double f = a[i][k] / a[k][k];

				for (j = k; i != k && j < m; j++)
					a[i][j] -= f * a[k][j];
				b[i] -= i != k ? f * b[k] : 0;
			}
		for (i = 0; i < m; i++)
			b[i] /= a[i][i];
		e = rint(left[c] / r.steps[0].s) + r.steps[0].z;
		e = e < 0 ? 0 : e > 7 ? 7 : e;
		assert_int_equal(r.codes[c], (int)e);
		e = (left[c] - r.steps[0].s * (e - r.steps[0].z)) / b[0];
		for (i = 0; i < m; i++)
			left[c + i] -= e * b[i];
	}
	result_free(&r);
	vq_hessian_free(&h);
	vq_free(w.a);
	vq_free(x.a);
}

static void p_is_the_row_by_row_solution(void **state)
{
	enum { N = 10 };
	struct matrix x = random_matrix(50, N, 7), y = random_matrix(50, N, 8);
	struct vq_hessian h = moments(&x, &y);
	struct vq_gptq_opts o = authors(4, 0, 0);
	struct vq_gptq g;
	double mean = 0;
	uint32_t q, i, j;

	(void)state;
	o.alpha = 1;
	assert_int_equal(vq_gptq_prepare(&g, &h, &o, NULL), VQ_OK);
	for (i = 0; i < N; i++)
		mean += h.h[i * N + i] / N;
	/* P[q, q+1:] H[q+1:, q+1:] = D[q, q+1:] */
	for (q = 0; q < N; q++)
		for (j = q + 1; j < N; j++) {
			double sum = g.p[q * N + j] * .01 * mean;

			for (i = q + 1; i < N; i++)
				sum += g.p[q * N + i] * (i < j ? h.h[i * N + j] : h.h[j * N + i]);
			assert_true(fabs(sum - h.d[q * N + j]) < 1e-10);
		}
	vq_gptq_free(&g);
	vq_hessian_free(&h);
	vq_free(x.a);
	vq_free(y.a);
}

/* --- for streams --- */

struct stream_case {
	float *w, *x, *y;
	struct vq_codes c;
	struct vq_hessian h;
	double loss, error;
};

enum { OUT = 70, IN = 160, ROWS = 300 };

static struct stream_case stream_case(const struct vq_gptq_opts *o, int diagonal)
{
	struct vq_rng rng = vq_rng_new(9, "test");
	struct stream_case s = {.w = vq_alloc_f32(OUT * IN, NULL),
				.x = vq_alloc_f32(ROWS * IN, NULL),
				.y = vq_alloc_f32(ROWS * IN, NULL)};
	struct vq_gptq g;
	uint32_t i;

	for (i = 0; i < OUT * IN; i++)
		s.w[i] = (float)vq_rng_normal(rng, i);
	for (i = 0; i < ROWS * IN; i++) {
		s.x[i] = (float)vq_rng_normal(rng, OUT * IN + i) + (i % 7 ? 0.0f : 2.0f);
		s.y[i] = s.x[i] + .1f * (float)vq_rng_normal(rng, 100000 + i);
	}
	assert_int_equal(vq_codes_alloc(&s.c, &o->grid, OUT, IN, NULL), VQ_OK);
	assert_int_equal(vq_hessian_new(&s.h, IN, 1, NULL), VQ_OK);
	assert_int_equal(vq_hessian_add(&s.h, s.x, s.y, ROWS, NULL), VQ_OK);
	for (i = 0; diagonal && i < IN * IN; i++)
		if (i / IN != i % IN)
			s.h.h[i] = 0;
	assert_int_equal(vq_gptq_prepare(&g, &s.h, o, NULL), VQ_OK);
	assert_int_equal(vq_gptq_fit(&s.c, s.w, VQ_F32, &g, o, &s.loss, &s.error, NULL), VQ_OK);
	vq_gptq_free(&g);
	return s;
}

static void stream_case_free(struct stream_case *s)
{
	vq_free(s->w);
	vq_free(s->x);
	vq_free(s->y);
	vq_codes_free(&s->c);
	vq_hessian_free(&s->h);
}

static struct vq_gptq_opts for_streams(uint32_t group, int sym)
{
	struct vq_gptq_opts o = authors(4, group, sym);

	o.rule = VQ_GPTQ_STREAM;
	return o;
}

static void with_independent_inputs_it_is_rounding_to_nearest(void **state)
{
	int sym;

	(void)state;
	for (sym = 0; sym < 2; sym++) {
		struct vq_gptq_opts o = for_streams(32, sym);
		struct stream_case s = stream_case(&o, 1);
		struct vq_codes c;
		double error;

		assert_int_equal(vq_codes_alloc(&c, &o.grid, OUT, IN, NULL), VQ_OK);
		assert_int_equal(vq_rtn_fit(&c, s.w, VQ_F32, 1, &error, NULL), VQ_OK);
		assert_true(fabs(s.error - error) < 1e-6 * error);
		assert_memory_equal(c.codes, s.c.codes, OUT * IN);
		assert_memory_equal(c.scale, s.c.scale, OUT * (IN / 32) * sizeof(*c.scale));
		if (!sym)
			assert_memory_equal(c.zero, s.c.zero, OUT * (IN / 32));
		vq_codes_free(&c);
		stream_case_free(&s);
	}
}

static void the_sums_over_tiles_are_the_second_moments(void **state)
{
	struct vq_gptq_opts o = for_streams(0, 0);
	struct stream_case s = stream_case(&o, 0);
	struct matrix x = new_matrix(ROWS, IN), y = new_matrix(ROWS, IN);
	struct vq_hessian want;
	uint32_t i;

	(void)state;
	for (i = 0; i < ROWS * IN; i++) {
		x.a[i] = (double)s.x[i];
		y.a[i] = (double)s.y[i];
	}
	want = moments(&x, &y);
	for (i = 0; i < IN * IN; i++) {
		assert_true(fabs(want.h[i] - s.h.h[i]) < 1e-9);
		assert_true(fabs(want.d[i] - s.h.d[i]) < 1e-9);
	}
	vq_hessian_free(&want);
	vq_free(x.a);
	vq_free(y.a);
	stream_case_free(&s);
}

static void what_predecessors_changed_is_measured_against_the_input(void **state)
{
	const float x[] = {1, 2, 3, 0, 1, 1}, full[] = {1, 2, 4, 0, 1, 3};
	struct vq_hessian h;
	double hh = 0, dd = 0;
	int i, j, k;

	(void)state;
	assert_int_equal(vq_hessian_new(&h, 3, 1, NULL), VQ_OK);
	assert_int_equal(vq_hessian_add(&h, x, full, 2, NULL), VQ_OK);
	for (i = 0; i < 3; i++)
		for (j = 0; j < 3; j++) {
			double a = 0, d = 0;

			for (k = 0; k < 2; k++) {
				a += (double)x[3 * k + i] * x[3 * k + j];
				d += ((double)full[3 * k + i] - x[3 * k + i]) * x[3 * k + j];
			}
			hh += a * a;
			dd += d * d;
		}
	assert_float_equal(vq_hessian_cross(&h), sqrt(dd / hh), 1e-12);
	vq_hessian_free(&h);
	assert_int_equal(vq_hessian_new(&h, 3, 0, NULL), VQ_OK);
	assert_int_equal(vq_hessian_add(&h, x, full, 2, NULL), VQ_OK);
	assert_true(vq_hessian_cross(&h) == 0);
	vq_hessian_free(&h);
}

static void the_result_does_not_depend_on_the_number_of_threads(void **state)
{
	struct vq_gptq_opts o = for_streams(32, 0);
	int threads = omp_get_max_threads();
	struct stream_case one, four;

	(void)state;
	o.alpha = .25;
	o.polish = 2;
	o.act_order = 1;
	omp_set_num_threads(1);
	one = stream_case(&o, 0);
	omp_set_num_threads(4);
	four = stream_case(&o, 0);
	omp_set_num_threads(threads);
	assert_memory_equal(one.h.h, four.h.h, sizeof(double) * IN * IN);
	assert_memory_equal(one.h.d, four.h.d, sizeof(double) * IN * IN);
	assert_memory_equal(one.c.codes, four.c.codes, OUT * IN);
	assert_true(one.loss == four.loss);
	stream_case_free(&one);
	stream_case_free(&four);
}

static void a_hessian_that_cannot_be_factored_gets_more_damping(void **state)
{
	struct matrix x = random_matrix(2, 40, 10);
	struct vq_hessian h = moments(&x, NULL);
	struct vq_gptq_opts o = for_streams(0, 0);
	struct vq_err err = {0};
	struct vq_gptq g;

	(void)state;
	o.damp = 1e-19;
	assert_int_equal(vq_gptq_prepare(&g, &h, &o, &err), VQ_OK);
	assert_true(g.damp > o.damp && g.damp <= 1);
	vq_gptq_free(&g);
	h.h[0] = NAN;
	assert_int_equal(vq_gptq_prepare(&g, &h, &o, &err), VQ_E_DATA);
	assert_non_null(strstr(err.text, "not finite"));
	vq_hessian_free(&h);
	vq_free(x.a);
}

static void an_input_that_is_always_zero_loses_its_weights(void **state)
{
	struct matrix w = random_matrix(2, 8, 11), x = random_matrix(40, 8, 12);
	struct vq_gptq_opts o = for_streams(0, 0);
	struct vq_hessian h;
	struct result r;
	uint32_t t;

	(void)state;
	for (t = 0; t < x.rows; t++)
		x.a[t * 8 + 3] = 0;
	h = moments(&x, NULL);
	r = solve(&w, &h, &o);
	assert_true(value(&r, &w, 0, 0, 3) == 0 && value(&r, &w, 0, 1, 3) == 0);
	assert_true(value(&r, &w, 0, 0, 2) != 0);
	result_free(&r);
	vq_hessian_free(&h);
	vq_free(w.a);
	vq_free(x.a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(plain_gptq_gives_the_authors_codes_and_loss),
		cmocka_unit_test(act_order_gives_the_authors_order_codes_and_loss),
		cmocka_unit_test(symmetric_and_grouped_grids_give_the_authors_codes_and_losses),
		cmocka_unit_test(act_order_with_static_groups_gives_the_authors_codes_and_loss),
		cmocka_unit_test(
			stale_ranges_give_the_authors_codes_where_groups_are_smaller_than_blocks),
		cmocka_unit_test(a_case_done_by_hand),
		cmocka_unit_test(gptaq_gives_the_authors_matrix_and_codes),
		cmocka_unit_test(polish_goes_down_as_the_reference_does),
		cmocka_unit_test(fresh_cases_agree_with_the_independent_reference),
		cmocka_unit_test(clipped_ranges_have_the_least_weighted_error_of_26),
		cmocka_unit_test(codes_depend_neither_on_the_block_nor_on_the_scale_of_h),
		cmocka_unit_test(the_loss_is_half_the_trace_of_the_error_in_h),
		cmocka_unit_test(the_factor_gives_what_a_fresh_inverse_for_each_column_gives),
		cmocka_unit_test(p_is_the_row_by_row_solution),
		cmocka_unit_test(with_independent_inputs_it_is_rounding_to_nearest),
		cmocka_unit_test(the_sums_over_tiles_are_the_second_moments),
		cmocka_unit_test(what_predecessors_changed_is_measured_against_the_input),
		cmocka_unit_test(the_result_does_not_depend_on_the_number_of_threads),
		cmocka_unit_test(a_hessian_that_cannot_be_factored_gets_more_damping),
		cmocka_unit_test(an_input_that_is_always_zero_loses_its_weights),
	};

	return cmocka_run_group_tests(tests, load_vectors, free_vectors);
}
