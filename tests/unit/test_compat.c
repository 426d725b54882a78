/* quant/compat: golden vectors from the authors' released code. */
#include <math.h>
#include <omp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/mem.h"
#include "base/rng.h"
#include "quant/compat.h"

static const float inputs[10] = {-1, -.6f, -.05f, 0, .04f, .3f, .77f, 1.4f, 2, 3.5f};

static void check(float lo, float hi, float s, float z, const int q[10], const float v[10])
{
	struct vq_compat_range r = vq_compat_range_of(4, lo, hi);
	int i;

	assert_true(fabsf(r.s - s) < 1e-6f);
	assert_true(r.z == z);
	for (i = 0; i < 10; i++) {
		assert_int_equal(vq_compat_code(&r, inputs[i]), q[i]);
		assert_true(fabsf(vq_compat_value(&r, q[i]) - v[i]) < 1e-6f);
	}
}

static void the_authors_quantizer_gives_its_golden_codes(void **state)
{
	(void)state;
	check(-1, 2, 5, 3, (const int[]){-8, -6, -3, -3, -3, -2, 1, 4, 7, 7},
	      (const float[]){-1, -.6f, 0, 0, 0, .2f, .8f, 1.4f, 2, 2});
	check(0, 3.5f, 4.285715f, 8, (const int[]){-8, -8, -8, -8, -8, -7, -5, -2, 1, 7},
	      (const float[]){0, 0, 0, 0, 0, .233333f, .7f, 1.4f, 2.1f, 3.5f});
	check(-1, 3.5f, 3.333333f, 5, (const int[]){-8, -7, -5, -5, -5, -4, -2, 0, 2, 7},
	      (const float[]){-.9f, -.6f, 0, 0, 0, .3f, .9f, 1.5f, 2.1f, 3.6f});
}

static void an_empty_range_gives_its_value_where_the_authors_divide_by_zero(void **state)
{
	struct vq_compat_range r = vq_compat_range_of(4, 1.5f, 1.5f);

	(void)state;
	assert_true(vq_compat_value(&r, vq_compat_code(&r, 7.0f)) == 1.5f);
}

static void the_authors_entropy_and_ded_give_their_golden_values(void **state)
{
	const float a[] = {1, 2, 3, 4, 5, 6}, b[] = {2, 1, 0, 3, 4, 5};
	double ha = vq_compat_entropy(a, 3, 2), hb = vq_compat_entropy(b, 3, 2);
	double ab = vq_compat_ded(a, b, 3, 2), aa = vq_compat_ded(a, a, 3, 2);

	(void)state;
	print_message("# figure: authors' cal_entropy %.6f %.6f (want .825807 .623344), "
		      "compute_DED %.6f %.6f (want 1.068798 1.098565)\n",
		      ha, hb, ab, aa);
	assert_true(fabs(ha - .825807) < 2e-6);
	assert_true(fabs(hb - .623344) < 2e-6);
	assert_true(fabs(ab - 1.068798) < 2e-6);
	assert_true(fabs(aa - 1.098565) < 2e-6);
}

/* 41 points and two outliers: L0.5 prefers to over-clip, the squared error does not. */
static void the_authors_clip_search_over_clips_where_squares_do_not(void **state)
{
	static const double half[7] = {.388611, .402805, .405709, .381015,
				       .357806, .356347, .326548};
	static const double mse[7] = {.038941, .051981, .088557, .150328,
				      .242819, .367804, .519143};
	float x[43];
	double loss[VQ_COMPAT_RATIOS];
	int i;

	(void)state;
	/* torch.linspace(-1, 1, 41): a float step, counted from the nearer end and fused, which puts the
	 * middle at -1.5e-8; the square root of the error sees it in the sixth digit. */
	for (i = 0; i < 41; i++)
		x[i] = i < 20 ? fmaf(0.05f, (float)i, -1) : fmaf(-0.05f, (float)(40 - i), 1);
	x[41] = 6;
	x[42] = -5;
	assert_int_equal(vq_compat_clip_search(x, 43, 4, 0.5, loss), 6);
	for (i = 0; i < 7; i++)
		assert_true(fabs(loss[i] - half[i]) < 1e-6);
	print_message(
		"# figure: authors' clip search: L0.5 picks %.1f, loss %.6f (want 0.4, .326548)\n",
		(double)vq_compat_ratio(6), loss[6]);
	assert_int_equal(vq_compat_clip_search(x, 43, 4, 2, loss), 0);
	for (i = 0; i < 7; i++)
		assert_true(fabs(loss[i] - mse[i]) < 1e-6);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_authors_quantizer_gives_its_golden_codes),
		cmocka_unit_test(an_empty_range_gives_its_value_where_the_authors_divide_by_zero),
		cmocka_unit_test(the_authors_entropy_and_ded_give_their_golden_values),
		cmocka_unit_test(the_authors_clip_search_over_clips_where_squares_do_not),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
