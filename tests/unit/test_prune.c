/* task/prune: order, rule, how many, which; parameter counts of the 7B and 13B shapes. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "base/mem.h"
#include "model/names.h"
#include "task/prune.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static struct vq_config llama(uint32_t hidden, uint32_t inter, uint32_t heads, uint32_t layers)
{
	struct vq_config c = {.decoder = {.layer = {.hidden = hidden,
						    .inter = inter,
						    .n_heads = heads,
						    .n_kv_heads = heads,
						    .head_dim = hidden / heads,
						    .norm = VQ_NORM_RMS,
						    .gated = 1},
					  .n_layers = layers,
					  .vocab = 32000}};

	return c;
}

/* The published files: 5.5B, 3.7B, 2.7B and 1.5B of LLaMA-7B, 10.5B of LLaMA-13B (arXiv 2402.02834). */
static void parameter_counts_are_the_published_ones(void **state)
{
	static const struct {
		uint32_t n;
		uint64_t params;
	} want[] = {{32, 6738415616}, {31, 6536032256}, {26, 5524115456},
		    {17, 3702665216}, {12, 2690748416}, {6, 1476448256}};
	struct vq_config c = llama(4096, 11008, 32, 32), big = llama(5120, 13824, 40, 40);
	uint64_t got;
	size_t i;

	(void)state;
	for (i = 0; i < COUNT(want); i++) {
		assert_int_equal(vq_prune_params(&c, want[i].n, &got, NULL), VQ_OK);
		assert_true(got == want[i].params);
	}
	assert_int_equal(vq_prune_params(&big, 40, &got, NULL), VQ_OK);
	assert_true(got == 13015864320);
	assert_int_equal(vq_prune_params(&big, 32, &got, NULL), VQ_OK);
	assert_true(got == 10478228480);
}

static void equals_keep_their_order_and_what_is_no_number_goes_last(void **state)
{
	const double score[] = {3, NAN, 1, INFINITY, 1, -2, NAN, 3};
	const uint32_t want[] = {5, 2, 4, 0, 7, 3, 1, 6};
	uint32_t got[COUNT(score)];

	(void)state;
	vq_prune_order(score, COUNT(score), got);
	assert_memory_equal(got, want, sizeof(want));
}

static void the_first_four_and_the_last_two_stay_unless_told(void **state)
{
	const uint32_t order[] = {0, 8, 9, 4, 1, 7, 2, 3, 5, 6}, kept[] = {0, 1, 2, 3, 5, 6, 8, 9},
		       without[] = {1, 2, 3, 4, 5, 6, 7, 9};
	struct vq_prune_opts o = {.no_keep = 0};
	struct vq_blocks b;

	(void)state;
	assert_int_equal(vq_prune_choose(&o, order, COUNT(order), 2, &b, NULL), VQ_OK);
	assert_int_equal(b.n, COUNT(kept));
	assert_memory_equal(b.v, kept, sizeof(kept));
	vq_blocks_free(&b);
	o.no_keep = 1;
	assert_int_equal(vq_prune_choose(&o, order, COUNT(order), 2, &b, NULL), VQ_OK);
	assert_int_equal(b.n, COUNT(without));
	assert_memory_equal(b.v, without, sizeof(without));
	vq_blocks_free(&b);
}

static void sizes_in_weights_are_the_nearest_model(void **state)
{
	static const struct {
		uint64_t params;
		uint32_t removed;
	} want[] = {{5500000000, 6}, {3700000000, 15}, {2700000000, 20}, {1500000000, 26}};
	struct vq_config c = llama(4096, 11008, 32, 32);
	uint64_t one, two;
	uint32_t n;
	size_t i;

	(void)state;
	for (i = 0; i < COUNT(want); i++) {
		struct vq_prune_opts o = {.params = want[i].params};

		assert_int_equal(vq_prune_count(&o, &c, &n, NULL), VQ_OK);
		assert_int_equal(n, want[i].removed);
	}
	/* In the middle of two, the smaller. */
	assert_int_equal(vq_prune_params(&c, 20, &one, NULL), VQ_OK);
	assert_int_equal(vq_prune_params(&c, 21, &two, NULL), VQ_OK);
	assert_int_equal(
		vq_prune_count(&(struct vq_prune_opts){.params = (one + two) / 2}, &c, &n, NULL),
		VQ_OK);
	assert_int_equal(n, 12);
}

