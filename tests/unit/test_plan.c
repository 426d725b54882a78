/* task/plan: the partition into blocks, its bounds, its JSON. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "base/mem.h"
#include "task/plan.h"

static const struct vq_plan_bounds seven = {7, 2, NULL, 0}; /* units 0 1 | 2 | 3 4 5 6 */

static double *copy(const double *d, size_t n)
{
	double *p = vq_alloc(n, sizeof(*p), NULL);

	assert_non_null(p);
	memcpy(p, d, n * sizeof(*p));
	return p;
}

static struct vq_plan cut(enum vq_partition part, uint32_t depth, double h0, const double *d,
			  const struct vq_plan_bounds *b)
{
	struct vq_plan p = {.partition = part,
			    .depth = depth,
			    .h0 = h0,
			    .quantile = -1,
			    .d = d ? copy(d, b->n_units - 1) : NULL,
			    .bits = 4,
			    .seed = 1};

	assert_int_equal(vq_plan_cut(&p, b, NULL), VQ_OK);
	return p;
}

/* "0-1 2 3-5 6" */
static void assert_blocks(const struct vq_plan *p, uint32_t n, const uint32_t want[][2])
{
	uint32_t i;

	assert_int_equal(p->n_blocks, n);
	for (i = 0; i < n; i++) {
		assert_int_equal(p->blocks[i].first, want[i][0]);
		assert_int_equal(p->blocks[i].last, want[i][1]);
	}
}

static void a_block_grows_while_the_mean_of_its_pairs_is_above_h0(void **state)
{
	const double d[] = {2, -1, -1, 3, 1.5, 9};
	struct vq_plan p = cut(VQ_PART_ENTROPY, 3, 2, d, &seven);

	(void)state; /* 0|1: 2 is not above 2.  3-4: 3.  3-5: (3 + 1.5) / 2.  6 would be a fourth. */
	assert_blocks(&p, 5, (uint32_t[][2]){{0, 0}, {1, 1}, {2, 2}, {3, 5}, {6, 6}});
	assert_true(p.h0 == 2);
	vq_plan_free(&p);
}

static void an_offset_moves_the_fixed_blocks_of_each_tower(void **state)
{
	struct vq_plan p = {.partition = VQ_PART_FIXED, .depth = 2, .offset = 1, .bits = 4};

	(void)state;
	assert_int_equal(vq_plan_cut(&p, &seven, NULL), VQ_OK);
	assert_blocks(&p, 6, (uint32_t[][2]){{0, 0}, {1, 1}, {2, 2}, {3, 3}, {4, 5}, {6, 6}});
	vq_plan_free(&p);
	p = (struct vq_plan){.partition = VQ_PART_FIXED, .depth = 2, .offset = 3, .bits = 4};
	assert_int_equal(vq_plan_cut(&p, &seven, NULL), VQ_OK);
	assert_blocks(&p, 4, (uint32_t[][2]){{0, 1}, {2, 2}, {3, 4}, {5, 6}});
	vq_plan_free(&p);
}

static void h0_is_the_mean_of_the_pairs_that_exist(void **state)
{
	const double d[] = {2, -1, -1, 3, 1, 4};
	struct vq_plan p = cut(VQ_PART_ENTROPY, 3, -1, d, &seven);

	(void)state;
	assert_true(p.h0 == 2.5);
	assert_blocks(&p, 5, (uint32_t[][2]){{0, 0}, {1, 1}, {2, 2}, {3, 4}, {5, 6}});
	vq_plan_free(&p);
}

/* Pairs that exist: 1, 2, 3, 4. */
static void h0_may_be_a_quantile_of_the_pairs_that_exist(void **state)
{
	const double d[] = {2, -1, -1, 3, 1, 4}, q[] = {0, 0.5, 0.75, 1},
		     want[] = {1, 2.5, 3.25, 4};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(q) / sizeof(*q); i++) {
		struct vq_plan p = {
			.depth = 3, .h0 = -1, .quantile = q[i], .d = copy(d, 6), .bits = 4};

		assert_int_equal(vq_plan_cut(&p, &seven, NULL), VQ_OK);
		assert_true(p.h0 == want[i]);
		vq_plan_free(&p);
	}
}

