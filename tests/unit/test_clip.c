/* quant/clip: clip ratios from percentiles. */
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
#include "quant/clip.h"

static void the_first_percentile_never_clips_and_the_others_fall(void **state)
{
	struct vq_rng r = vq_rng_new(1, "test");
	struct vq_clip_hist *h = vq_alloc(1, sizeof(*h), NULL);
	size_t n = 64 * 1280, i;
	float *x = vq_alloc_f32(n, NULL), last = 2;
	int sym, k;

	(void)state;
	for (i = 0; i < n; i++)
		x[i] = (float)(vq_rng_normal(r, i) * (vq_rng_u64(r, i) % 50 ? 1 : 8));
	for (sym = 0; sym < 2; sym++) {
		vq_clip_init(h, 32, sym);
		vq_clip_add(h, x, 64, 1280);
		assert_int_equal(h->total, n - n / 32 * (sym ? 1 : 2));
		for (k = 0, last = 2; k < VQ_N_PERCENTILES; k++) {
			float c = vq_clip_ratio(h, vq_clip_percentiles[k]);

			assert_true(k > 0 || c == 1.0f);
			assert_true(c > 0 && c < last);
			last = c;
		}
	}
	vq_free(x);
	vq_free(h);
}

/* Brute force: how many values does the ratio cut from each group? */
static void a_ratio_cuts_the_share_that_its_percentile_says(void **state)
{
	struct vq_rng r = vq_rng_new(2, "test");
	struct vq_clip_hist *h = vq_alloc(1, sizeof(*h), NULL);
	size_t rows = 200, n = 640, row, at, i;
	float *x = vq_alloc_f32(rows * n, NULL);
	int sym, k;

	(void)state;
	for (i = 0; i < rows * n; i++)
		x[i] = (float)(vq_rng_normal(r, i) + 0.3);
	for (sym = 0; sym < 2; sym++) {
		vq_clip_init(h, 0, sym);
		vq_clip_add(h, x, rows, (uint32_t)n);
		for (k = 1; k < VQ_N_PERCENTILES; k++) {
			double p = vq_clip_percentiles[k], share;
			float c = vq_clip_ratio(h, p);
			size_t cut = 0;

			for (row = 0; row < rows; row++) {
				float lo = 0, hi = 0;

				for (at = row * n; at < (row + 1) * n; at++) {
					lo = fminf(lo, x[at]);
					hi = fmaxf(hi, x[at]);
				}
				if (sym)
					hi = fmaxf(hi, -lo), lo = -hi;
				for (at = row * n; at < (row + 1) * n; at++)
					cut += x[at] > c * hi || x[at] < c * lo;
				cut -= sym ? 1 : 2; /* the ends are not counted */
			}
			share = (double)cut / (double)h->total;
			print_message(
				"# figure: clip p=%.3f %s: ratio %.4f cuts %.3f %% of the values "
				"(asked %.1f %%)\n",
				p, sym ? "symmetric" : "asymmetric", (double)c, 100 * share,
				200 * (1 - p));
			assert_true(fabs(share - 2 * (1 - p)) < 5e-4);
		}
	}
	vq_free(x);
	vq_free(h);
}

static void groups_of_zeros_and_of_one_value_do_no_harm(void **state)
{
	struct vq_clip_hist *h = vq_alloc(1, sizeof(*h), NULL);
	float x[96] = {0};
	size_t i;

	(void)state;
	vq_clip_init(h, 32, 0);
	vq_clip_add(h, x, 1, 96);
	assert_int_equal(h->total, 0);
	assert_true(vq_clip_ratio(h, 0.98) == 1.0f);
	for (i = 0; i < 32; i++)
		x[i] = 5.0f;
	x[40] = 1e-42f;
	vq_clip_add(h, x, 1, 96);
	assert_int_equal(h->total, 31);
	assert_true(vq_clip_ratio(h, 0.98) == 1.0f);
	vq_clip_add(h, x, 0, 96);
	vq_clip_add(h, x, 1, 0);
	vq_free(h);
}

static void counts_do_not_depend_on_the_number_of_threads(void **state)
{
	struct vq_rng r = vq_rng_new(3, "test");
	struct vq_clip_hist *a = vq_alloc(2, sizeof(*a), NULL);
	size_t n = (size_t)3000 * 1000, i;
	float *x = vq_alloc_f32(n, NULL);
	int t;

	(void)state;
	for (i = 0; i < n; i++)
		x[i] = (float)vq_rng_uniform(r, i) - 0.4f;
	omp_set_num_threads(1);
	vq_clip_init(a, 64, 0);
	vq_clip_add(a, x, 3000, 1000);
	for (t = 2; t <= 4; t++) {
		omp_set_num_threads(t);
		vq_clip_init(a + 1, 64, 0);
		vq_clip_add(a + 1, x, 3000, 1000);
		assert_memory_equal(a, a + 1, sizeof(*a));
	}
	vq_free(a);
	vq_free(x);
}

static void percentile_bounds_take_the_values_of_the_authors_rule(void **state)
{
	float x[1000], lo, hi;
	int i, k;

	(void)state;
	for (k = 0; k < VQ_N_PERCENTILES; k++) {
		for (i = 0; i < 1000; i++)
			x[i] = (float)((i * 7) % 1000); /* the numbers 0..999, out of order */
		vq_clip_bounds(x, 1000, vq_clip_percentiles[k], &lo, &hi);
		assert_int_equal((int)lo, 5 * k);
		assert_int_equal((int)hi, k ? 1000 - 5 * k : 999);
	}
	vq_clip_bounds(x, 1, 0.98, &lo, &hi);
	assert_true(lo == x[0] && hi == x[0]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_first_percentile_never_clips_and_the_others_fall),
		cmocka_unit_test(a_ratio_cuts_the_share_that_its_percentile_says),
		cmocka_unit_test(groups_of_zeros_and_of_one_value_do_no_harm),
		cmocka_unit_test(counts_do_not_depend_on_the_number_of_threads),
		cmocka_unit_test(percentile_bounds_take_the_values_of_the_authors_rule),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
