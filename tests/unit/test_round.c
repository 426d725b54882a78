/* kernel/round: every instruction set gives the bits of generic, over lengths 0..300, at any alignment, beside guard pages. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <cmocka.h>

#include "base/num.h"
#include "base/rng.h"
#include "kernel/round.h"

#define MOST 300
#define ROWS 8
#define AREA ((size_t)64 << 10) /* bytes before a guard page */
#define PAGE ((size_t)64 << 10) /* at least the system's */

static const struct vq_round *const others[] = {
#if defined(__x86_64__)
	&vq_round_avx2,
	&vq_round_avx512,
#endif
	&vq_round_generic,
};
#define N_OTHERS (sizeof(others) / sizeof(others[0]))

static int runs(const struct vq_round *r)
{
#if defined(__x86_64__)
	if (r == &vq_round_avx2)
		return __builtin_cpu_supports("avx2") != 0;
	if (r == &vq_round_avx512)
		return __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw");
#endif
	return r == &vq_round_generic;
}

/* The end of memory that nobody may pass. */
static uint8_t *area(void)
{
	uint8_t *p =
		mmap(NULL, AREA + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	assert_true(p != MAP_FAILED);
	assert_int_equal(mprotect(p + AREA, PAGE, PROT_NONE), 0);
	return p + AREA;
}

/* Ordinary weights, and now and then what is special. */
static void fill(float *w, size_t n, uint64_t seed)
{
	static const float odd[] = {0.0f,     -0.0f,     1e-45f, -3e38f,      3e38f,
				    INFINITY, -INFINITY, NAN,    0.49999997f, -2.5f};
	struct vq_rng r = vq_rng_new(seed, "round");
	size_t i;

	for (i = 0; i < n; i++)
		w[i] = vq_rng_u64(r, i + 7000) % 23 ? (float)vq_rng_normal(r, i)
						    : odd[vq_rng_u64(r, i + 9000) % 10];
}

static void each_set_rounds_as_generic_does(void **state)
{
	const struct vq_round *g = &vq_round_generic;
	float *w, *x, want[MOST], lo, hi, lo2, hi2;
	uint8_t *end = area(), *u_end = area(), *x_end = area(), *u, codes[MOST];
	size_t o, n;

	(void)state;
	for (o = 0; o < N_OTHERS; o++)
		for (n = 0; n <= MOST && runs(others[o]); n++) {
			float top = (float)((1u << (2 + n % 7)) - 1),
			      z = (float)(n % ((size_t)top + 1));
			float s = n % 5 ? 0.1f * (float)(n % 5) : 0x1p-24f;

			w = (float *)(void *)(end - n * sizeof(float));
			x = (float *)(void *)(x_end - n * sizeof(float));
			u = u_end - n;
			fill(w, n, n);
			g->range(w, n, &lo, &hi);
			others[o]->range(w, n, &lo2, &hi2);
			assert_memory_equal(&lo, &lo2, sizeof(lo));
			assert_memory_equal(&hi, &hi2, sizeof(hi));
			g->codes(w, n, s, z, top, codes);
			others[o]->codes(w, n, s, z, top, u);
			assert_memory_equal(codes, u, n);
			g->values(codes, n, s, z, want);
			others[o]->values(u, n, s, z, x);
			assert_memory_equal(want, x, n * sizeof(float));
		}
	munmap(end - AREA, AREA + PAGE);
	munmap(u_end - AREA, AREA + PAGE);
	munmap(x_end - AREA, AREA + PAGE);
}

/* The meaning itself, by another way. */
static void codes_are_the_nearest_of_the_grid(void **state)
{
	float w[MOST], back[MOST];
	uint8_t u[MOST];
	size_t i;

	(void)state;
	for (i = 0; i < MOST; i++)
		w[i] = -2.0f + 0.0137f * (float)i;
	vq_round_codes(w, MOST, 0.25f, 8, 15, u);
	vq_round_values(u, MOST, 0.25f, 8, back);
	for (i = 0; i < MOST; i++) {
		float near = fminf(fmaxf(w[i], -2.0f), 1.75f);

		assert_true(fabsf(back[i] - near) <= 0.125f);
	}
	assert_int_equal(vq_round_bits(u, MOST), 15);
	memset(u, 0, sizeof(u));
	for (i = 0; i < MOST; i++) {
		u[i] = 0x40;
		assert_int_equal(vq_round_bits(u, MOST), 0x40);
		assert_int_equal(vq_round_bits(u, i), 0);
		u[i] = 0;
	}
}

static void errors_of_rows_are_sums_in_their_order(void **state)
{
	uint8_t *end = area(), *q_end = area();
	size_t o, n, i, r;

	(void)state;
	for (o = 0; o < N_OTHERS; o++)
		for (n = 0; n <= MOST && runs(others[o]); n++) {
			float *w = (float *)(void *)(end - ROWS * n * sizeof(float));
			float *q = (float *)(void *)(q_end - ROWS * n * sizeof(float));
			double e[ROWS], f[ROWS], e2[ROWS] = {1, 2}, f2[ROWS] = {3};
			struct vq_rng rng = vq_rng_new(n, "errors");

			for (i = 0; i < ROWS * n; i++) {
				w[i] = (float)vq_rng_normal(rng, i);
				q[i] = 0.25f * rintf(4 * w[i]);
			}
			for (r = 0; r < ROWS; r++) {
				e[r] = e2[r];
				f[r] = f2[r];
				for (i = r * n; i < (r + 1) * n; i++) {
					double d = (double)q[i] - (double)w[i];

					e[r] += d * d;
					f[r] += (double)w[i] * (double)w[i];
				}
			}
			others[o]->errors(w, q, n, e2, f2);
			assert_memory_equal(e, e2, sizeof(e));
			assert_memory_equal(f, f2, sizeof(f));
		}
	munmap(end - AREA, AREA + PAGE);
	munmap(q_end - AREA, AREA + PAGE);
}

static void distances_of_rows_run_on_four_lanes(void **state)
{
	uint8_t *end = area(), *b_end = area();
	size_t o, n, i, r;

	(void)state;
	for (o = 0; o < N_OTHERS; o++)
		for (n = 0; n <= MOST && runs(others[o]); n++) {
			float *a = (float *)(void *)(end - 4 * n * sizeof(float));
			float *b = (float *)(void *)(b_end - 4 * n * sizeof(float));
			double e[4], e2[4], s[4];
			struct vq_rng rng = vq_rng_new(n, "distances");

			for (i = 0; i < 4 * n; i++) {
				a[i] = (float)vq_rng_normal(rng, i);
				b[i] = (float)vq_rng_normal(rng, i + 5000);
			}
			for (r = 0; r < 4; r++) {
				memset(s, 0, sizeof(s));
				for (i = 0; i < n; i++) {
					double d = (double)a[r * n + i] - (double)b[r * n + i];

					s[i < n - n % 4 ? i % 4 : 0] += d * d;
				}
				e[r] = (s[0] + s[1]) + (s[2] + s[3]);
			}
			for (r = 1; r <= 4; r *= 2) {
				others[o]->distance(a, b, (uint32_t)r, n, e2);
				assert_memory_equal(e, e2, r * sizeof(*e));
			}
			vq_distance_rows(a, b, 4, n, e2);
			assert_memory_equal(e, e2, sizeof(e));
			vq_distance_rows(a, b, 3, n, e2); /* two and one */
			assert_memory_equal(e, e2, 3 * sizeof(*e));
			memset(a, 0, 4 * n * sizeof(float));
			vq_distance_rows(a, b, 4, n, e);
			vq_distance_rows(NULL, b, 4, n, e2);
			assert_memory_equal(e, e2, sizeof(e));
		}
	munmap(end - AREA, AREA + PAGE);
	munmap(b_end - AREA, AREA + PAGE);
}

static void any_number_of_rows_has_errors(void **state)
{
	float w[11 * 5], q[11 * 5];
	double e[11] = {0}, f[11] = {0};
	size_t i;

	(void)state;
	for (i = 0; i < 55; i++) {
		w[i] = (float)i;
		q[i] = (float)i + 1 + (float)(i / 5);
	}
	vq_round_errors(w, q, 11, 5, e, f);
	for (i = 0; i < 11; i++)
		assert_true(e[i] == 5.0 * (double)((i + 1) * (i + 1)));
	assert_true(f[1] == 25.0 + 36 + 49 + 64 + 81);
}

static void the_first_number_that_is_none_is_found(void **state)
{
	static const struct {
		enum vq_dtype type;
		uint32_t exponent, one, bad[3], good[3];
	} cases[] = {
		{VQ_F16,
		 0x7c007c00,
		 0x04000400,
		 {0x7c00, 0xfc00, 0x7e01},
		 {0x7bff, 0xfbff, 0x8000}},
		{VQ_BF16,
		 0x7f807f80,
		 0x00800080,
		 {0x7f80, 0xff80, 0x7fc1},
		 {0x7f7f, 0xff7f, 0x8000}},
		{VQ_F32,
		 0x7f800000,
		 0x00800000,
		 {0x7f800000, 0xff800000, 0x7fc00001},
		 {0x7f7fffff, 0xff7fffff, 0x80000000}},
	};
	uint8_t *end = area(), *p;
	size_t o, c, n, i, size;

	(void)state;
	for (o = 0; o < N_OTHERS; o++)
		for (c = 0; c < 3 && runs(others[o]); c++)
			for (n = 0; n <= MOST; n++) {
				size = vq_dtype_size(cases[c].type);
				p = end - n * size - n % 3; /* not aligned, too */
				for (i = 0; i < n; i++)
					memcpy(p + i * size, &cases[c].good[i % 3], size);
				assert_int_equal(vq_first_bad(cases[c].type, p, n), n);
				assert_true(others[o]->finite(p, n * size, cases[c].exponent,
							      cases[c].one));
				if (n == 0)
					continue;
				i = (7 * n) % n + n / 2;
				memcpy(p + i * size, &cases[c].bad[n % 3], size);
				assert_int_equal(vq_first_bad(cases[c].type, p, n), i);
				assert_int_equal(vq_first_bad(cases[c].type, p, i), i);
				assert_false(others[o]->finite(p, n * size, cases[c].exponent,
							       cases[c].one));
			}
	munmap(end - AREA, AREA + PAGE);
	assert_int_equal(vq_first_bad(VQ_I32, cases, 3), 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_set_rounds_as_generic_does),
		cmocka_unit_test(codes_are_the_nearest_of_the_grid),
		cmocka_unit_test(errors_of_rows_are_sums_in_their_order),
		cmocka_unit_test(distances_of_rows_run_on_four_lanes),
		cmocka_unit_test(any_number_of_rows_has_errors),
		cmocka_unit_test(the_first_number_that_is_none_is_found),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
