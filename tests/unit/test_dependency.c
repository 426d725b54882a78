/* quant/dependency: joint matrices of soft levels, dependency. */
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
#include "quant/dependency.h"
#include "quant/dependency_slope.h"

static double dependency(const struct vq_levels *k, const struct vq_levels *k1, size_t rows,
			 uint32_t channels, uint32_t bits, int hard)
{
	uint32_t L = 1u << bits;
	double *P = vq_calloc((size_t)L * L, sizeof(double), NULL), d;

	assert_int_equal(vq_joint_add(P, k, k1, rows, channels, bits, hard, NULL), VQ_OK);
	d = vq_joint_dependency(P, L);
	vq_free(P);
	return d;
}

static void the_golden_vector_gives_its_dependency(void **state)
{
	const float x[] = {.1f, .9f, 2.2f, 2.9f}, y[] = {.2f, 1.1f, 1.9f, 3.0f};
	const float min = 0, max = 3;
	struct vq_levels k = {x, &min, &max}, k1 = {y, &min, &max};
	double soft = dependency(&k, &k1, 4, 1, 2, 0), hard = dependency(&k, &k1, 4, 1, 2, 1);

	(void)state;
	print_message("# figure: golden dependency: soft %.6f nats (want 1.081014), hard %g\n",
		      soft, hard);
	assert_true(fabs(soft - 1.081014) < 5e-7);
	assert_true(hard == 0);
}

/* The definition with libm and no window tricks. */
static void brute(double *P, const struct vq_levels *k, const struct vq_levels *k1, size_t rows,
		  uint32_t channels, int L)
{
	const struct vq_levels *v[2] = {k, k1};
	size_t i;
	int s, a, b;

	for (i = 0; i < rows * channels; i++) {
		double w[2][256] = {{0}};
		uint32_t c = (uint32_t)(i % channels);

		for (s = 0; s < 2; s++) {
			double step = ((double)v[s]->max[c] - v[s]->min[c]) / (L - 1), sum = 0;
			double u = step > 0 ? ((double)v[s]->x[i] - v[s]->min[c]) / step : 0;

			u = fmin(fmax(u, 0), L - 1);
			for (a = 0; a < L; a++)
				if (fabs(u - a) <= 3)
					sum += w[s][a] = exp(-(u - a) * (u - a));
			for (a = 0; a < L; a++)
				w[s][a] /= sum;
		}
		for (a = 0; a < L; a++)
			for (b = 0; b < L; b++)
				P[a * L + b] += w[0][a] * w[1][b];
	}
}

struct data {
	float *x, *y, *bounds;
	struct vq_levels k, k1;
};

/* Correlated layers; channel 0 is constant; the bounds cut some values. */
static void make(struct data *d, size_t rows, uint32_t channels, float unit)
{
	struct vq_rng r = vq_rng_new(4, "test");
	size_t n = rows * channels, i;
	uint32_t c;

	d->x = vq_alloc_f32(n, NULL);
	d->y = vq_alloc_f32(n, NULL);
	d->bounds = vq_alloc_f32(4 * (size_t)channels, NULL);
	for (i = 0; i < n; i++) {
		d->x[i] = i % channels ? unit * (float)vq_rng_normal(r, i) : 2 * unit;
		d->y[i] = 0.8f * d->x[i] + unit * 0.5f * (float)vq_rng_normal(r, n + i);
	}
	for (c = 0; c < channels; c++) {
		d->bounds[c] = unit * (c ? -2.5f : 2);
		d->bounds[channels + c] = unit * (c ? 2.0f : 2);
		d->bounds[2 * channels + c] = unit * -3.0f;
		d->bounds[3 * channels + c] = unit * 3.0f;
	}
	d->k = (struct vq_levels){d->x, d->bounds, d->bounds + channels};
	d->k1 = (struct vq_levels){d->y, d->bounds + 2 * channels, d->bounds + 3 * channels};
}

static void drop(struct data *d)
{
	vq_free(d->x);
	vq_free(d->y);
	vq_free(d->bounds);
}

