/* quant/refit: against weights that are known. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <omp.h>
#include <cmocka.h>

#include "quant/refit.h"
#include "random_layer.h"

enum { ROWS = 700, IN = 150, OUT = 70, MID = 90 };

/* Inputs, weights of rows, and e = true x + noise. */
struct problem {
	float *x, *e, *s, *truth;
};

static void problem_new(struct problem *p, double noise)
{
	float *extra = random_rows((size_t)ROWS * OUT, noise, 3);
	uint32_t i, o, k;

	p->x = random_rows((size_t)ROWS * IN, 1, 1);
	p->truth = random_rows((size_t)OUT * IN, 0.1, 2);
	p->s = random_rows(ROWS, 1, 4);
	p->e = extra;
	for (i = 0; i < ROWS; i++) {
		p->s[i] = p->s[i] * p->s[i];
		for (o = 0; o < OUT; o++)
			for (k = 0; k < IN; k++)
				p->e[i * OUT + o] += p->truth[o * IN + k] * p->x[i * IN + k];
	}
}

static void problem_free(struct problem *p)
{
	vq_free(p->x);
	vq_free(p->e);
	vq_free(p->s);
	vq_free(p->truth);
}

static void moments(const struct problem *p, struct vq_refit *r)
{
	assert_int_equal(vq_refit_new(r, IN, OUT, NULL), VQ_OK);
	assert_int_equal(vq_refit_add(r, p->x, p->e, p->s, ROWS, NULL), VQ_OK);
}

static void without_noise_and_ridge_the_truth_is_found(void **state)
{
	double *change = vq_alloc((size_t)OUT * IN, sizeof(double), NULL), error;
	struct problem p;
	struct vq_refit r;
	uint32_t i;

	(void)state;
	problem_new(&p, 0);
	moments(&p, &r);
	assert_int_equal(vq_refit_solve(&r, 0, change, NULL), VQ_OK);
	for (i = 0; i < OUT * IN; i++)
		assert_true(fabs(change[i] - p.truth[i]) < 1e-5);
	assert_int_equal(vq_refit_error(&r, change, &error, NULL), VQ_OK);
	assert_true(fabs(error) < 1e-9);
	memset(change, 0, (size_t)OUT * IN * sizeof(double));
	assert_int_equal(vq_refit_error(&r, change, &error, NULL), VQ_OK);
	assert_true(error == 1);
	vq_free(change);
	vq_refit_free(&r);
	problem_free(&p);
}

/* The normal equations of a ridge, and the error over the rows themselves. */
static void solution_satisfies_its_equations_and_the_error_is_that_of_the_rows(void **state)
{
	double *change = vq_alloc((size_t)OUT * IN, sizeof(double), NULL), got, missing = 0,
	       all = 0;
	const double ridge = 0.3;
	struct problem p;
	struct vq_refit r;
	uint32_t o, i, k, row;

	(void)state;
	problem_new(&p, 0.5);
	moments(&p, &r);
	assert_int_equal(vq_refit_solve(&r, ridge, change, NULL), VQ_OK);
	for (o = 0; o < OUT; o += 7)
		for (i = 0; i < IN; i++) {
			double left = ridge * r.h.h[i * IN + i] * change[o * IN + i];

			for (k = 0; k < IN; k++)
				left += change[o * IN + k] * r.h.h[i < k ? i * IN + k : k * IN + i];
			assert_true(fabs(left - r.g[o * IN + i]) < 1e-7);
		}
	for (row = 0; row < ROWS; row++)
		for (o = 0; o < OUT; o++) {
			double e = p.e[row * OUT + o];

			all += p.s[row] * e * e;
			for (k = 0; k < IN; k++)
				e -= change[o * IN + k] * p.x[row * IN + k];
			missing += p.s[row] * e * e;
		}
	assert_int_equal(vq_refit_error(&r, change, &got, NULL), VQ_OK);
	assert_true(fabs(got - missing / all) < 1e-6);
	vq_free(change);
	vq_refit_free(&r);
	problem_free(&p);
}

static void moments_behind_a_weight_are_those_of_its_outputs(void **state)
{
	float *w = random_rows((size_t)MID * IN, 0.1, 9);
	float *y = vq_calloc((size_t)ROWS * MID, sizeof(float), NULL);
	struct vq_refit r, behind, want;
	struct problem p;
	uint32_t i, o, k;

	(void)state;
	problem_new(&p, 0.5);
	moments(&p, &r);
	for (i = 0; i < ROWS; i++)
		for (o = 0; o < MID; o++)
			for (k = 0; k < IN; k++)
				y[i * MID + o] += w[o * IN + k] * p.x[i * IN + k];
	assert_int_equal(vq_refit_behind(&behind, &r, w, MID, NULL), VQ_OK);
	assert_int_equal(vq_refit_new(&want, MID, OUT, NULL), VQ_OK);
	assert_int_equal(vq_refit_add(&want, y, p.e, p.s, ROWS, NULL), VQ_OK);
	for (i = 0; i < MID; i++)
		for (k = i; k < MID; k++)
			assert_true(fabs(behind.h.h[i * MID + k] - want.h.h[i * MID + k]) < 1e-2);
	for (i = 0; i < OUT * MID; i++)
		assert_true(fabs(behind.g[i] - want.g[i]) < 1e-2);
	vq_refit_free(&r);
	vq_refit_free(&behind);
	vq_refit_free(&want);
	problem_free(&p);
	vq_free(w);
	vq_free(y);
}

static void solution_has_the_same_bytes_for_any_number_of_threads(void **state)
{
	double *change[2];
	struct problem p;
	struct vq_refit r;
	int t, was = omp_get_max_threads();

	(void)state;
	problem_new(&p, 0.5);
	for (t = 0; t < 2; t++) {
		omp_set_num_threads(t ? 4 : 1);
		change[t] = vq_alloc((size_t)OUT * IN, sizeof(double), NULL);
		moments(&p, &r);
		assert_int_equal(vq_refit_solve(&r, 0.1, change[t], NULL), VQ_OK);
		vq_refit_free(&r);
	}
	omp_set_num_threads(was);
	assert_memory_equal(change[0], change[1], (size_t)OUT * IN * sizeof(double));
	vq_free(change[0]);
	vq_free(change[1]);
	problem_free(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(without_noise_and_ridge_the_truth_is_found),
		cmocka_unit_test(
			solution_satisfies_its_equations_and_the_error_is_that_of_the_rows),
		cmocka_unit_test(moments_behind_a_weight_are_those_of_its_outputs),
		cmocka_unit_test(solution_has_the_same_bytes_for_any_number_of_threads),
	};

	return cmocka_run_group_tests_name("refit", tests, NULL, NULL);
}
