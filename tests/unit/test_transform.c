/* quant/smooth and quant/wush: transforms of inputs and what they make of weights. */
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
#include "quant/hadamard.h"
#include "quant/smooth.h"
#include "quant/wush.h"

#define MATRIX_REAL float
#include "matrix.h"
#include "vectors.h"

/* Normal, columns of unequal size. */
static struct matrix random_matrix(uint32_t rows, uint32_t cols, uint64_t seed)
{
	struct matrix m = new_matrix(rows, cols);
	struct vq_rng r = vq_rng_new(seed, "test"), size = vq_rng_new(seed, "size");
	uint32_t i;

	for (i = 0; i < rows * cols; i++)
		m.a[i] = (float)(vq_rng_normal(r, i) * exp(vq_rng_normal(size, i % cols)));
	return m;
}

/* The generator of tests/vectors: exact in doubles. */
static struct matrix lcg_matrix(uint32_t rows, uint32_t cols, uint32_t *s)
{
	struct matrix m = new_matrix(rows, cols);
	uint32_t i;

	for (i = 0; i < rows * cols; i++) {
		*s = (1103515245u * *s + 12345u) & 0x7fffffff;
		m.a[i] = (float)(*s / 2147483648.0 - .5);
	}
	return m;
}

/* a b^T */
static double product(const struct matrix *a, uint32_t i, const struct matrix *b, uint32_t j)
{
	double sum = 0;
	uint32_t k;

	for (k = 0; k < a->cols; k++)
		sum += (double)a->a[i * a->cols + k] * b->a[j * b->cols + k];
	return sum;
}

/* The largest difference of x' W'^T from x W^T, relative to the lengths of the vectors. */
static double product_error(const struct vq_transform *t, const struct matrix *x,
			    const struct matrix *w)
{
	struct matrix xt = new_matrix(x->rows, x->cols), wt = new_matrix(w->rows, w->cols);
	struct vq_transform dual;
	struct vq_err err = {0};
	double worst = 0;
	uint32_t i, j;

	assert_int_equal(vq_transform_dual(&dual, t, &err), VQ_OK);
	vq_transform_rows(t, x->a, x->rows, xt.a);
	vq_transform_rows(&dual, w->a, w->rows, wt.a);
	for (i = 0; i < x->rows; i++)
		for (j = 0; j < w->rows; j++)
			worst = fmax(worst, fabs(product(x, i, w, j) - product(&xt, i, &wt, j)) /
						    sqrt(product(&xt, i, &xt, i) *
							 product(&wt, j, &wt, j)));
	vq_transform_free(&dual);
	vq_free(xt.a);
	vq_free(wt.a);
	return worst;
}

/* --- smoothing --- */

static void smoothing_shares_the_range_between_inputs_and_weights(void **state)
{
	const float x[] = {100, 1, .25f, 0, 4}, w[] = {1, 4, 1, .5f, 0};
	const float sign[] = {1, -1, 1, 1, -1};
	float scale[5];
	uint32_t i;

	(void)state;
	vq_smooth_scale(x, w, NULL, 5, .5, scale);
	assert_true(fabsf(scale[0] - .1f) < 1e-7f); /* sqrt(1 / 100): both become 10 */
	assert_true(scale[1] == 2);
	assert_true(scale[2] == 2);
	assert_true(fabsf(scale[3] - sqrtf(.5f / 100)) < 1e-7f); /* as if its input were 100 */
	assert_true(fabsf(scale[4] - sqrtf(1e-5f / 4)) < 1e-7f);
	vq_smooth_scale(x, w, sign, 5, 1, scale);
	for (i = 0; i < 5; i++)
		assert_true(scale[i] == sign[i] / (x[i] > 0 ? x[i] : 100));
	vq_smooth_scale(x, w, NULL, 5, 0, scale);
	for (i = 0; i < 4; i++)
		assert_true(fabsf(scale[i] - w[i]) < 1e-6f);
}

static void column_maxima_grow_over_calls(void **state)
{
	const float x[] = {1, -7, 3, -2, 5, 0};
	float max[3] = {0, 0, 0};

	(void)state;
	vq_column_max(x, 1, 3, max);
	assert_true(max[0] == 1 && max[1] == 7 && max[2] == 3);
	vq_column_max(x + 3, 1, 3, max);
	assert_true(max[0] == 2 && max[1] == 7 && max[2] == 3);
}

/* --- products --- */