static void joint_matrices_follow_the_definition(void **state)
{
	struct data d;
	uint32_t bits;
	double worst = 0;

	(void)state;
	make(&d, 40, 11, 1);
	for (bits = 1; bits <= 8; bits++) {
		uint32_t L = 1u << bits, i;
		double *P = vq_calloc((size_t)L * L, sizeof(double), NULL);
		double *Q = vq_calloc((size_t)L * L, sizeof(double), NULL), sum = 0;

		assert_int_equal(vq_joint_add(P, &d.k, &d.k1, 40, 11, bits, 0, NULL), VQ_OK);
		brute(Q, &d.k, &d.k1, 40, 11, (int)L);
		for (i = 0; i < L * L; i++) {
			worst = fmax(worst, fabs(P[i] - Q[i]));
			sum += P[i];
		}
		assert_true(fabs(sum - 440) < 1e-9);
		vq_free(P);
		vq_free(Q);
	}
	print_message("# figure: joint matrices against the definition: largest difference %.1e\n",
		      worst);
	assert_true(worst < 1e-10);
	drop(&d);
}

static void dependency_does_not_change_with_the_unit(void **state)
{
	struct data a, b, c;
	double da, db, dc;

	(void)state;
	make(&a, 50, 7, 1);
	make(&b, 50, 7, 0x1p-20f);
	make(&c, 50, 7, 1000);
	da = dependency(&a.k, &a.k1, 50, 7, 4, 0);
	db = dependency(&b.k, &b.k1, 50, 7, 4, 0);
	dc = dependency(&c.k, &c.k1, 50, 7, 4, 0);
	assert_true(da > 0.1 && da < 4 * log(2));
	assert_true(da == db); /* a power of two: to the bit */
	assert_true(fabs(da - dc) < 1e-5);
	drop(&a);
	drop(&b);
	drop(&c);
}

static void independent_layers_have_the_entropy_of_the_second(void **state)
{
	struct vq_rng r = vq_rng_new(6, "test");
	float *x = vq_alloc_f32(60000, NULL), *y = vq_alloc_f32(60000, NULL);
	const float min = 0, max = 1;
	double P[256] = {0}, h[16];
	struct vq_levels k = {x, &min, &max}, k1 = {y, &min, &max};
	size_t i;

	(void)state;
	for (i = 0; i < 60000; i++) {
		x[i] = (float)vq_rng_uniform(r, 2 * i);
		y[i] = (float)vq_rng_uniform(r, 2 * i + 1);
	}
	assert_int_equal(vq_joint_add(P, &k, &k1, 60000, 1, 4, 0, NULL), VQ_OK);
	vq_joint_marginal(P, 16, 1, h);
	assert_true(fabs(vq_joint_dependency(P, 16) - vq_hist_entropy(h, 16)) < 5e-3);
	/* The chain rule: H(k, k+1) = H(k) + D. */
	vq_joint_marginal(P, 16, 0, h);
	assert_true(fabs(vq_hist_entropy(P, 256) - vq_hist_entropy(h, 16) -
			 vq_joint_dependency(P, 16)) < 1e-9);
	/* Hard: a layer tells all about itself. */
	memset(P, 0, sizeof(P));
	assert_int_equal(vq_joint_add(P, &k, &k, 60000, 1, 4, 1, NULL), VQ_OK);
	assert_true(vq_joint_dependency(P, 16) == 0);
	vq_free(x);
	vq_free(y);
}

static void empty_histograms_have_no_entropy(void **state)
{
	double P[16] = {0};

	(void)state;
	assert_true(vq_joint_dependency(P, 4) == 0);
	assert_true(vq_hist_entropy(P, 16) == 0);
	P[0] = P[5] = 2;
	assert_true(fabs(vq_hist_entropy(P, 16) - log(2)) < 1e-12);
}

static void sums_do_not_depend_on_the_number_of_threads(void **state)
{
	struct data d;
	double P[256], Q[256];
	int t;

	(void)state;
	make(&d, 900, 200, 1);
	omp_set_num_threads(1);
	memset(P, 0, sizeof(P));
	assert_int_equal(vq_joint_add(P, &d.k, &d.k1, 900, 200, 4, 0, NULL), VQ_OK);
	for (t = 2; t <= 4; t++) {
		omp_set_num_threads(t);
		memset(Q, 0, sizeof(Q));
		assert_int_equal(vq_joint_add(Q, &d.k, &d.k1, 900, 200, 4, 0, NULL), VQ_OK);
		assert_memory_equal(P, Q, sizeof(P));
	}
	drop(&d);
}

