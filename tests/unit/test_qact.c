/* kernel/qact: activation grids, in every kernel set. */
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
#include "base/num.h"
#include "base/rng.h"
#include "kernel/cpu.h"

static const uint32_t groups[] = {0, 128, 32, 20, 7};
#define N_GROUPS (sizeof(groups) / sizeof(groups[0]))

static void fill(float *x, size_t n, uint64_t seed)
{
	struct vq_rng r = vq_rng_new(seed, "test");
	size_t i;

	for (i = 0; i < n; i++) {
		x[i] = (float)vq_rng_normal(r, i);
		if (vq_rng_u64(r, i) % 37 == 0)
			x[i] *= 40.0f; /* outliers */
	}
}

static struct vq_qact quantize(const struct vq_kernels *k, const struct vq_agrid *g, const float *x,
			       size_t rows, uint32_t n)
{
	struct vq_qact a;

	assert_int_equal(vq_qact_alloc(&a, rows, n, g, NULL), VQ_OK);
	vq_kernels_use(k);
	vq_act_quantize(g, x, &a);
	return a;
}

/* torch's order of operations: x / d rounded, plus z, clamped. */
static void codes_follow_the_written_formula_to_the_bit(void **state)
{
	struct vq_agrid g = {4, 128, 0, 1.0f};
	struct vq_qact a;
	float x[300];
	uint32_t j, i;

	(void)state;
	fill(x, 300, 1);
	a = quantize(&vq_kernels_generic, &g, x, 1, 300);
	assert_int_equal(a.n_groups, 3);
	for (j = 0; j < 3; j++) {
		uint32_t end = 128 * (j + 1) < 300 ? 128 * (j + 1) : 300;
		float lo = 0, hi = 0, d, z;

		for (i = 128 * j; i < end; i++) {
			lo = fminf(lo, x[i]);
			hi = fmaxf(hi, x[i]);
		}
		d = (hi - lo) / 15;
		z = rintf(-lo / d);
		assert_true(a.scale[j] == d);
		assert_int_equal(a.zero[j], (int)z - 8);
		for (i = 128 * j; i < end; i++)
			assert_int_equal(a.q[i], (int)fminf(fmaxf(rintf(x[i] / d) + z, 0), 15) - 8);
	}
	vq_qact_free(&a);
}

static void symmetric_codes_reach_the_lowest_level_only_past_the_clip(void **state)
{
	struct vq_agrid g = {4, 0, 1, 0.5f};
	float x[4] = {-14.0f, 7.0f, 3.5f, 0.4f};
	struct vq_qact a = quantize(&vq_kernels_generic, &g, x, 1, 4);

	(void)state;
	assert_true(a.scale[0] == 1.0f); /* 0.5 * 14 / 7 */
	assert_int_equal(a.zero[0], 0);
	assert_int_equal(a.q[0], -8);
	assert_int_equal(a.q[1], 7);
	assert_int_equal(a.q[2], 4); /* 3.5 to even */
	assert_int_equal(a.q[3], 0);
	vq_qact_free(&a);
}

static void fake_values_are_those_of_the_integer_path(void **state)
{
	uint32_t bits, n, j, row, i, which;
	size_t n_tested = 0;

	(void)state;
	for (which = 0; vq_kernels_row(which); which++) {
		const struct vq_kernels *k = vq_kernels_row(which);

		if (!k->runs())
			continue;
		for (bits = 2; bits <= 8; bits++)
			for (n = 1; n <= 300; n += 23)
				for (j = 0; j < 2 * N_GROUPS; j++) {
					struct vq_agrid g = {bits, groups[j / 2], (int)(j % 2),
							     0.9f};
					float x[3 * 300], y[3 * 300];
					struct vq_qact a;
					uint32_t step = g.group ? g.group : n;

					fill(x, 3 * n, n + bits);
					a = quantize(k, &g, x, 3, n);
					vq_act_fake(&g, x, 3, n, y);
					for (row = 0; row < 3; row++)
						for (i = 0; i < n; i++) {
							size_t at = row * a.n_groups + i / step;
							float v = a.scale[at] *
								  (float)(a.q[row * a.stride + i] -
									  a.zero[at]);

							assert_memory_equal(&v, &y[row * n + i], 4);
							n_tested++;
						}
					vq_act_fake(&g, x, 3, n, x); /* in place */
					assert_memory_equal(x, y, 3 * n * sizeof(float));
					vq_qact_free(&a);
				}
	}
	print_message("# figure: fake activations equal integer ones bit for bit: %zu values\n",
		      n_tested);
}

/* Codes of a kernel set against generic's. */
static void compare(const struct vq_kernels *k, const struct vq_agrid *g, const float *x,
		    size_t rows, uint32_t n)
{
	struct vq_qact a = quantize(&vq_kernels_generic, g, x, rows, n);
	struct vq_qact b = quantize(k, g, x, rows, n);

	assert_memory_equal(a.q, b.q, rows * a.stride);
	assert_memory_equal(a.scale, b.scale, rows * a.n_groups * sizeof(float));
	assert_memory_equal(a.zero, b.zero, rows * a.n_groups * sizeof(int32_t));
	vq_qact_free(&a);
	vq_qact_free(&b);
}

