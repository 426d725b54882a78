/* quant/range: percentile bounds of stored ranges. */
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
#include "quant/range.h"

#define ROWS  630u
#define IN    37u
#define SEQ   15u
#define CHUNK 105u /* whole sequences */

static float x[ROWS * IN], buf[CHUNK * IN];
static float ranges[VQ_N_PERCENTILES * 2 * IN];

static const struct vq_agrid grids[] = {
	{.bits = 4, .group = 16, .clip = 1, .range = VQ_RANGE_STATIC},
	{.bits = 3, .group = 0, .clip = 1, .range = VQ_RANGE_STATIC, .sym = 1},
	{.bits = 4, .group = 1, .clip = 1, .range = VQ_RANGE_CHANNEL},
	{.bits = 4, .group = 0, .clip = 1, .range = VQ_RANGE_POSITION},
};
#define N_GRIDS (sizeof(grids) / sizeof(grids[0]))

static void fill(void)
{
	struct vq_rng r = vq_rng_new(3, "range");
	size_t i;

	for (i = 0; i < ROWS * IN; i++) {
		x[i] = (float)vq_rng_normal(r, i) * (1 + (float)(i % IN));
		if (i % 41 == 0)
			x[i] *= 3;
		if (i % IN == 5)
			x[i] = fabsf(x[i]) + 1; /* a range with 0 below all values */
		if (i % IN == 6)
			x[i] = 0;
	}
}

/* The range of the value at row r, input i. */
static uint32_t range_at(const struct vq_agrid *g, uint32_t r, uint32_t i)
{
	if (g->range == VQ_RANGE_POSITION)
		return r % SEQ;
	return g->group ? i / g->group : 0;
}

static struct vq_range_meter measure(const struct vq_agrid *g)
{
	struct vq_range_meter m;
	uint32_t r;

	assert_int_equal(vq_range_begin(&m, g, ROWS, IN, SEQ, NULL), VQ_OK);
	for (r = 0; r < ROWS; r += CHUNK)
		vq_range_add(&m, x + r * IN, CHUNK);
	vq_range_bounds(&m, ranges);
	return m;
}

/* The values of a range, all of them. */
static size_t gather(const struct vq_agrid *g, uint32_t j, float *out)
{
	size_t n = 0;
	uint32_t r, i;

	for (r = 0; r < ROWS; r++)
		for (i = 0; i < IN; i++)
			if (range_at(g, r, i) == j)
				out[n++] = x[r * IN + i];
	return n;
}

static void bounds_are_those_of_all_values_sorted(void **state)
{
	static float all[ROWS * IN];
	size_t k, n;
	uint32_t j, v, n_tested = 0;

	(void)state;
	fill();
	for (k = 0; k < N_GRIDS; k++) {
		struct vq_range_meter m = measure(&grids[k]);
		uint32_t nr = m.grid.n_ranges;

		for (j = 0; j < nr; j++)
			for (v = 0; v < VQ_N_PERCENTILES; v++) {
				float lo, hi;

				n = gather(&grids[k], j, all);
				vq_clip_bounds(all, n, vq_clip_percentiles[v], &lo, &hi);
				assert_true(ranges[2 * v * nr + j] == fminf(lo, 0));
				assert_true(ranges[(2 * v + 1) * nr + j] == fmaxf(hi, 0));
				n_tested++;
			}
		vq_range_end(&m);
	}
	assert_int_equal(n_tested, VQ_N_PERCENTILES * (3 + 1 + IN + SEQ));
}

/* The best percentile of each range, found the long way. */
static void the_pick_has_the_least_distance_of_each_range(void **state)
{
	static const double powers[] = {2, 0.5};
	static float picked[2 * IN], one[2 * IN];
	size_t k, p;
	uint32_t j, v, r, i, n_cut[2] = {0};

	(void)state;
	fill();
	for (k = 0; k < N_GRIDS; k++)
		for (p = 0; p < 2; p++) {
			struct vq_range_meter m = measure(&grids[k]);
			uint32_t nr = m.grid.n_ranges;
			double loss[VQ_N_PERCENTILES][IN] = {{0}};

			for (v = 0; v < VQ_N_PERCENTILES; v++)
				for (r = 0; r < ROWS; r++)
					for (i = 0; i < IN; i++) {
						struct vq_agrid g = m.grid;
						float y;

						j = range_at(&grids[k], r, i);
						g.range = VQ_RANGE_STATIC;
						g.group = 0;
						g.n_ranges = 1;
						g.lo = ranges + 2 * v * nr + j;
						g.hi = g.lo + nr;
						vq_act_fake(&g, x + r * IN + i, 1, 1, &y);
						loss[v][j] += pow(fabs((double)(y - x[r * IN + i])),
								  powers[p]);
					}
			for (r = 0; r < ROWS; r += CHUNK)
				vq_range_try(&m, ranges, powers[p], x + r * IN, CHUNK, buf);
			memcpy(one, ranges, 2 * nr * sizeof(float));
			memcpy(picked, ranges, 2 * nr * sizeof(float));
			for (j = 0; j < nr; j++) {
				uint32_t best = 0;

				for (v = 1; v < VQ_N_PERCENTILES; v++)
					if (loss[v][j] < loss[best][j])
						best = v;
				picked[j] = ranges[2 * best * nr + j];
				picked[nr + j] = ranges[(2 * best + 1) * nr + j];
				n_cut[p] += best > 0;
			}
			vq_range_pick(&m, ranges);
			assert_memory_equal(ranges, picked, 2 * nr * sizeof(float));
			vq_range_end(&m);
		}
	assert_true(n_cut[0] > 0 && n_cut[1] > n_cut[0]); /* a small power cuts outliers sooner */
}

static void the_number_of_threads_does_not_show(void **state)
{
	static float one[VQ_N_PERCENTILES * 2 * IN];
	struct vq_range_meter m;
	size_t k;
	int t;

	(void)state;
	fill();
	for (k = 0; k < N_GRIDS; k++)
		for (t = 1; t <= 3; t++) {
			uint32_t r;

			omp_set_num_threads(t);
			m = measure(&grids[k]);
			for (r = 0; r < ROWS; r += CHUNK)
				vq_range_try(&m, ranges, 0.5, x + r * IN, CHUNK, buf);
			vq_range_pick(&m, ranges);
			if (t == 1)
				memcpy(one, ranges, sizeof(one));
			assert_memory_equal(one, ranges, m.grid.n_ranges * 40);
			vq_range_end(&m);
		}
}

static void without_rows_every_range_is_empty(void **state)
{
	struct vq_range_meter m;
	uint32_t i;

	(void)state;
	assert_int_equal(vq_range_begin(&m, &grids[2], 0, IN, SEQ, NULL), VQ_OK);
	vq_range_bounds(&m, ranges);
	for (i = 0; i < VQ_N_PERCENTILES * 2 * IN; i++)
		assert_true(ranges[i] == 0);
	vq_range_end(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bounds_are_those_of_all_values_sorted),
		cmocka_unit_test(the_pick_has_the_least_distance_of_each_range),
		cmocka_unit_test(the_number_of_threads_does_not_show),
		cmocka_unit_test(without_rows_every_range_is_empty),
	};

	return cmocka_run_group_tests_name("range", tests, NULL, NULL);
}
