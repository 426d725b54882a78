/* quant/awq against vectors.json, which tests/vectors/ref.py made and which agrees with the authors' code
 * (mit-han-lab/llm-awq), against fresh cases of the same reference, and what it promises of whole weights. */
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
#include "quant/awq.h"
#include "quant/rtn.h"
#include "matrix.h"
#include "vectors.h"

/* --- fixtures --- */

static double number(const json_t *list, uint32_t i)
{
	return json_number_value(json_array_get(list, i));
}

static struct vq_awq_opts authors(uint32_t bits, uint32_t group)
{
	return (struct vq_awq_opts){.grid = {bits, group, 0}, .rule = VQ_AWQ_AUTHORS};
}

/* One linear as the inspected module: its loss by the formula. */
struct module {
	const struct matrix *w, *x;
	struct vq_awq_opts o;
};

static int module_loss(void *ctx, const double *s, double *loss, struct vq_err *err)
{
	const struct module *m = ctx;
	uint32_t rows = m->w->rows, n = m->w->cols, r, t, i;
	struct matrix q = new_matrix(rows, n);
	double sum = 0;

	(void)err;
	for (i = 0; i < rows * n; i++)
		q.a[i] = m->w->a[i] * s[i % n];
	vq_awq_round(&m->o, q.a, rows, n, q.a);
	for (t = 0; t < m->x->rows; t++)
		for (r = 0; r < rows; r++) {
			double y = 0;

			for (i = 0; i < n; i++)
				y += m->x->a[(size_t)t * n + i] *
				     (m->w->a[(size_t)r * n + i] - q.a[(size_t)r * n + i] / s[i]);
			sum += y * y;
		}
	*loss = sum / ((double)m->x->rows * rows);
	vq_free(q.a);
	return VQ_OK;
}

static double *mean_of(const struct matrix *x)
{
	double *xm = vq_calloc(x->cols, sizeof(*xm), NULL);
	uint32_t t, i;

	for (t = 0; t < x->rows; t++)
		for (i = 0; i < x->cols; i++)
			xm[i] += fabs(x->a[(size_t)t * x->cols + i]) / x->rows;
	return xm;
}

/* Searches scales, then compares all there is: ratio in 1/20, losses, scales. */
static void check_scales(const struct matrix *w, const struct matrix *x,
			 const struct vq_awq_opts *o, const json_t *hist, double ratio,
			 const json_t *scales)
{
	struct module m = {w, x, *o};
	double *xm = mean_of(x), *s = vq_alloc(w->cols, sizeof(*s), NULL), min = INFINITY, max = 0;
	struct vq_awq_choice c;
	uint32_t i;

	assert_int_equal(vq_awq_search(xm, NULL, w->cols, module_loss, &m, s, &c, NULL), VQ_OK);
	assert_int_equal(json_array_size(hist), VQ_AWQ_RATIOS);
	for (i = 0; i < VQ_AWQ_RATIOS; i++)
		assert_true(fabs(c.loss[i] - number(hist, i)) <= 1e-9 * fmax(1, number(hist, i)));
	assert_true(fabs(c.ratio / 20. - ratio) < 1e-12);
	for (i = 0; i < w->cols; i++) {
		assert_true(fabs(s[i] - number(scales, i)) <= 1e-12 * s[i]);
		min = fmin(min, s[i]);
		max = fmax(max, s[i]);
	}
	assert_true(fabs(max * min - 1) < 1e-12);
	vq_free(xm);
	vq_free(s);
}

/* The scaled weight and the divided input. */
static void fold(struct matrix *w, struct matrix *x, const json_t *scales)
{
	uint32_t i;

	for (i = 0; i < w->rows * w->cols; i++)
		w->a[i] *= number(scales, i % w->cols);
	for (i = 0; i < x->rows * x->cols; i++)
		x->a[i] /= number(scales, i % x->cols);
}

/* Every (rows // 512)-th row. */
static struct matrix some_tokens(const struct matrix *x)
{
	uint32_t step = x->rows / 512 ? x->rows / 512 : 1, t;
	struct matrix m = new_matrix((x->rows + step - 1) / step, x->cols);

	for (t = 0; t < m.rows; t++)
		memcpy(m.a + (size_t)t * m.cols, x->a + (size_t)t * step * m.cols,
		       m.cols * sizeof(double));
	return m;
}

/* The bounds, to the bit. */
static void check_clips(const struct matrix *w, const struct matrix *x, const struct vq_awq_opts *o,
			const json_t *want)
{
	uint32_t n_groups = vq_grid_n_groups(&o->grid, w->cols), i;
	double *m = vq_alloc((size_t)w->rows * n_groups, sizeof(*m), NULL);
	struct matrix some = some_tokens(x);
	int rc = -1;

#pragma omp parallel
#pragma omp single
	rc = vq_awq_clip(o, w->a, w->rows, w->cols, some.a, some.rows, m, NULL);
	assert_int_equal(rc, VQ_OK);
	for (i = 0; i < w->rows * n_groups; i++)
		assert_true(m[i] == number(json_array_get(want, i / n_groups), i % n_groups));
	vq_free(some.a);
	vq_free(m);
}