static void every_kernel_set_gives_generics_codes(void **state)
{
	uint32_t bits, n, j, which;
	float x[2 * 300];

	(void)state;
	for (which = 0; vq_kernels_row(which); which++) {
		const struct vq_kernels *k = vq_kernels_row(which);

		if (!k->runs())
			continue;
		for (bits = 2; bits <= 8; bits++)
			for (n = 0; n <= 300; n++) {
				fill(x, 2 * n, n * 8 + bits);
				for (j = 0; j < 2 * N_GROUPS; j++) {
					struct vq_agrid g = {bits, groups[j / 2], (int)(j % 2),
							     j % 3 ? 1.0f : 0.8f};

					compare(k, &g, x, 2, n);
				}
			}
	}
}

static void degenerate_groups_give_numbers_and_never_nan(void **state)
{
	const float cases[][5] = {
		{0, 0, 0, 0, 0},
		{-0.0f, 0, -0.0f, 0, 0},
		{1e-45f, 0, 0, 0, 0},
		{3e-44f, -2e-44f, 1e-45f, 0, 0},
		{1e-38f, -1e-38f, 5e-39f, 0, 0},
		{1.7e38f, -1.7e38f, 1, 0, -1},
		{3e38f, -3e38f, 1, 0, -1},
		{3.4e38f, 3.4e38f, 1, 0, -1},
		{-3.4e38f, 1, 1, 0, -1},
		{5, 5, 5, 5, 5},
		{-7, -7, -7, -7, -7},
	};
	const float clips[] = {1.0f, 0.5f, 1e-30f};
	uint32_t bits, n, i, which, c;
	int sym;

	(void)state;
	for (which = 0; vq_kernels_row(which); which++)
		for (bits = 2; bits <= 8; bits++)
			for (n = 0; n < 3 * sizeof(cases) / sizeof(cases[0]); n++)
				for (sym = 0; sym < 2; sym++) {
					const float *x = cases[n / 3];
					struct vq_agrid g = {bits, 0, sym, clips[n % 3]};
					float y[5];

					c = n % 3;
					if (!vq_kernels_row(which)->runs())
						continue;
					compare(vq_kernels_row(which), &g, x, 1, 5);
					vq_act_fake(&g, x, 1, 5, y);
					for (i = 0; i < 5; i++) {
						assert_true(!isnan(y[i]));
						assert_true(isfinite(y[i]) ||
							    fabsf(x[0]) > 1.7e38f);
						/* Zero stays zero; signs stay. */
						assert_true(x[i] != 0 || y[i] == 0);
						assert_true(x[i] * y[i] >= 0 || c > 0);
					}
				}
}

static void inputs_that_are_not_numbers_do_no_harm(void **state)
{
	float x[40];
	uint32_t which, i;

	(void)state;
	for (i = 0; i < 40; i++)
		x[i] = i % 3 == 0 ? NAN : i % 3 == 1 ? (float)i : -INFINITY;
	for (which = 0; vq_kernels_row(which); which++)
		if (vq_kernels_row(which)->runs()) {
			struct vq_agrid g = {4, 16, 0, 1.0f};
			struct vq_qact a = quantize(vq_kernels_row(which), &g, x, 1, 40);

			for (i = 0; i < 40; i++)
				assert_in_range(a.q[i] + 8, 0, 15);
			vq_qact_free(&a);
		}
}

static void the_number_of_threads_does_not_show(void **state)
{
	struct vq_agrid g = {4, 128, 0, 0.95f};
	float *x = vq_alloc_f32(200 * 640, NULL);
	struct vq_qact one, a;
	int n;

	(void)state;
	fill(x, 200 * 640, 9);
	omp_set_num_threads(1);
	one = quantize(NULL, &g, x, 200, 640);
	for (n = 2; n <= 4; n++) {
		omp_set_num_threads(n);
		a = quantize(NULL, &g, x, 200, 640);
		assert_memory_equal(a.q, one.q, 200 * (size_t)a.stride);
		assert_memory_equal(a.scale, one.scale, 200 * a.n_groups * sizeof(float));
		vq_qact_free(&a);
	}
	vq_qact_free(&one);
	vq_free(x);
}

static void sixteen_bits_copy(void **state)
{
	struct vq_agrid g = {VQ_ACT_FLOAT, 0, 0, 1.0f};
	float x[3] = {1.5f, -2.25f, 1e-20f}, y[3];

	(void)state;
	vq_act_fake(&g, x, 1, 3, y);
	assert_memory_equal(x, y, sizeof(x));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(codes_follow_the_written_formula_to_the_bit),
		cmocka_unit_test(symmetric_codes_reach_the_lowest_level_only_past_the_clip),
		cmocka_unit_test(fake_values_are_those_of_the_integer_path),
		cmocka_unit_test(every_kernel_set_gives_generics_codes),
		cmocka_unit_test(degenerate_groups_give_numbers_and_never_nan),
		cmocka_unit_test(inputs_that_are_not_numbers_do_no_harm),
		cmocka_unit_test(the_number_of_threads_does_not_show),
		cmocka_unit_test(sixteen_bits_copy),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
