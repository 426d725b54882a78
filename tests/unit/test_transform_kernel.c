/* kernel/transform: the definition, and every kernel set beside generic's bits. */
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
#include "kernel/cpu.h"
#include "emulated.h"

enum { MAX_N = 768, MAX_ROWS = 61, MAX_BLOCK = 256 };

static float x[MAX_ROWS * MAX_N], scale[MAX_N], matrix[MAX_N * MAX_BLOCK];
static float want[MAX_ROWS * MAX_N], got[MAX_ROWS * MAX_N];

static int fill(void **state)
{
	struct vq_rng r = vq_rng_new(3, "transform");
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(x) / sizeof(x[0]); i++)
		x[i] = (float)vq_rng_normal(r, i) * (i % 41 ? 1.0f : 50.0f);
	for (i = 0; i < MAX_N; i++)
		scale[i] = (float)vq_rng_normal(r, 1000000 + i);
	for (i = 0; i < sizeof(matrix) / sizeof(matrix[0]); i++)
		matrix[i] = (float)vq_rng_normal(r, 2000000 + i);
	return 0;
}

/* Element (i, j) of Sylvester's matrix: the parity of the bits that i and j share. */
static double sylvester(uint32_t i, uint32_t j)
{
	return __builtin_popcount(i & j) % 2 ? -1 : 1;
}

static void generic_is_the_written_sum(void **state)
{
	static const uint32_t blocks[] = {0, 2, 8, 16, 64, 256};
	const uint32_t n = 768, rows = 3;
	double worst = 0;
	size_t b;
	int kind;

	(void)state;
	for (b = 0; b < sizeof(blocks) / sizeof(blocks[0]); b++)
		for (kind = 0; kind < 4; kind++) {
			uint32_t block = blocks[b], r, i, j;
			struct vq_transform t = {n, block, kind & 1 ? scale : NULL,
						 kind & 2 ? matrix : NULL};

			vq_transform_generic(&t, x, rows, got);
			for (r = 0; r < rows; r++)
				for (j = 0; j < n; j++) {
					const float *in = x + r * n;
					uint32_t first = block ? j / block * block : j;
					double sum = 0, size = 0;

					for (i = 0; i < (block ? block : 1); i++) {
						uint32_t at = first + i;
						double v = (double)in[at] *
							   (kind & 1 ? (double)scale[at] : 1);

						if (block)
							v *= kind & 2 ? (double)matrix
										[(size_t)first *
											 block +
										 i * block +
										 j % block]
								      : sylvester(i, j % block) /
										sqrt(block);
						sum += v;
						size += fabs(v);
					}
					worst = fmax(worst,
						     fabs(got[r * n + j] - sum) / (size + 1e-30));
				}
		}
	print_message(
		"# figure: transforms differ from double precision by at most %.2g of the sum of "
		"magnitudes\n",
		worst);
	assert_true(worst < 1e-6);
}

/* Writes generic's rows to want, and compares every set's, in place and not. */
static void compare(const struct vq_transform *t, size_t rows)
{
	size_t bytes = rows * t->n * sizeof(float);
	uint32_t which;

	vq_transform_generic(t, x, rows, want);
	for (which = 0; vq_kernels_row(which); which++) {
		const struct vq_kernels *k = vq_kernels_row(which);

		if (!k->runs())
			continue;
		if (which > 0) { /* not generic beside itself */
			memset(got, 0x55, bytes);
			k->transform(t, x, rows, got);
			if (memcmp(want, got, bytes) != 0)
				fail_msg("%s: block %u, width %u, %zu rows", k->name, t->block,
					 t->n, rows);
		}
		memcpy(got, x, bytes);
		k->transform(t, got, rows, got);
		assert_memory_equal(want, got, bytes);
	}
}

/* Every width that the block divides, with and without scale; in an emulator one of the two and not 6 rows. */
static void compare_widths(uint32_t block, const float *m)
{
	static const size_t n_rows[] = {1, 5, 6, 13, 25};
	uint32_t step = block ? block : 37, n, i;

	for (n = step; n <= MAX_N && n <= 7 * step; n += step)
		for (i = 0; i < 10; i += stride(3))
			compare(&(struct vq_transform){n, block, i % 2 ? scale : NULL, m},
				n_rows[i / 2]);
}

static void every_kernel_set_gives_generics_bits(void **state)
{
	static const uint32_t blocks[] = {0, 2, 4, 8, 16, 32, 64, 128, 256};
	static const uint32_t odd[] = {3, 24, 40, 48, 80, 96, 112, 192};
	size_t b;

	(void)state;
	for (b = 0; b < sizeof(blocks) / sizeof(blocks[0]); b++) {
		compare_widths(blocks[b], NULL);
		compare_widths(blocks[b], matrix);
	}
	for (b = 0; b < sizeof(odd) / sizeof(odd[0]); b++)
		compare_widths(odd[b], matrix);
}

static void any_number_of_threads_gives_the_same_bits(void **state)
{
	struct vq_transform t = {MAX_N, 128, scale, NULL};
	int n, kind;

	(void)state;
	for (kind = 0; kind < 2; kind++) {
		t.matrix = kind ? matrix : NULL;
		vq_transform_generic(&t, x, MAX_ROWS, want);
		for (n = 1; n <= 4; n++) {
			omp_set_num_threads(n);
			vq_transform_rows(&t, x, MAX_ROWS, got);
			assert_memory_equal(want, got, sizeof(want));
		}
		omp_set_num_threads(1);
	}
}

static void quantizing_at_once_gives_the_codes_of_two_steps(void **state)
{
	const struct vq_transform kinds[] = {{MAX_N, 0, scale, NULL},
					     {MAX_N, 128, scale, NULL},
					     {MAX_N, 256, NULL, NULL},
					     {MAX_N, 48, scale, matrix}};
	const struct vq_agrid g = {.bits = 4, .group = 128, .clip = 0.9f};
	struct vq_err err = {0};
	size_t i, rows;
	int threads;

	(void)state;
	for (i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		for (rows = 1; rows <= MAX_ROWS; rows += 12)
			for (threads = 1; threads <= 3; threads++) {
				struct vq_qact a, b;

				omp_set_num_threads(threads);
				assert_int_equal(vq_qact_alloc(&a, rows, MAX_N, &g, &err), VQ_OK);
				assert_int_equal(vq_qact_alloc(&b, rows, MAX_N, &g, &err), VQ_OK);
				vq_transform_rows(&kinds[i], x, rows, want);
				vq_act_quantize(&g, want, &a);
				assert_int_equal(vq_transform_quantize(&kinds[i], &g, x, &b, &err),
						 VQ_OK);
				assert_memory_equal(a.q, b.q, rows * a.stride);
				assert_memory_equal(a.scale, b.scale,
						    rows * a.n_groups * sizeof(float));
				assert_memory_equal(a.zero, b.zero,
						    rows * a.n_groups * sizeof(int32_t));
				vq_qact_free(&a);
				vq_qact_free(&b);
			}
	omp_set_num_threads(1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(generic_is_the_written_sum),
		cmocka_unit_test(every_kernel_set_gives_generics_bits),
		cmocka_unit_test(any_number_of_threads_gives_the_same_bits),
		cmocka_unit_test(quantizing_at_once_gives_the_codes_of_two_steps),
	};

	return cmocka_run_group_tests_name("transform", tests, fill, NULL);
}