/* --- the vectors --- */

static void the_scale_search_gives_the_authors_losses_ratio_and_scales(void **state)
{
	struct matrix w = matrix_of(vector("awq_in", "W")), x = matrix_of(vector("awq_in", "X"));
	struct vq_awq_opts o = authors(4, 16);

	(void)state;
	assert_true(json_number_value(vector("awq_scale", "best_ratio")) == .05);
	check_scales(&w, &x, &o, vector("awq_scale", "hist"), .05, vector("awq_scale", "scales"));
	vq_free(w.a);
	vq_free(x.a);
}

static void the_first_loss_is_that_of_rounding_to_nearest(void **state)
{
	struct matrix w = matrix_of(vector("awq_in", "W")), x = matrix_of(vector("awq_in", "X"));
	struct module m = {&w, &x, authors(4, 16)};
	double ones[32], loss, *xm = mean_of(&x), s[32];
	uint32_t i;

	(void)state;
	for (i = 0; i < 32; i++)
		ones[i] = 1;
	assert_int_equal(module_loss(&m, ones, &loss, NULL), VQ_OK);
	assert_true(fabs(loss - .01799896934960) < 1e-13);
	vq_awq_scales(xm, NULL, 32, 0, s);
	assert_memory_equal(s, ones, sizeof(s));
	vq_free(xm);
	vq_free(w.a);
	vq_free(x.a);
}

static void the_clip_search_gives_the_authors_bounds_exactly(void **state)
{
	struct matrix w = matrix_of(vector("awq_in", "W")), x = matrix_of(vector("awq_in", "X"));
	struct vq_awq_opts o = authors(4, 16);

	(void)state;
	fold(&w, &x, vector("awq_scale", "scales"));
	check_clips(&w, &x, &o, vector("awq_clip", "max"));
	vq_free(w.a);
	vq_free(x.a);
}

static void a_range_without_0_loses_what_the_authors_lose(void **state)
{
	const double w[] = {10, 10.5, 11, 10.25};
	struct vq_awq_opts o = authors(4, 4);
	double q[4];
	int i;

	(void)state;
	vq_awq_round(&o, w, 1, 4, q);
	for (i = 0; i < 4; i++)
		assert_true(q[i] == 1);
	o.rule = VQ_AWQ_STREAM; /* includes 0 */
	vq_awq_round(&o, w, 1, 4, q);
	for (i = 0; i < 4; i++)
		assert_true(fabs(q[i] - w[i]) < 11 / 15. / 2 + .01);
}

static void fresh_cases_agree_with_the_independent_reference(void **state)
{
	const uint32_t n = 24;
	uint32_t i, k;
	json_t *all = fresh_cases("awq_ref.py", 2025, n);

	(void)state;
	for (i = 0; i < n; i++) {
		const json_t *c = json_array_get(all, i), *s = json_object_get(c, "s"),
			     *want = json_object_get(c, "duo");
		struct matrix w = matrix_of(json_object_get(c, "W")),
			      x = matrix_of(json_object_get(c, "X"));
		struct vq_awq_opts o =
			authors((uint32_t)json_integer_value(json_object_get(c, "bits")),
				(uint32_t)json_integer_value(json_object_get(c, "group")));
		double *xm = mean_of(&x), *wm = vq_alloc(w.cols, sizeof(*wm), NULL),
		       *duo = vq_alloc(w.cols, sizeof(*duo), NULL);
		float *wf = vq_alloc_f32((size_t)w.rows * w.cols, NULL);
		struct vq_awq_weight one = {wf, VQ_F32, w.rows, w.cols, NULL, NULL};

		check_scales(&w, &x, &o, json_object_get(c, "hist"),
			     json_number_value(json_object_get(c, "ratio")), s);
		for (k = 0; k < w.rows * w.cols; k++)
			wf[k] = (float)w.a[k];
		assert_int_equal(vq_awq_weight_mean(&o.grid, &one, 1, wm, NULL), VQ_OK);
		vq_awq_scales(xm, wm, w.cols, 7, duo);
		for (k = 0; k < w.cols; k++) /* the weight was rounded to float */
			assert_true(fabs(duo[k] - number(want, k)) < 1e-5 * duo[k]);
		fold(&w, &x, s);
		check_clips(&w, &x, &o, json_object_get(c, "clip"));
		vq_free(w.a);
		vq_free(x.a);
		vq_free(wf);
		vq_free(xm);
		vq_free(wm);
		vq_free(duo);
	}
	print_message("# figure: AWQ: %u of %u fresh cases equal the reference\n", i, n);
	json_decref(all);
}

