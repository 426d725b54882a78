/* Norms, softmax, activations, rotary embedding: against double precision, and between instruction sets. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/num.h"
#include "base/rng.h"
#include "kernel/cpu.h"
#include "kernel/ops.h"
#include "model/turns.h"

static void fill(float *x, size_t n, const char *purpose, float scale)
{
	struct vq_rng r = vq_rng_new(7, purpose);
	size_t i;

	for (i = 0; i < n; i++)
		x[i] = scale * (float)vq_rng_normal(r, i);
}

/* Units in the last place of the float nearest to want. */
static double ulps(float got, double want)
{
	int e;

	frexp(want, &e);
	return fabs((double)got - want) / ldexp(1.0, (e < -125 ? -125 : e) - 24);
}

static void exp_is_within_two_ulp(void **state)
{
	float x[256], y[256];
	double worst = 0, u;
	uint32_t step, i;

	(void)state;
	/* Every 251st float of both signs up to the ends of the range. */
	for (step = 0; step < 0x42b17218u; step += 251 * 128) {
		for (i = 0; i < 128; i++) {
			x[2 * i] = vq_bits_f32(step + 251 * i);
			x[2 * i + 1] = -vq_bits_f32(step + 251 * i);
		}
		vq_exp(x, 256, y);
		for (i = 0; i < 256; i++) {
			if (fabsf(x[i]) > 87.3f)
				continue;
			u = ulps(y[i], exp((double)x[i]));
			if (u > worst)
				worst = u;
		}
	}
	print_message("# figure: exp: largest error %.2f ulp\n", worst);
	assert_true(worst < 2.0);
}

static void exp_has_the_right_ends(void **state)
{
	const float x[] = {-100, 100, 0, -INFINITY, INFINITY, NAN, 88.7f, -87.4f};
	float y[8];

	(void)state;
	vq_exp(x, 8, y);
	assert_true(y[0] == 0 && isinf(y[1]) && y[2] == 1 && y[3] == 0 && isinf(y[4]));
	assert_true(isnan(y[5]) && isfinite(y[6]) && y[7] == 0);
}

static void norms_agree_with_double_precision(void **state)
{
	static const uint32_t sizes[] = {1, 15, 16, 17, 128, 577, 4096};
	float x[4096], w[4096], b[4096], rms[4096], layer[4096];
	double worst = 0;
	size_t s, i;

	(void)state;
	for (s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++) {
		uint32_t n = sizes[s];
		double mean = 0, var = 0, sq = 0;

		fill(x, n, "x", 3);
		fill(w, n, "w", 1);
		fill(b, n, "b", 1);
		for (i = 0; i < n; i++) {
			mean += (double)x[i] / n;
			sq += (double)x[i] * x[i] / n;
		}
		for (i = 0; i < n; i++)
			var += ((double)x[i] - mean) * ((double)x[i] - mean) / n;
		vq_rmsnorm(x, 1, n, w, 1e-5f, rms);
		vq_layernorm(x, 1, n, w, b, 1e-5f, layer);
		for (i = 0; i < n; i++) {
			double e1 = fabs(rms[i] - x[i] / sqrt(sq + 1e-5) * w[i]);
			double e2 =
				fabs(layer[i] - ((x[i] - mean) / sqrt(var + 1e-5) * w[i] + b[i]));

			/* one element: its variance is 0, and the division by sqrt(eps) magnifies
			 * nothing since the difference is exactly 0 */
			worst = fmax(worst, fmax(e1, e2));
		}
	}
	print_message("# figure: norms: largest error %.1e\n", worst);
	assert_true(worst < 1e-5);
}