static void fixed_blocks_stop_at_the_projector_and_at_checkpoints(void **state)
{
	const uint32_t starts[] = {4};
	const struct vq_plan_bounds b = {7, 2, starts, 1};
	struct vq_plan p = cut(VQ_PART_FIXED, 3, 0, NULL, &b);

	(void)state;
	assert_blocks(&p, 4, (uint32_t[][2]){{0, 1}, {2, 2}, {3, 3}, {4, 6}});
	vq_plan_free(&p);
}

static void no_partition_and_no_statistics_give_one_layer_blocks(void **state)
{
	const double d[] = {9, -1, -1, 9, 9, 9};
	struct vq_plan a = cut(VQ_PART_NONE, 3, 0, d, &seven);
	struct vq_plan b = cut(VQ_PART_ENTROPY, 3, -1, NULL, &seven);

	(void)state;
	assert_int_equal(a.n_blocks, 7);
	assert_int_equal(b.n_blocks, 7);
	vq_plan_free(&a);
	vq_plan_free(&b);
}

static void random_blocks_cover_all_units_within_the_depth_for_every_seed(void **state)
{
	const struct vq_plan_bounds b = {64, 24, NULL, 0};
	uint32_t seed, i, lengths[4] = {0};

	(void)state;
	for (seed = 0; seed < 50; seed++) {
		struct vq_plan p = {.partition = VQ_PART_RANDOM, .depth = 3, .seed = seed};
		uint32_t next = 0;

		assert_int_equal(vq_plan_cut(&p, &b, NULL), VQ_OK);
		for (i = 0; i < p.n_blocks; i++) {
			uint32_t len = p.blocks[i].last - p.blocks[i].first + 1;

			assert_int_equal(p.blocks[i].first, next);
			assert_true(len >= 1 && len <= 3);
			lengths[len]++;
			next = p.blocks[i].last + 1;
			assert_int_equal(p.blocks[vq_plan_block_of(&p, next - 1)].last, next - 1);
		}
		assert_int_equal(next, 64);
		assert_int_equal(p.blocks[vq_plan_block_of(&p, 24)].last, 24);
		vq_plan_free(&p);
	}
	for (i = 1; i <= 3; i++)
		assert_true(lengths[i] > 100);
}

static void a_plan_survives_its_json(void **state)
{
	const double d[] = {2, -1, -1, 3, 1.5, 9};
	struct vq_plan p = cut(VQ_PART_ENTROPY, 3, 2, d, &seven), q;
	json_t *j = vq_plan_json(&p, NULL), *j2;
	char *a, *b;

	(void)state;
	p.space = VQ_SPACE_HADAMARD;
	assert_non_null(j);
	assert_int_equal(vq_plan_parse(&q, j, &seven, "test", NULL), VQ_OK);
	j2 = vq_plan_json(&q, NULL);
	a = vq_json_text(j, NULL);
	b = vq_json_text(j2, NULL);
	assert_string_equal(a, b);
	assert_int_equal(q.n_units, 7);
	vq_free(a);
	vq_free(b);
	json_decref(j);
	json_decref(j2);
	vq_plan_free(&p);
	vq_plan_free(&q);
}