/* --- whole weights --- */

enum { OUT = 37, IN = 160, ROWS = 1100 };

struct whole {
	float w[OUT * IN], in[IN], out[OUT], *x;
	struct vq_awq_weight v;
};

static void whole_new(struct whole *h)
{
	struct vq_rng r = vq_rng_new(3, "test");
	uint32_t i;

	h->x = vq_alloc_f32((size_t)ROWS * IN, NULL);
	for (i = 0; i < OUT * IN; i++)
		h->w[i] = (float)vq_rng_normal(r, i) * (i % 11 ? .1f : 1);
	for (i = 0; i < IN; i++)
		h->in[i] = (float)exp(vq_rng_normal(r, 100000 + i));
	for (i = 0; i < OUT; i++)
		h->out[i] = (float)exp(vq_rng_normal(r, 200000 + i));
	for (i = 0; i < ROWS * IN; i++)
		h->x[i] = (float)vq_rng_normal(r, 300000 + i);
	h->v = (struct vq_awq_weight){h->w, VQ_F32, OUT, IN, h->in, h->out};
}

static void codes_of_a_whole_weight_are_those_of_its_folded_and_clamped_groups(void **state)
{
	static const struct vq_wgrid grids[] = {{4, 32, 0}, {3, 128, 0}, {4, 0, 1}};
	struct whole *h = vq_alloc(1, sizeof(*h), NULL);
	double error, clip, *m = vq_alloc(OUT * 5, sizeof(*m), NULL), *folded, *x;
	float *f = vq_alloc_f32(OUT * IN, NULL), *back = vq_alloc_f32(OUT * IN, NULL);
	uint32_t i, k, tokens, ng;

	(void)state;
	whole_new(h);
	folded = vq_alloc(OUT * IN, sizeof(*folded), NULL);
	x = vq_awq_tokens(h->x, ROWS, IN, h->in, &tokens, NULL);
	assert_non_null(x);
	assert_int_equal(tokens, ROWS / 2); /* every 1100 / 512 = 2nd */
	for (i = 0; i < tokens * IN; i++)
		assert_true(x[i] == (double)(h->x[i / IN * 2 * IN + i % IN] / h->in[i % IN]));
	for (k = 0; k < 3; k++) {
		struct vq_awq_opts o = {grids[k], VQ_AWQ_STREAM};
		struct vq_codes c, want;
		double e = 0, all = 0, ratios = 0;
		int rc = -1;

		assert_int_equal(vq_codes_alloc(&c, &grids[k], OUT, IN, NULL), VQ_OK);
		assert_int_equal(vq_codes_alloc(&want, &grids[k], OUT, IN, NULL), VQ_OK);
		assert_int_equal(vq_awq_fit(&c, &h->v, x, tokens, &error, &clip, NULL), VQ_OK);
		for (i = 0; i < OUT * IN; i++) {
			f[i] = h->w[i] * h->in[i % IN] / h->out[i / IN];
			folded[i] = (double)f[i];
		}
		ng = vq_grid_n_groups(&grids[k], IN);
#pragma omp parallel
#pragma omp single
		rc = vq_awq_clip(&o, folded, OUT, IN, x, tokens, m, NULL);
		assert_int_equal(rc, VQ_OK);
		for (i = 0; i < OUT * IN; i++) {
			uint32_t j = ng == 1 ? 0 : i % IN / grids[k].group;
			float bound = (float)m[i / IN * ng + j];

			f[i] = f[i] > bound ? bound : f[i] < -bound ? -bound : f[i];
		}
		vq_grid_fit(&want, f, 1);
		vq_grid_dequant(&want, back);
		for (i = 0; i < OUT * IN; i++) {
			e += pow((double)back[i] - folded[i], 2);
			all += folded[i] * folded[i];
		}
		for (i = 0; i < OUT * ng; i++) {
			uint32_t a = i % ng * (ng == 1 ? IN : grids[k].group), b, n;
			double max = 0;

			n = ng == 1 || i % ng + 1 == ng ? IN : a + grids[k].group;
			for (b = a; b < n; b++)
				max = fmax(max, fabs(folded[i / ng * IN + b]));
			ratios += m[i] / max / (OUT * ng);
			assert_true(m[i] / max > .549 && m[i] <= max);
		}
		assert_memory_equal(c.codes, want.codes, OUT * IN);
		assert_memory_equal(c.scale, want.scale, OUT * ng * sizeof(*c.scale));
		assert_true(fabs(error - e / all) < 1e-9 * error);
		assert_true(fabs(clip - ratios) < 1e-9 && clip < 1);
		vq_codes_free(&c);
		vq_codes_free(&want);
	}
	vq_free(x);
	vq_free(h->x);
	vq_free(h);
	vq_free(folded);
	vq_free(m);
	vq_free(f);
	vq_free(back);
}