static void every_kernel_set_gives_generics_bits(void **state)
{
	struct data d;
	uint32_t channels, which;

	(void)state;
	for (channels = 1; channels < 20; channels++) {
		make(&d, 30, channels, 1);
		d.x[5] = NAN;
		for (which = 0; vq_kernels_row(which); which++) {
			const struct vq_kernels *k = vq_kernels_row(which);
			double P[256] = {0}, Q[256] = {0};

			if (!k->runs())
				continue;
			vq_kernels_use(&vq_kernels_generic);
			assert_int_equal(vq_joint_add(P, &d.k, &d.k1, 30, channels, 4, 0, NULL),
					 VQ_OK);
			vq_kernels_use(k);
			assert_int_equal(vq_joint_add(Q, &d.k, &d.k1, 30, channels, 4, 0, NULL),
					 VQ_OK);
			assert_memory_equal(P, Q, sizeof(P));
		}
		drop(&d);
	}
	vq_kernels_use(NULL);
}

static double moved(const struct data *d, const float *dx, const float *dy, double t, size_t rows,
		    uint32_t channels, uint32_t bits)
{
	size_t n = rows * channels, i;
	float *x = vq_alloc_f32(n, NULL), *y = vq_alloc_f32(n, NULL);
	struct vq_levels k = {x, d->k.min, d->k.max}, k1 = {y, d->k1.min, d->k1.max};
	double out;

	for (i = 0; i < n; i++) {
		x[i] = d->x[i] + (float)(t * dx[i]);
		y[i] = d->y[i] + (float)(t * dy[i]);
	}
	out = dependency(&k, &k1, rows, channels, bits, 0);
	vq_free(x);
	vq_free(y);
	return out;
}

/* Along random directions, to which soft levels that pass the reach of 3 add noise of about their weight. */
static void slopes_are_those_of_central_differences(void **state)
{
	enum { SLOPE_ROWS = 60, CHANNELS = 16, N = SLOPE_ROWS * CHANNELS };
	static float gx[N], gy[N], dx[N], dy[N], P[256];
	struct vq_rng r = vq_rng_new(6, "test");
	double *sums = vq_calloc(256, sizeof(double), NULL), worst = 0, t = 2e-3;
	struct data d;
	uint64_t i, draw;

	(void)state;
	make(&d, SLOPE_ROWS, CHANNELS, 1);
	assert_int_equal(vq_joint_add(sums, &d.k, &d.k1, SLOPE_ROWS, CHANNELS, 4, 0, NULL), VQ_OK);
	for (i = 0; i < 256; i++)
		P[i] = (float)(sums[i] / N);
	assert_int_equal(vq_joint_slope(P, &d.k, &d.k1, SLOPE_ROWS, CHANNELS, 4, 2, gx, gy, NULL),
			 VQ_OK);
	for (draw = 0; draw < 6; draw++) {
		double want, got = 0, size = 0;

		for (i = 0; i < N; i++) {
			/* along the slopes in one draw, the two sides apart in others */
			dx[i] = draw == 2 ? 0 : (float)vq_rng_normal(r, 2 * (N * draw + i));
			dy[i] = draw == 3 ? 0 : (float)vq_rng_normal(r, 2 * (N * draw + i) + 1);
			if (draw == 0) {
				dx[i] = gx[i] * N;
				dy[i] = gy[i] * N;
			}
			got += (double)gx[i] * dx[i] + (double)gy[i] * dy[i];
			size += (double)gx[i] * gx[i] + (double)gy[i] * gy[i];
		}
		want = 2 *
		       (moved(&d, dx, dy, t, SLOPE_ROWS, CHANNELS, 4) -
			moved(&d, dx, dy, -t, SLOPE_ROWS, CHANNELS, 4)) /
		       (2 * t);
		worst = fmax(worst, draw ? fabs(got - want) / sqrt(size) : fabs(got / want - 1));
	}
	print_message("# figure: slope of the dependency against central differences: within "
		      "%.2g\n",
		      worst);
	assert_true(worst < 0.03);
	vq_free(sums);
	drop(&d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_golden_vector_gives_its_dependency),
		cmocka_unit_test(joint_matrices_follow_the_definition),
		cmocka_unit_test(dependency_does_not_change_with_the_unit),
		cmocka_unit_test(independent_layers_have_the_entropy_of_the_second),
		cmocka_unit_test(empty_histograms_have_no_entropy),
		cmocka_unit_test(sums_do_not_depend_on_the_number_of_threads),
		cmocka_unit_test(every_kernel_set_gives_generics_bits),
		cmocka_unit_test(slopes_are_those_of_central_differences),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