static void a_bad_plan_is_refused_and_says_where(void **state)
{
	static const struct {
		const char *text, *say;
	} bad[] = {
		{"[]", "want a JSON object"},
		{"{}", "want 1.."},
		{"{\"blocks\": []}", "want 1.."},
		{"{\"blocks\": [[0,1],[2,2],[3]]}", "block 2"},
		{"{\"blocks\": [[0,1],[2,2],[3,\"x\"]]}", "block 2"},
		{"{\"blocks\": [[0,1],[2,2],[4,6]]}", "block 2"},
		{"{\"blocks\": [[0,1],[2,2],[3,7]]}", "block 2"},
		{"{\"blocks\": [[0,1],[2,2],[3,2]]}", "block 2"},
		{"{\"blocks\": [[0,1],[2,2],[3,9223372036854775807]]}", "block 2"},
		{"{\"blocks\": [[0,1],[2,2],[3,5]]}", "up to unit 6"},
		{"{\"blocks\": [[0,2],[3,6]]}", "crosses the projector"},
		{"{\"blocks\": [[0,1],[2,3],[4,6]]}", "crosses the projector"},
		{"{\"blocks\": [[0,1],[2,2],[3,6]], \"D\": [1]}", "D: want 6"},
		{"{\"blocks\": [[0,1],[2,2],[3,6]], \"D\": [1,1,1,1,1,-1]}", "D[5]"},
		{"{\"blocks\": [[0,1],[2,2],[3,6]], \"proxy\": \"x\"}", "proxy"},
		{"{\"blocks\": [[0,1],[2,2],[3,6]], \"depth\": \"x\"}", "depth"},
	};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct vq_err err = {0};
		struct vq_plan p;
		json_t *j = vq_json_parse(bad[i].text, strlen(bad[i].text), "test", &err);

		assert_non_null(j);
		assert_int_equal(vq_plan_parse(&p, j, &seven, "test", &err), VQ_E_DATA);
		assert_non_null(strstr(err.text, "test: "));
		assert_non_null(strstr(err.text, bad[i].say));
		json_decref(j);
	}
}

static void meta_calib_survives_its_json_and_bad_ones_are_refused(void **state)
{
	static const char good[] = "{\"checkpoints\":[2,5],\"data_sha256\":\"ab\",\"ids\":[\"x\","
				   "\"y\"],\"n\":2,\"n_tokens\":9,\"seed\":3}";
	static const char *const bad[] = {
		"{\"n\": 2, \"ids\": [\"x\"]}",
		"{\"n\": 1, \"ids\": [1]}",
		"{\"n\": 4000000000, \"ids\": []}",
		"{\"n\": 0, \"checkpoints\": [0]}",
		"{\"n\": 0, \"checkpoints\": [3, 3]}",
		"{\"n\": -1}",
		"[]",
	};
	struct vq_calib_meta m;
	json_t *j = vq_json_parse(good, strlen(good), "test", NULL), *j2;
	char *text;
	size_t i;

	(void)state;
	assert_int_equal(vq_calib_meta_parse(&m, j, "test", NULL), VQ_OK);
	j2 = vq_calib_meta_json(&m, NULL);
	text = vq_json_text(j2, NULL);
	assert_string_equal(text, good);
	vq_free(text);
	json_decref(j);
	json_decref(j2);
	vq_calib_meta_free(&m);
	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		j = vq_json_parse(bad[i], strlen(bad[i]), "test", NULL);
		assert_int_equal(vq_calib_meta_parse(&m, j, "test", NULL), VQ_E_DATA);
		json_decref(j);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_block_grows_while_the_mean_of_its_pairs_is_above_h0),
		cmocka_unit_test(h0_is_the_mean_of_the_pairs_that_exist),
		cmocka_unit_test(h0_may_be_a_quantile_of_the_pairs_that_exist),
		cmocka_unit_test(fixed_blocks_stop_at_the_projector_and_at_checkpoints),
		cmocka_unit_test(no_partition_and_no_statistics_give_one_layer_blocks),
		cmocka_unit_test(random_blocks_cover_all_units_within_the_depth_for_every_seed),
		cmocka_unit_test(a_plan_survives_its_json),
		cmocka_unit_test(a_bad_plan_is_refused_and_says_where),
		cmocka_unit_test(meta_calib_survives_its_json_and_bad_ones_are_refused),
		cmocka_unit_test(an_offset_moves_the_fixed_blocks_of_each_tower),
	};

	return cmocka_run_group_tests_name("plan", tests, NULL, NULL);
}