static void without_scales_and_clips_it_is_rounding_to_nearest(void **state)
{
	struct whole *h = vq_alloc(1, sizeof(*h), NULL);
	struct vq_awq_opts o = {{4, 64, 0}, VQ_AWQ_STREAM};
	float *q = vq_alloc_f32(OUT * IN, NULL), *back = vq_alloc_f32(OUT * IN, NULL);
	double error, want_error, clip;
	struct vq_codes c, want;

	(void)state;
	whole_new(h);
	h->v.in = h->v.out = NULL;
	assert_int_equal(vq_codes_alloc(&c, &o.grid, OUT, IN, NULL), VQ_OK);
	assert_int_equal(vq_codes_alloc(&want, &o.grid, OUT, IN, NULL), VQ_OK);
	assert_int_equal(vq_awq_fit(&c, &h->v, NULL, 0, &error, &clip, NULL), VQ_OK);
	assert_int_equal(vq_rtn_fit(&want, h->w, VQ_F32, 1, &want_error, NULL), VQ_OK);
	assert_memory_equal(c.codes, want.codes, OUT * IN);
	assert_true(fabs(error - want_error) < 1e-9 * error && clip == 1);
	assert_int_equal(vq_awq_fake(&o, &h->v, q, NULL), VQ_OK);
	vq_grid_dequant(&want, back);
	assert_memory_equal(q, back, OUT * IN * sizeof(float));
	vq_codes_free(&c);
	vq_codes_free(&want);
	vq_free(q);
	vq_free(back);
	vq_free(h->x);
	vq_free(h);
}

static void the_result_does_not_depend_on_the_number_of_threads(void **state)
{
	struct whole *h = vq_alloc(1, sizeof(*h), NULL);
	double error[2], clip[2], xm[2][IN];
	int threads = omp_get_max_threads(), i;
	struct vq_codes c[2];

	(void)state;
	whole_new(h);
	for (i = 0; i < 2; i++) {
		const struct vq_wgrid g = {4, 32, 0};
		uint32_t tokens;
		double *x;

		omp_set_num_threads(1 + 3 * i);
		x = vq_awq_tokens(h->x, ROWS, IN, h->in, &tokens, NULL);
		assert_int_equal(vq_codes_alloc(&c[i], &g, OUT, IN, NULL), VQ_OK);
		assert_int_equal(vq_awq_fit(&c[i], &h->v, x, tokens, &error[i], &clip[i], NULL),
				 VQ_OK);
		vq_awq_input_mean(h->x, ROWS, IN, xm[i]);
		vq_free(x);
	}
	omp_set_num_threads(threads);
	assert_memory_equal(c[0].codes, c[1].codes, OUT * IN);
	assert_memory_equal(xm[0], xm[1], sizeof(xm[0]));
	assert_true(error[0] == error[1] && clip[0] == clip[1]);
	vq_codes_free(&c[0]);
	vq_codes_free(&c[1]);
	vq_free(h->x);
	vq_free(h);
}

static int no_number(void *ctx, const double *s, double *loss, struct vq_err *err)
{
	(void)ctx;
	(void)s;
	(void)err;
	*loss = NAN;
	return VQ_OK;
}

static void losses_that_are_no_numbers_are_refused(void **state)
{
	const double xm[2] = {1, 2};
	struct vq_awq_choice c;
	struct vq_err err = {0};
	double s[2];

	(void)state;
	assert_int_equal(vq_awq_search(xm, NULL, 2, no_number, NULL, s, &c, &err), VQ_E_DATA);
	assert_non_null(strstr(err.text, "finite"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_scale_search_gives_the_authors_losses_ratio_and_scales),
		cmocka_unit_test(the_first_loss_is_that_of_rounding_to_nearest),
		cmocka_unit_test(the_clip_search_gives_the_authors_bounds_exactly),
		cmocka_unit_test(a_range_without_0_loses_what_the_authors_lose),
		cmocka_unit_test(fresh_cases_agree_with_the_independent_reference),
		cmocka_unit_test(
			codes_of_a_whole_weight_are_those_of_its_folded_and_clamped_groups),
		cmocka_unit_test(without_scales_and_clips_it_is_rounding_to_nearest),
		cmocka_unit_test(the_result_does_not_depend_on_the_number_of_threads),
		cmocka_unit_test(losses_that_are_no_numbers_are_refused),
	};

	return cmocka_run_group_tests(tests, load_vectors, free_vectors);
}