static void products_survive_every_transform_of_inputs_and_weights(void **state)
{
	const uint32_t widths[] = {128, 640, 172, 48};
	uint32_t k;

	(void)state;
	for (k = 0; k < 4; k++) {
		uint32_t n = widths[k], block = vq_hadamard_block(n), i;
		struct matrix x = random_matrix(20, n, k), w = random_matrix(30, n, 10 + k);
		struct vq_transform t = {.n = n, .block = block};
		float *max = vq_calloc(2 * n, sizeof(*max), NULL), *scale = vq_alloc_f32(n, NULL);
		float *sign = vq_alloc_f32(n, NULL);
		float *m = vq_alloc_f32((size_t)n * 128, NULL);

		vq_column_max(x.a, x.rows, n, max);
		vq_column_max(w.a, w.rows, n, max + n);
		vq_sign_fill(sign, n, 3);
		assert_true(product_error(&t, &x, &w) < 1e-6);
		vq_smooth_scale(max, max + n, sign, n, .5, scale);
		t.scale = scale;
		assert_true(product_error(&t, &x, &w) < 1e-6);
		t.block = 0;
		assert_true(product_error(&t, &x, &w) < 1e-6);
		/* Any matrices that are well conditioned. */
		t.block = block;
		t.matrix = block ? m : NULL;
		for (i = 0; block && i < n * block; i++)
			m[i] = (float)(.05 * vq_rng_normal(vq_rng_new(5, "m"), i)) +
			       (i / block % block == i % block);
		assert_true(product_error(&t, &x, &w) < 1e-6);
		vq_free(x.a);
		vq_free(w.a);
		vq_free(max);
		vq_free(scale);
		vq_free(sign);
		vq_free(m);
	}
}

static void a_transform_that_loses_something_has_no_dual(void **state)
{
	float scale[16], m[2 * 256];
	struct vq_transform t = {.n = 32, .block = 16, .matrix = m}, dual;
	struct vq_err err = {0};
	uint32_t i;

	(void)state;
	for (i = 0; i < 512; i++)
		m[i] = i < 256 ? i / 16 == i % 16 : i % 16;
	assert_int_equal(vq_transform_dual(&dual, &t, &err), VQ_E_DATA);
	assert_non_null(strstr(err.text, "1 of 2 blocks"));
	err = (struct vq_err){0};
	for (i = 0; i < 16; i++)
		scale[i] = i == 9 ? 0 : 1;
	t = (struct vq_transform){.n = 16, .scale = scale};
	assert_int_equal(vq_transform_dual(&dual, &t, &err), VQ_E_DATA);
	assert_non_null(strstr(err.text, "at input 9"));
}

/* --- WUSH --- */

/* matrix for all blocks of x and w. */
static void fit(const struct matrix *x, const struct matrix *w, uint32_t block, double damp,
		float *matrix)
{
	size_t size = (size_t)x->cols * block, i;
	double *hx = vq_calloc(size, sizeof(*hx), NULL), *hw = vq_calloc(size, sizeof(*hw), NULL);
	struct vq_err err = {0};

	assert_int_equal(vq_block_moments(hx, x->a, x->rows, x->cols, block, &err), VQ_OK);
	assert_int_equal(vq_block_moments(hw, w->a, w->rows, w->cols, block, &err), VQ_OK);
	for (i = 0; i < size; i++) {
		hx[i] /= x->rows;
		hw[i] /= w->rows;
	}
	assert_int_equal(vq_wush_fit(x->cols, block, hx, hw, damp, matrix, &err), VQ_OK);
	vq_free(hx);
	vq_free(hw);
}

/* Columns i and j of x, mean of the product. */
static double moment(const struct matrix *x, uint32_t i, uint32_t j)
{
	double sum = 0;
	uint32_t r;

	for (r = 0; r < x->rows; r++)
		sum += (double)x->a[r * x->cols + i] * x->a[r * x->cols + j];
	return sum / x->rows;
}

/* Both moments within a block after the transform; returns the mean of their diagonals. */
static double check_moments(const struct matrix *x, const struct matrix *w, uint32_t block,
			    double bound)
{
	uint32_t n = x->cols, i, j;
	struct matrix xt = new_matrix(x->rows, n), wt = new_matrix(w->rows, n);
	float *m = vq_alloc_f32((size_t)n * block, NULL);
	struct vq_transform t = {.n = n, .block = block, .matrix = m}, dual;
	struct vq_err err = {0};
	double first = 0;

	fit(x, w, block, 0, m);
	assert_int_equal(vq_transform_dual(&dual, &t, &err), VQ_OK);
	vq_transform_rows(&t, x->a, x->rows, xt.a);
	vq_transform_rows(&dual, w->a, w->rows, wt.a);
	for (i = 0; i < n; i++) {
		double diag = moment(&xt, i, i);

		first = i == 0 ? diag : first;
		if (i % block != 0)
			assert_true(fabs(diag - moment(&xt, i - 1, i - 1)) < bound * diag);
		for (j = i / block * block; j < (i / block + 1) * block; j++)
			assert_true(fabs(moment(&xt, i, j) - moment(&wt, i, j)) < bound * diag);
	}
	vq_transform_free(&dual);
	vq_free(xt.a);
	vq_free(wt.a);
	vq_free(m);
	return first;
}

static void wush_makes_the_second_moments_of_inputs_and_weights_equal(void **state)
{
	struct matrix x = random_matrix(2000, 256, 1), w = random_matrix(300, 256, 2);

	(void)state;
	check_moments(&x, &w, 128, 1e-4);
	check_moments(&x, &w, 32, 1e-4);
	vq_free(x.a);
	vq_free(w.a);
}