static void softmax_agrees_with_double_precision(void **state)
{
	static const size_t sizes[] = {1, 7, 16, 100, 2048};
	float x[2048], y[2048];
	double worst = 0;
	size_t s, i;

	(void)state;
	for (s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++) {
		double sum = 0, top = -1e30;

		fill(x, sizes[s], "s", 10);
		memcpy(y, x, sizeof(y));
		vq_softmax(y, sizes[s]);
		for (i = 0; i < sizes[s]; i++)
			top = fmax(top, (double)x[i]);
		for (i = 0; i < sizes[s]; i++)
			sum += exp((double)x[i] - top);
		for (i = 0; i < sizes[s]; i++)
			worst = fmax(worst, fabs(y[i] - exp((double)x[i] - top) / sum));
	}
	assert_true(worst < 1e-6);
}

static void activations_agree_with_double_precision(void **state)
{
	enum { N = 1003 };
	float x[N], mul[N], y[4][N];
	double worst = 0;
	int i;

	(void)state;
	fill(x, N, "a", 4);
	fill(mul, N, "m", 1);
	vq_activate(VQ_ACT_SILU, x, mul, N, y[0]);
	vq_activate(VQ_ACT_QUICK_GELU, x, NULL, N, y[1]);
	vq_activate(VQ_ACT_GELU_TANH, x, NULL, N, y[2]);
	vq_activate(VQ_ACT_GELU_ERF, x, NULL, N, y[3]);
	for (i = 0; i < N; i++) {
		double v = x[i], u = sqrt(2 / acos(-1.0)) * (v + 0.044715 * v * v * v);

		worst = fmax(worst, fabs(y[0][i] - v / (1 + exp(-v)) * mul[i]));
		worst = fmax(worst, fabs(y[1][i] - v / (1 + exp(-1.702 * v))));
		worst = fmax(worst, fabs(y[2][i] - v * (1 + tanh(u)) / 2));
		worst = fmax(worst, fabs(y[3][i] - v * (1 + erf(v / sqrt(2.0))) / 2));
	}
	print_message("# figure: activation functions: largest error %.1e\n", worst);
	assert_true(worst < 4e-6);
}

/* Beyond 14 a float is 0, or x itself. */
static void gelu_erf_is_within_its_bound_everywhere(void **state)
{
	enum { N = 4096 };
	float x[N], y[N];
	double worst = 0;
	int part, i;

	(void)state;
	for (part = -28; part < 28; part++) {
		for (i = 0; i < N; i++)
			x[i] = 0.5f * ((float)part + (float)i / N);
		vq_activate(VQ_ACT_GELU_ERF, x, NULL, N, y);
		for (i = 0; i < N; i++)
			if (x[i] == 0)
				assert_true(y[i] == 0);
			else
				worst = fmax(worst, fabs(y[i] / (double)x[i] -
							 erfc(-x[i] / sqrt(2.0)) / 2));
	}
	print_message("# figure: gelu by erf: largest error %.2g of |x|\n", worst);
	assert_true(worst < 4e-7);
}

static void dot_agrees_with_double_precision(void **state)
{
	float x[1000], y[1000];
	size_t n, i;

	(void)state;
	fill(x, 1000, "d", 1);
	fill(y, 1000, "e", 1);
	for (n = 0; n <= 1000; n = 2 * n + 1) {
		double want = 0;

		for (i = 0; i < n; i++)
			want += (double)x[i] * y[i];
		assert_true(fabs(vq_dot(x, y, n) - want) < 1e-5 * (1 + (double)n / 16));
	}
}

static void rotary_turns_pairs_by_the_angle(void **state)
{
	enum { D = 40, H = 3, POS = 37 };
	float c[D / 2], s[D / 2], x[H * D], y[H * D];
	double worst = 0;
	int h, i;

	(void)state;
	fill(x, H * D, "r", 1);
	memcpy(y, x, sizeof(y));
	vq_rotary_table(c, s, POS, 1, D, 10000.0f);
	vq_rotary(y, H, D, c, s);
	for (h = 0; h < H; h++)
		for (i = 0; i < D / 2; i++) {
			double a = POS * pow(10000.0, -2.0 * i / D), p = x[h * D + i],
			       q = x[h * D + D / 2 + i];

			worst = fmax(worst, fabs(y[h * D + i] - (p * cos(a) - q * sin(a))));
			worst = fmax(worst, fabs(y[h * D + D / 2 + i] - (q * cos(a) + p * sin(a))));
		}
	assert_true(worst < 1e-5);
}

