/* task/infer_prefix: which prompts share tokens, and how they are cut into batches. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/mem.h"
#include "base/rng.h"
#include "task/infer_prefix.h"

#define IMAGE 99

static const struct vq_group_limits wide = {IMAGE, 1000, 1000000, 16, 1u << 30, 0, 0};

static struct vq_lead lead(const int32_t *tokens, uint32_t n, uint64_t picture)
{
	return (struct vq_lead){tokens, n, {picture, 0}};
}

static void prompts_share_up_to_the_first_token_that_differs(void **state)
{
	static const int32_t a[] = {1, 5, IMAGE, IMAGE, 7, 8}, b[] = {1, 5, IMAGE, IMAGE, 7, 9},
			     c[] = {1, 5, IMAGE};
	struct vq_lead x = lead(a, 6, 1), y = lead(b, 6, 1), other = lead(b, 6, 2),
		       cut = lead(c, 3, 1);

	(void)state;
	assert_int_equal(vq_lead_shared(&x, &y, IMAGE), 5);
	assert_int_equal(vq_lead_shared(&x, &other, IMAGE), 2); /* another picture */
	assert_int_equal(vq_lead_shared(&x, &other, -1), 5);    /* no token stands for one */
	assert_int_equal(vq_lead_shared(&x, &x, IMAGE), 5);     /* the last one is its own */
	assert_int_equal(vq_lead_shared(&cut, &x, IMAGE), 3);
	assert_int_equal(vq_lead_shared(&x, &cut, IMAGE), 2);
}

static void nothing_is_no_batch(void **state)
{
	struct vq_groups p;
	struct vq_err err = {0};

	(void)state;
	assert_int_equal(vq_groups_make(&p, NULL, 0, &wide, &err), VQ_OK);
	assert_int_equal(p.n_batches, 0);
	vq_groups_free(&p);
}

/* --- random prompts --- */

enum { N = 300, LONGEST = 40 };

struct prompts {
	int32_t tokens[N][LONGEST];
	struct vq_lead v[N];
};

/* Few tokens and pictures, so that much is shared. */
static struct prompts *make_prompts(uint64_t seed)
{
	struct prompts *p = vq_calloc(1, sizeof(*p), NULL);
	struct vq_rng r = vq_rng_new(seed, "prompts");
	uint64_t at = 0;
	uint32_t i, k;

	for (i = 0; i < N; i++) {
		uint32_t n = 1 + (uint32_t)(vq_rng_uniform(r, at++) * (LONGEST - 1));

		for (k = 0; k < n; k++) {
			double u = vq_rng_uniform(r, at++);

			p->tokens[i][k] = k < 3 ? (int32_t)k : u < 0.1 ? IMAGE : (int32_t)(u * 3);
		}
		p->v[i] = lead(p->tokens[i], n, (uint64_t)(vq_rng_uniform(r, at++) * 3));
	}
	return p;
}

static int same_lead(const struct vq_lead *a, const struct vq_lead *b, uint32_t n)
{
	uint32_t i;

	for (i = 0; i < n; i++)
		if (a->tokens[i] != b->tokens[i] ||
		    (a->tokens[i] == IMAGE && a->picture[0] != b->picture[0]))
			return 0;
	return 1;
}

/* Different beginnings of v, the whole prompts among them: what a tree of them holds. */
static uint64_t count_nodes(const struct vq_lead *v, uint32_t n)
{
	uint64_t nodes = 0;
	uint32_t i, j, k;

	for (i = 0; i < n; i++)
		for (k = 1; k <= v[i].n; k++) {
			for (j = 0; j < i; j++)
				if (v[j].n >= k && same_lead(&v[j], &v[i], k))
					break;
			nodes += j == i;
		}
	return nodes;
}

static void every_beginning_goes_through_once(void **state)
{
	struct prompts *p = make_prompts(1);
	uint64_t rows = 0, twice = 0;
	uint8_t seen[N] = {0};
	struct vq_err err = {0};
	struct vq_groups g;
	uint32_t i;

	(void)state;
	assert_int_equal(vq_groups_make(&g, p->v, N, &wide, &err), VQ_OK);
	assert_int_equal(g.n_batches, 1);
	assert_int_equal(g.shared[0], 0);
	for (i = 0; i < N; i++) {
		const struct vq_lead *a = &p->v[g.order[i]];

		assert_int_equal(seen[g.order[i]]++, 0);
		rows += a->n - g.shared[i];
		if (i == 0)
			continue;
		assert_true(same_lead(&p->v[g.order[i - 1]], a, g.shared[i]));
		/* A prompt that came before still has a row of its own. */
		twice +=
			a->n == p->v[g.order[i - 1]].n && same_lead(&p->v[g.order[i - 1]], a, a->n);
	}
	assert_true(twice > 0);
	assert_int_equal(rows, count_nodes(p->v, N) + twice);
	vq_groups_free(&g);
	vq_free(p);
}

