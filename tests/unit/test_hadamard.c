/* quant/hadamard: signs and block Hadamard. */
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
#include "kernel/transform.h"
#include "quant/hadamard.h"

static void the_block_is_the_largest_power_of_two_that_divides(void **state)
{
	(void)state;
	assert_int_equal(vq_hadamard_block(4096), 128);
	assert_int_equal(vq_hadamard_block(11008), 128);
	assert_int_equal(vq_hadamard_block(320), 64);
	assert_int_equal(vq_hadamard_block(688), 16);
	assert_int_equal(vq_hadamard_block(172), 0);
	assert_int_equal(vq_hadamard_block(8), 0);
	assert_int_equal(vq_hadamard_block(0), 0);
}

static void h_times_its_transpose_is_n_times_identity(void **state)
{
	float h[128][128];
	uint32_t n, i, j, k;

	(void)state;
	for (n = 16; n <= 128; n *= 2) {
		memset(h, 0, sizeof(h));
		for (i = 0; i < n; i++) {
			h[i][i] = 1;
			vq_fwht(h[i], n);
		}
		for (i = 0; i < n; i++)
			for (j = 0; j < n; j++) {
				float sum = 0;

				for (k = 0; k < n; k++)
					sum += h[i][k] * h[j][k];
				assert_true(sum == (i == j ? (float)n : 0));
				assert_true(h[i][j] == h[j][i]);
				assert_true(fabsf(h[i][j]) == 1);
				/* Sylvester's: (-1)^popcount(i & j) */
				assert_true(h[i][j] == (__builtin_popcount(i & j) & 1 ? -1 : 1));
			}
	}
}

static void applied_twice_is_the_identity_but_for_the_signs(void **state)
{
	const uint32_t widths[] = {128, 640, 48, 16, 172};
	struct vq_rng r = vq_rng_new(8, "test");
	float x[3 * 640], y[3 * 640], sign[640], worst = 0;
	uint32_t w, i;

	(void)state;
	for (w = 0; w < 5; w++) {
		uint32_t n = widths[w];

		for (i = 0; i < 3 * n; i++)
			x[i] = y[i] = (float)vq_rng_normal(r, i);
		vq_hadamard_apply(y, 3, n, NULL);
		assert_true((memcmp(x, y, 3 * n * sizeof(float)) == 0) == (n == 172));
		vq_hadamard_apply(y, 3, n, NULL);
		for (i = 0; i < 3 * n; i++)
			worst = fmaxf(worst, fabsf(x[i] - y[i]));
		vq_sign_fill(sign, n, 42);
		vq_hadamard_apply(y, 3, n, sign);
		vq_hadamard_apply(y, 3, n, NULL);
		for (i = 0; i < 3 * n; i++)
			worst = fmaxf(worst, fabsf(x[i] * (n == 172 ? 1 : sign[i % n]) - y[i]));
	}
	assert_true(worst < 5e-6f);
}

static void products_survive_the_transform(void **state)
{
	struct vq_rng r = vq_rng_new(9, "test");
	float x[640], w[640], sign[640];
	double before = 0, after = 0;
	uint32_t i;

	(void)state;
	for (i = 0; i < 640; i++) {
		x[i] = (float)vq_rng_normal(r, i) * (i == 100 ? 60.0f : 1.0f);
		w[i] = (float)vq_rng_normal(r, 640 + i);
		before += (double)x[i] * w[i];
	}
	vq_sign_fill(sign, 640, 7);
	vq_hadamard_apply(x, 1, 640, sign);
	vq_hadamard_apply(w, 1, 640, sign);
	for (i = 0; i < 640; i++) {
		after += (double)x[i] * w[i];
		assert_true(fabsf(x[i]) < 12); /* the outlier of about 60 is spread */
	}
	assert_true(fabs(before - after) < 1e-3);
}

static void signs_are_seeded_and_balanced(void **state)
{
	float a[4096], b[4096];
	int sum = 0, i;

	(void)state;
	vq_sign_fill(a, 4096, 1);
	vq_sign_fill(b, 100, 1);
	assert_memory_equal(a, b, 100 * sizeof(float));
	vq_sign_fill(b, 4096, 2);
	assert_memory_not_equal(a, b, sizeof(a));
	for (i = 0; i < 4096; i++) {
		assert_true(fabsf(a[i]) == 1);
		sum += (int)a[i];
	}
	assert_true(abs(sum) < 4 * 64); /* four standard deviations */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_block_is_the_largest_power_of_two_that_divides),
		cmocka_unit_test(h_times_its_transpose_is_n_times_identity),
		cmocka_unit_test(applied_twice_is_the_identity_but_for_the_signs),
		cmocka_unit_test(products_survive_the_transform),
		cmocka_unit_test(signs_are_seeded_and_balanced),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