/* All results of one set, one after the other. */
static size_t run_all(const struct vq_ops *o, uint32_t n, const float *x, const float *w,
		      const float *b, float *out)
{
	float *at = out;

	o->rmsnorm(x, n, w, 1e-6f, at);
	at += n;
	o->layernorm(x, n, w, b, 1e-5f, at);
	at += n;
	memcpy(at, x, n * sizeof(float));
	o->softmax(at, n);
	at += n;
	o->activate[VQ_ACT_SILU](x, w, n, at);
	at += n;
	o->activate[VQ_ACT_QUICK_GELU](x, NULL, n, at);
	at += n;
	o->activate[VQ_ACT_GELU_TANH](x, w, n, at);
	at += n;
	o->activate[VQ_ACT_GELU_ERF](x, w, n, at);
	at += n;
	o->exp(x, n, at);
	at += n;
	memcpy(at, x, n * sizeof(float));
	o->rotary(at, 1, n / 2 * 2, w, b);
	at += n;
	*at = o->dot(x, w, n);
	return (size_t)(at + 1 - out);
}

static void every_instruction_set_gives_the_same_bits(void **state)
{
	enum { MOST = 700 };
	static float x[MOST], w[MOST], b[MOST], want[9 * MOST + 1], got[9 * MOST + 1];
	uint32_t n, i, sets = 0;

	(void)state;
	fill(x, MOST, "x", 5);
	fill(w, MOST, "w", 1);
	fill(b, MOST, "b", 1);
	for (n = 1; n < MOST; n += 1 + n / 3) {
		size_t m = run_all(&vq_ops_generic, n, x, w, b, want);

		assert_int_equal(m, 9 * n + 1);
		for (i = 1; vq_kernels_row(i); i++)
			if (vq_kernels_row(i)->runs()) {
				run_all(vq_kernels_row(i)->ops, n, x, w, b, got);
				assert_memory_equal(want, got, m * sizeof(float));
				sets++;
			}
	}
	if (sets == 0)
		skip(); /* nothing to compare with on this CPU */
}

static void turns_grow_with_the_positions_and_are_those_of_the_table(void **state)
{
	enum { N = 37, HALF = 6 };
	const uint32_t upto[] = {3, 4, 11, 7, N};
	struct vq_turns t = {0};
	float c[N * HALF], s[N * HALF];
	uint32_t theta, i;

	(void)state;
	for (theta = 10000; theta <= 500000; theta *= 50) {
		vq_rotary_table(c, s, 0, N, 2 * HALF, (float)theta);
		for (i = 0; i < sizeof(upto) / sizeof(*upto); i++) {
			assert_int_equal(vq_turns_make(&t, upto[i], 2 * HALF, (float)theta, NULL),
					 VQ_OK);
			assert_memory_equal(t.c, c, upto[i] * HALF * sizeof(*c));
			assert_memory_equal(t.s, s, upto[i] * HALF * sizeof(*s));
		}
	}
	vq_turns_free(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(exp_is_within_two_ulp),
		cmocka_unit_test(exp_has_the_right_ends),
		cmocka_unit_test(norms_agree_with_double_precision),
		cmocka_unit_test(softmax_agrees_with_double_precision),
		cmocka_unit_test(activations_agree_with_double_precision),
		cmocka_unit_test(gelu_erf_is_within_its_bound_everywhere),
		cmocka_unit_test(dot_agrees_with_double_precision),
		cmocka_unit_test(rotary_turns_pairs_by_the_angle),
		cmocka_unit_test(turns_grow_with_the_positions_and_are_those_of_the_table),
		cmocka_unit_test(every_instruction_set_gives_the_same_bits),
	};

	return cmocka_run_group_tests_name("ops", tests, NULL, NULL);
}