static void batches_keep_their_limits(void **state)
{
	struct prompts *p = make_prompts(2);
	static const struct vq_group_limits limits[] = {{IMAGE, 7, 1000000, 16, 1u << 30, 0, 0},
							{IMAGE, 1000, 60, 16, 1u << 30, 0, 0},
							{IMAGE, 1000, 60, 16, 1u << 30, 0, 1},
							{IMAGE, 1000, 1000000, 16, 200, 0, 1},
							{IMAGE, 1000, 1, 0, 1, 0, 0}};
	size_t k;

	(void)state;
	for (k = 0; k < sizeof(limits) / sizeof(limits[0]); k++) {
		const struct vq_group_limits *l = &limits[k];
		struct vq_err err = {0};
		struct vq_groups g;
		uint32_t b, i;

		assert_int_equal(vq_groups_make(&g, p->v, N, l, &err), VQ_OK);
		assert_true(g.n_batches > 1);
		assert_int_equal(g.start[0], 0);
		assert_int_equal(g.start[g.n_batches], N);
		for (b = 0; b < g.n_batches; b++) {
			uint32_t n = g.start[b + 1] - g.start[b], rows = 0, longest = 0;

			assert_true(n > 0);
			assert_int_equal(g.shared[g.start[b]], 0);
			for (i = g.start[b]; i < g.start[b + 1]; i++) {
				uint32_t m = p->v[g.order[i]].n;

				rows += m - g.shared[i];
				longest = m > longest ? m : longest;
			}
			assert_true(n <= l->prompts);
			assert_true(n == 1 || rows <= l->rows);
			assert_true(n == 1 || (uint64_t)n * (longest + l->answer) <= l->cells);
		}
		vq_groups_free(&g);
	}
	vq_free(p);
}

static void the_same_prompts_are_cut_the_same_way(void **state)
{
	static const struct vq_group_limits l = {IMAGE, 64, 100, 16, 1u << 30, 0, 0};
	struct prompts *p = make_prompts(3);
	struct vq_err err = {0};
	struct vq_groups a, b;

	(void)state;
	assert_int_equal(vq_groups_make(&a, p->v, N, &l, &err), VQ_OK);
	assert_int_equal(vq_groups_make(&b, p->v, N, &l, &err), VQ_OK);
	assert_int_equal(a.n_batches, b.n_batches);
	assert_memory_equal(a.order, b.order, N * sizeof(*a.order));
	assert_memory_equal(a.shared, b.shared, N * sizeof(*a.shared));
	vq_groups_free(&a);
	vq_groups_free(&b);
	vq_free(p);
}

/* Rows that go through in all batches. */
static uint64_t rows_of(const struct vq_lead *v, uint32_t n, const struct vq_group_limits *l)
{
	struct vq_err err = {0};
	struct vq_groups g;
	uint64_t rows = 0;
	uint32_t i;

	assert_int_equal(vq_groups_make(&g, v, n, l, &err), VQ_OK);
	assert_true(g.n_batches > 1);
	for (i = 0; i < n; i++)
		rows += v[g.order[i]].n - g.shared[i];
	vq_groups_free(&g);
	return rows;
}

static void batches_that_taper_end_where_less_is_shared(void **state)
{
	enum { FOURS = 100, SAME = 20, ALL = 25 };
	static int32_t tokens[4 * FOURS][ALL];
	static const struct vq_group_limits even = {IMAGE, 1000, 400, 0, 1u << 30, 0, 0},
					    taper = {IMAGE, 1000, 400, 0, 1u << 30, 0, 1};
	struct vq_lead v[4 * FOURS];
	uint32_t i, k;

	(void)state;
	for (i = 0; i < 4 * FOURS; i++) { /* four by four they begin alike */
		for (k = 0; k < ALL; k++)
			tokens[i][k] = (int32_t)(k < SAME ? i / 4 : i);
		v[i] = lead(tokens[i], ALL, 0);
	}
	assert_true(rows_of(v, 4 * FOURS, &even) > count_nodes(v, 4 * FOURS));
	assert_int_equal(rows_of(v, 4 * FOURS, &taper), count_nodes(v, 4 * FOURS));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(prompts_share_up_to_the_first_token_that_differs),
		cmocka_unit_test(nothing_is_no_batch),
		cmocka_unit_test(every_beginning_goes_through_once),
		cmocka_unit_test(batches_keep_their_limits),
		cmocka_unit_test(the_same_prompts_are_cut_the_same_way),
		cmocka_unit_test(batches_that_taper_end_where_less_is_shared),
	};

	return cmocka_run_group_tests_name("prefix", tests, NULL, NULL);
}