static void wush_of_the_example_has_the_diagonal_of_the_vectors(void **state)
{
	uint32_t s = 5, i;
	struct matrix x = lcg_matrix(200, 8, &s), w;
	double want = json_number_value(vector("wush", "diag"));

	(void)state;
	for (i = 0; i < 200; i++)
		x.a[i * 8 + 2] *= 10;
	w = lcg_matrix(12, 8, &s);
	for (i = 0; i < 12; i++)
		w.a[i * 8 + 6] *= 4;
	assert_true(fabs(want - .19294542) < 1e-8);
	assert_true(fabs(check_moments(&x, &w, 8, 1e-4) - want) < 1e-6);
	vq_free(x.a);
	vq_free(w.a);
}

/* Had takes the transform back to S^1/2 V^T B^-T, whose rows are known but for their signs. */
static void check_factor(const json_t *c)
{
	struct matrix x = matrix_of(json_object_get(c, "X")),
		      w = matrix_of(json_object_get(c, "W")),
		      want = matrix_of(json_object_get(c, "factor"));
	uint32_t n = x.cols, known = (uint32_t)json_integer_value(json_object_get(c, "known")), i,
		 j;
	struct matrix m = new_matrix(n, n);

	fit(&x, &w, n, json_number_value(json_object_get(c, "damp")), m.a);
	for (i = 0; i < n; i++)
		vq_fwht(m.a + i * n, n);
	for (i = 0; i < known; i++) {
		double size = 0, plus = 0, minus = 0;

		for (j = 0; j < n; j++) {
			double a = m.a[j * n + i] / sqrt(n), b = want.a[i * n + j];

			size = fmax(size, fabs(b));
			plus = fmax(plus, fabs(a - b));
			minus = fmax(minus, fabs(a + b));
		}
		assert_true(fmin(plus, minus) < 1e-4 * size);
	}
	vq_free(x.a);
	vq_free(w.a);
	vq_free(want.a);
	vq_free(m.a);
}

static void fresh_cases_of_wush_agree_with_the_independent_reference(void **state)
{
	const size_t n = 24;
	size_t i;
	json_t *all = fresh_cases("wush_ref.py", 18, n);

	(void)state;
	for (i = 0; i < n; i++)
		check_factor(json_array_get(all, i));
	json_decref(all);
}

static void wush_takes_inputs_and_weights_of_zeros(void **state)
{
	struct matrix x = random_matrix(50, 64, 1), w = random_matrix(50, 64, 2);
	float m[64 * 16];
	struct vq_transform t = {.n = 64, .block = 16, .matrix = m}, dual;
	struct vq_err err = {0};
	uint32_t r, i;

	(void)state;
	for (r = 0; r < 50; r++)
		for (i = 0; i < 64; i++) {
			if (i < 16 || (i > 32 && i < 40))
				x.a[r * 64 + i] = 0;
			if (i >= 48 || i == 41)
				w.a[r * 64 + i] = 0;
		}
	fit(&x, &w, 16, .01, m);
	for (i = 0; i < 64 * 16; i++)
		assert_true(isfinite(m[i]));
	assert_int_equal(vq_transform_dual(&dual, &t, &err), VQ_OK);
	vq_transform_free(&dual);
	assert_true(product_error(&t, &x, &w) < 1e-5);
	x.a[3] = NAN;
	{
		double hx[64 * 16] = {0}, hw[64 * 16] = {0};

		assert_int_equal(vq_block_moments(hx, x.a, 50, 64, 16, &err), VQ_OK);
		assert_int_equal(vq_wush_fit(64, 16, hx, hw, .01, m, &err), VQ_E_DATA);
		assert_non_null(strstr(err.text, "1 of 4 blocks"));
	}
	vq_free(x.a);
	vq_free(w.a);
}

static void wush_does_not_depend_on_the_number_of_threads(void **state)
{
	struct matrix x = random_matrix(700, 640, 1), w = random_matrix(300, 640, 2);
	float *m[2];
	int i, most = omp_get_max_threads();

	(void)state;
	for (i = 0; i < 2; i++) {
		omp_set_num_threads(i == 0 ? 1 : 3);
		m[i] = vq_alloc_f32((size_t)640 * 128, NULL);
		fit(&x, &w, 128, .01, m[i]);
	}
	omp_set_num_threads(most);
	assert_memory_equal(m[0], m[1], (size_t)640 * 128 * sizeof(float));
	vq_free(m[0]);
	vq_free(m[1]);
	vq_free(x.a);
	vq_free(w.a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(smoothing_shares_the_range_between_inputs_and_weights),
		cmocka_unit_test(column_maxima_grow_over_calls),
		cmocka_unit_test(products_survive_every_transform_of_inputs_and_weights),
		cmocka_unit_test(a_transform_that_loses_something_has_no_dual),
		cmocka_unit_test(wush_makes_the_second_moments_of_inputs_and_weights_equal),
		cmocka_unit_test(wush_of_the_example_has_the_diagonal_of_the_vectors),
		cmocka_unit_test(fresh_cases_of_wush_agree_with_the_independent_reference),
		cmocka_unit_test(wush_takes_inputs_and_weights_of_zeros),
		cmocka_unit_test(wush_does_not_depend_on_the_number_of_threads),
	};

	return cmocka_run_group_tests(tests, load_vectors, free_vectors);
}