static void numbers_that_cannot_be_had_are_refused_with_the_range(void **state)
{
	static const struct {
		struct vq_prune_opts o;
		const char *says;
	} bad[] = {
		{{.n = 27}, "-n: want 1..26"},
		{{.n = 32, .no_keep = 1}, "-n: want 1..31"},
		{{.ratio = 0.01}, "--ratio: want 1..26"},
		{{.ratio = 1}, "--ratio: want 1..26"},
		{{.params = 6700000000}, "--params: want 1..26"},
		{{.params = 1}, "--params: want 1..26"},
	};
	struct vq_config c = llama(4096, 11008, 32, 32), small = llama(64, 128, 2, 6);
	struct vq_err err;
	uint32_t n;
	size_t i;

	(void)state;
	for (i = 0; i < COUNT(bad); i++) {
		memset(&err, 0, sizeof(err));
		assert_int_equal(vq_prune_count(&bad[i].o, &c, &n, &err), VQ_E_USAGE);
		assert_true(strncmp(err.text, bad[i].says, strlen(bad[i].says)) == 0);
	}
	memset(&err, 0, sizeof(err));
	assert_int_equal(vq_prune_count(&(struct vq_prune_opts){.n = 1}, &small, &n, &err),
			 VQ_E_USAGE);
	assert_non_null(strstr(err.text, "none of the model's 6 blocks"));
}

static void a_ratio_is_rounded_down(void **state)
{
	struct vq_config c = llama(4096, 11008, 32, 32);
	uint32_t n;

	(void)state;
	assert_int_equal(vq_prune_count(&(struct vq_prune_opts){.ratio = 0.2}, &c, &n, NULL),
			 VQ_OK);
	assert_int_equal(n, 6);
}

static void a_list_by_hand_has_numbers_and_ranges(void **state)
{
	static const char *const bad[] = {
		"",   "a",  "8",    "3-2", "1,1", "1-3,2", "0-7",
		"1,", ",1", "1--2", "-1",  "1-",  "1 ",    "00000000000000000000000000000000001"};
	const uint32_t want[] = {0, 1, 6};
	struct vq_prune_opts o = {.blocks = "2,4-5,7,3"};
	struct vq_blocks b;
	size_t i;

	(void)state;
	assert_int_equal(vq_prune_by_hand(&o, 8, &b, NULL), VQ_OK);
	assert_int_equal(b.n, COUNT(want));
	assert_memory_equal(b.v, want, sizeof(want));
	vq_blocks_free(&b);
	for (i = 0; i < COUNT(bad); i++) {
		struct vq_err err = {0};

		o.blocks = bad[i];
		if (vq_prune_by_hand(&o, 8, &b, &err) != VQ_E_USAGE)
			fail_msg("'%s' was taken", bad[i]);
		assert_non_null(strstr(err.text, "--blocks wants blocks of 0..7"));
	}
}

static void a_tensor_of_a_kept_layer_has_its_old_number(void **state)
{
	const uint32_t kept[] = {0, 3, 11};
	struct vq_name n = {.name = "decoder.layers.2.q_proj.weight"};

	(void)state;
	vq_names_from_layer(&n, kept);
	assert_string_equal(n.name, "decoder.layers.11.q_proj.weight");
	strcpy(n.name, "vision.layers.2.q_proj.weight");
	vq_names_from_layer(&n, kept);
	assert_string_equal(n.name, "vision.layers.2.q_proj.weight");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(parameter_counts_are_the_published_ones),
		cmocka_unit_test(equals_keep_their_order_and_what_is_no_number_goes_last),
		cmocka_unit_test(the_first_four_and_the_last_two_stay_unless_told),
		cmocka_unit_test(sizes_in_weights_are_the_nearest_model),
		cmocka_unit_test(numbers_that_cannot_be_had_are_refused_with_the_range),
		cmocka_unit_test(a_ratio_is_rounded_down),
		cmocka_unit_test(a_list_by_hand_has_numbers_and_ranges),
		cmocka_unit_test(a_tensor_of_a_kept_layer_has_its_old_number),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
