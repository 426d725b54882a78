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
#include "kernel/qact_rows.h"

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
	struct vq_agrid g = {.bits = 4, .group = 128, .clip = 1};
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
	struct vq_agrid g = {.bits = 4, .sym = 1, .clip = 0.5f};
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
					struct vq_agrid g = {.bits = bits,
							     .group = groups[j / 2],
							     .sym = (int)(j % 2),
							     .clip = 0.9f};
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
					struct vq_agrid g = {.bits = bits,
							     .group = groups[j / 2],
							     .sym = (int)(j % 2),
							     .clip = j % 3 ? 1.0f : 0.8f};

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
					struct vq_agrid g = {
						.bits = bits, .sym = sym, .clip = clips[n % 3]};
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
			struct vq_agrid g = {.bits = 4, .group = 16, .clip = 1};
			struct vq_qact a = quantize(vq_kernels_row(which), &g, x, 1, 40);

			for (i = 0; i < 40; i++)
				assert_in_range(a.q[i] + 8, 0, 15);
			vq_qact_free(&a);
		}
}

static void the_number_of_threads_does_not_show(void **state)
{
	struct vq_agrid g = {.bits = 4, .group = 128, .clip = 0.95f};
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

/* Stored ranges of a kind for rows of n inputs, in lo and hi [n_ranges]: within the values, so that some are cut. */
static struct vq_agrid stored(enum vq_act_range range, uint32_t bits, uint32_t group, int sym,
			      uint32_t n, float *lo, float *hi)
{
	struct vq_agrid g = {.bits = bits,
			     .group = range == VQ_RANGE_STATIC    ? group
				      : range == VQ_RANGE_CHANNEL ? 1
								  : 0,
			     .sym = sym,
			     .clip = 1,
			     .range = range,
			     .lo = lo,
			     .hi = hi};
	struct vq_rng r = vq_rng_new(n, "ranges");
	uint32_t i;

	g.n_ranges = vq_agrid_n_ranges(&g, n, 2);
	for (i = 0; i < g.n_ranges; i++) {
		lo[i] = i % 5 == 4 ? 0 : -(float)vq_rng_uniform(r, 2 * i) * 2;
		hi[i] = i % 7 == 6 ? 0 : (float)vq_rng_uniform(r, 2 * i + 1) * 2;
	}
	return g;
}

static const enum vq_act_range kinds[] = {VQ_RANGE_STATIC, VQ_RANGE_CHANNEL, VQ_RANGE_POSITION};

static void stored_ranges_give_the_same_codes_and_values_in_every_kernel_set(void **state)
{
	static float x[4 * 300], y[4 * 300], z[4 * 300], lo[300], hi[300];
	uint32_t bits, n, j, which, i, row;

	(void)state;
	for (which = 0; vq_kernels_row(which); which++) {
		const struct vq_kernels *k = vq_kernels_row(which);

		for (bits = 2; k->runs() && bits <= 8; bits++)
			for (n = 1; n <= 300; n += 13)
				for (j = 0; j < 6 * N_GROUPS; j++) {
					struct vq_agrid g =
						stored(kinds[j % 3], bits, groups[j / 6],
						       (int)(j / 3 % 2), n, lo, hi);
					uint32_t step = g.group ? g.group : n;
					struct vq_qact a;

					fill(x, 4 * n, n + bits);
					compare(k, &g, x, 4, n);
					a = quantize(&vq_kernels_generic, &g, x, 4, n);
					vq_act_fake(&g, x, 4, n, y);
					vq_kernels_use(k);
					vq_act_fake(&g, x, 4, n, z);
					assert_memory_equal(y, z, 4 * n * sizeof(float));
					for (row = 0; row < 4; row++)
						for (i = 0; i < n; i++) {
							size_t at = row * a.n_groups + i / step;
							float v = a.scale[at] *
								  (float)(a.q[row * a.stride + i] -
									  a.zero[at]);

							assert_true(v == y[row * n + i]);
						}
					vq_qact_free(&a);
				}
	}
}

/* A range that equals what the token has gives what the token's own gives; each kind looks its range up in its place. */
static void stored_ranges_are_those_of_their_channel_position_or_group(void **state)
{
	float x[4 * 6] = {1, -2, 3,  0, 5, -6, 2, 2,  2, -1, 0.5f, 4,
			  3, -1, -3, 9, 1, 0,  7, -5, 1, 1,  -8,   2};
	float lo[24], hi[24], want[24], got[24], t[4];
	struct vq_agrid token = {.bits = 4, .clip = 1}, g = token;
	uint32_t r, i;

	(void)state;
	g.range = VQ_RANGE_POSITION;
	g.n_ranges = 2;
	g.lo = lo;
	g.hi = hi;
	lo[0] = -6, hi[0] = 5; /* of row 0 */
	lo[1] = -1, hi[1] = 4; /* of row 1 */
	vq_act_fake(&token, x, 2, 6, want);
	vq_act_fake(&g, x, 2, 6, got);
	assert_memory_equal(got, want, 12 * sizeof(float));
	vq_act_fake(&g, x + 6, 2, 6, got + 6); /* row 1 is at position 0 now */
	assert_memory_not_equal(got + 6, want + 6, 6 * sizeof(float));
	g.range = VQ_RANGE_CHANNEL;
	g.n_ranges = 6;
	g.group = 1;
	for (i = 0; i < 6; i++) {
		lo[i] = hi[i] = 0;
		for (r = 0; r < 4; r++) {
			t[r] = x[6 * r + i];
			lo[i] = t[r] < lo[i] ? t[r] : lo[i];
			hi[i] = t[r] > hi[i] ? t[r] : hi[i];
		}
		vq_act_fake(&token, t, 1, 4, t); /* a column is a token of four inputs */
		for (r = 0; r < 4; r++)
			want[6 * r + i] = t[r];
	}
	vq_act_fake(&g, x, 4, 6, got);
	assert_memory_equal(got, want, sizeof(got));
}

/* All rows at once give what the definition gives token by token, whatever comes: ties, ranges of nothing, inputs far
 * outside, infinities, NaN. */
static void channels_of_all_rows_are_the_definition(void **state)
{
	enum { N = 150, ROWS = 40 };
	static float x[ROWS * N], lo[N], hi[N], want[ROWS * N], got[ROWS * N];
	const float odd[] = {INFINITY, -INFINITY, NAN, 1e30f, -1e30f, 0, -0.0f, 1e-38f};
	struct vq_rng r = vq_rng_new(5, "channels");
	struct vq_agrid g = {.clip = 1,
			     .group = 1,
			     .range = VQ_RANGE_CHANNEL,
			     .n_ranges = N,
			     .lo = lo,
			     .hi = hi};
	size_t i;

	(void)state;
	for (i = 0; i < N; i++) {
		lo[i] = i % 11 == 0 ? 0 : (float)-vq_rng_uniform(r, 3 * i);
		hi[i] = i % 11 == 0 || i % 13 == 0 ? 0 : (float)vq_rng_uniform(r, 3 * i + 1);
	}
	lo[1] = -1, hi[1] = 2; /* at 4 bits steps of .2: multiples of .1 are ties */
	for (i = 0; i < ROWS * N; i++)
		x[i] = i % 17 == 0  ? odd[i / 17 % 8]
		       : i % N == 1 ? 0.1f * (float)(i / N)
				    : (float)vq_rng_normal(r, 1000 + i);
	for (g.bits = 2; g.bits <= 8; g.bits++)
		for (g.sym = 0; g.sym < 2; g.sym++) {
			for (i = 0; i < ROWS; i++)
				vq_act_fake_generic(&g, x + i * N, N, want + i * N);
			vq_act_fake(&g, x, ROWS, N, got);
			assert_memory_equal(got, want, sizeof(got));
		}
}

/* Codes and values that the authors' quantizer gives (run on a CPU; torch 1.13).  Theirs divides by the step's
 * reciprocal and rounds x / step less the zero point at once; ours rounds x / step and then adds it, so that ties
 * fall otherwise where the zero point is odd: one of these does.  Values agree but for float rounding.  Theirs may
 * have a range without 0, and then a zero point past the codes; ours holds 0 always. */
static void the_released_codes_golden_vectors_hold_where_rules_coincide(void **state)
{
	static const float x[10] = {-1, -.6f, -.05f, 0, .04f, .3f, .77f, 1.4f, 2, 3.5f};
	static const struct {
		float lo, hi;
		int q[10];
		float v[10];
	} cases[] = {
		{-1,
		 2,
		 {-8, -6, -3, -3, -3, -2, 1, 4, 7, 7},
		 {-1, -.6f, 0, 0, 0, .2f, .8f, 1.4f, 2, 2}},
		{0,
		 3.5f,
		 {-8, -8, -8, -8, -8, -7, -5, -2, 1, 7},
		 {0, 0, 0, 0, 0, .233333f, .7f, 1.4f, 2.1f, 3.5f}},
		{-1,
		 3.5f,
		 {-8, -7, -5, -5, -5, -4, -2, 0, 2, 7},
		 {-.9f, -.6f, 0, 0, 0, .3f, .9f, 1.5f, 2.1f, 3.6f}},
	};
	size_t c;
	int i;

	(void)state;
	for (c = 0; c < 3; c++) {
		struct vq_agrid g = {.bits = 4,
				     .clip = 1,
				     .range = VQ_RANGE_STATIC,
				     .n_ranges = 1,
				     .lo = &cases[c].lo,
				     .hi = &cases[c].hi};
		struct vq_qact a = quantize(&vq_kernels_generic, &g, x, 1, 10);
		float v[10];

		vq_act_fake(&g, x, 1, 10, v);
		for (i = 0; i < 10; i++) {
			int tie = c == 0 &&
				  i == 5; /* .3 / .2 = 1.5 -> 2; theirs 1.5 - 3 = -1.5 -> -2 */

			assert_int_equal(a.q[i], cases[c].q[i] + tie);
			assert_true(fabsf(v[i] - cases[c].v[i] - (tie ? .2f : 0)) < 1e-6f);
		}
		vq_qact_free(&a);
	}
}

static void grids_say_what_they_store_and_whether_integers_can_run_them(void **state)
{
	const float lo[3] = {-1, -2, -3}, hi[3] = {1, 2, 3}, same[3] = {-1, -2, -3},
		    bad[2] = {0.5f, NAN};
	struct vq_agrid g = {.bits = 4, .group = 128, .clip = 1}, h;
	struct vq_err err = {0};

	(void)state;
	assert_int_equal(vq_agrid_n_ranges(&g, 300, 17), 0);
	assert_true(vq_agrid_is_integer(&g));
	g.range = VQ_RANGE_STATIC;
	assert_int_equal(vq_agrid_n_ranges(&g, 300, 17), 3);
	g.n_ranges = 3;
	g.lo = lo;
	g.hi = hi;
	h = g;
	h.lo = same;
	assert_true(vq_agrid_same(&g, &h));
	h.lo = hi;
	assert_false(vq_agrid_same(&g, &h));
	assert_true(vq_agrid_is_integer(&g));
	assert_int_equal(vq_agrid_chunk(&g, 512), 512);
	g.range = VQ_RANGE_POSITION;
	assert_int_equal(vq_agrid_n_ranges(&g, 300, 17), 17);
	assert_true(vq_agrid_is_integer(&g));
	g.n_ranges = 17;
	assert_int_equal(vq_agrid_chunk(&g, 512), 527);
	g.range = VQ_RANGE_CHANNEL;
	g.group = 1;
	assert_int_equal(vq_agrid_n_ranges(&g, 300, 17), 300);
	assert_false(vq_agrid_is_integer(&g));
	g.bits = VQ_ACT_FLOAT;
	assert_false(vq_agrid_is_integer(&g));
	assert_int_equal(vq_agrid_check_ranges(lo, hi, 3, "x", &err), VQ_OK);
	assert_int_equal(vq_agrid_check_ranges(bad, hi, 1, "x", &err), VQ_E_DATA);
	assert_int_equal(vq_agrid_check_ranges(lo, bad + 1, 1, "x", &err), VQ_E_DATA);
	assert_non_null(strstr(err.text, "want lo <= 0 <= hi"));
}

static void sixteen_bits_copy(void **state)
{
	struct vq_agrid g = {.bits = VQ_ACT_FLOAT, .clip = 1};
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
		cmocka_unit_test(stored_ranges_give_the_same_codes_and_values_in_every_kernel_set),
		cmocka_unit_test(stored_ranges_are_those_of_their_channel_position_or_group),
		cmocka_unit_test(channels_of_all_rows_are_the_definition),
		cmocka_unit_test(the_released_codes_golden_vectors_hold_where_rules_coincide),
		cmocka_unit_test(grids_say_what_they_store_and_whether_integers_can_run_them),
		cmocka_unit_test(sixteen_bits_copy),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
