/* Routing by its definition in double, and sparse layers against plain sums over their experts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <math.h>
#include <omp.h>
#include <string.h>

#include "random_layer.h"

enum { ROWS = 61, WIDTH = 32, EXPERTS = 5 };

struct fixture {
	struct vq_gating g;
	struct vq_router r;
	float *w, *x;
	struct vq_choice c[ROWS];
};

static void begin(struct fixture *f, uint32_t top_k)
{
	f->g = (struct vq_gating){.top_k = top_k, .capacity_factor = 2};
	f->w = random_rows(EXPERTS * WIDTH, .3, 1);
	f->x = random_rows(ROWS * WIDTH, 1, 2);
	f->r = (struct vq_router){&f->g, f->w, EXPERTS, WIDTH, 3};
}

static void end(struct fixture *f)
{
	vq_free(f->w);
	vq_free(f->x);
}

static double probability(const struct fixture *f, uint32_t row, uint32_t expert)
{
	double l[EXPERTS], sum = 0;
	uint32_t e, i;

	for (e = 0; e < EXPERTS; e++) {
		for (i = 0, l[e] = 0; i < WIDTH; i++)
			l[e] += (double)f->w[e * WIDTH + i] * f->x[row * WIDTH + i];
		sum += exp(l[e]);
	}
	return exp(l[expert]) / sum;
}

/* The experts of a row by falling probability. */
static void ranked(const struct fixture *f, uint32_t row, uint32_t order[EXPERTS])
{
	uint32_t i, k;

	for (i = 0; i < EXPERTS; i++) {
		for (k = i; k > 0 && probability(f, row, i) > probability(f, row, order[k - 1]);
		     k--)
			order[k] = order[k - 1];
		order[k] = i;
	}
}

static void gates_are_softmax_of_the_likeliest_renormalised_for_two(void **state)
{
	struct fixture f;
	uint32_t order[EXPERTS], i, top_k;

	(void)state;
	for (top_k = 1; top_k <= 2; top_k++) {
		begin(&f, top_k);
		assert_int_equal(vq_route(&f.r, f.x, ROWS, 0, NULL, NULL, f.c, NULL), VQ_OK);
		for (i = 0; i < ROWS; i++) {
			double p1, p2;

			ranked(&f, i, order);
			p1 = probability(&f, i, order[0]);
			p2 = probability(&f, i, order[1]);
			assert_int_equal(f.c[i].expert[0], order[0]);
			assert_int_equal(f.c[i].expert[1], top_k == 1 ? VQ_NO_EXPERT : order[1]);
			assert_true(fabs(f.c[i].gate[0] - (top_k == 1 ? p1 : p1 / (p1 + p2))) <
				    1e-6);
			assert_true(fabs(f.c[i].gate[1] - (top_k == 1 ? 0 : p2 / (p1 + p2))) <
				    1e-6);
		}
		end(&f);
	}
}

static void among_equals_the_lowest_number_is_taken(void **state)
{
	struct fixture f;

	(void)state;
	begin(&f, 2);
	memset(f.w, 0, EXPERTS * WIDTH * sizeof(float));
	assert_int_equal(vq_route(&f.r, f.x, 1, 0, NULL, NULL, f.c, NULL), VQ_OK);
	assert_int_equal(f.c[0].expert[0], 0);
	assert_int_equal(f.c[0].expert[1], 1);
	assert_true(f.c[0].gate[0] == .5f && f.c[0].gate[1] == .5f);
	/* Equals behind the first one. */
	f.w[3 * WIDTH] = f.x[0] > 0 ? 1 : -1;
	assert_int_equal(vq_route(&f.r, f.x, 1, 0, NULL, NULL, f.c, NULL), VQ_OK);
	assert_int_equal(f.c[0].expert[0], 3);
	assert_int_equal(f.c[0].expert[1], 0);
	end(&f);
}

/* ceil(T / E * k * factor) rows an expert, first choices in order before second ones. */
static void capacity_drops_the_last_that_came_and_renormalises_what_is_left(void **state)
{
	static const uint32_t start[] = {0, 40, 40, ROWS};
	struct fixture f;
	struct vq_choice all[ROWS];
	uint32_t top_k, s, i, k, e, n_dropped = 0;

	(void)state;
	for (top_k = 1; top_k <= 2; top_k++) {
		begin(&f, top_k);
		assert_int_equal(vq_route(&f.r, f.x, ROWS, 3, start, NULL, all, NULL), VQ_OK);
		f.g.drop = 1;
		f.g.capacity_factor = .75f;
		f.g.min_capacity = 5;
		assert_int_equal(vq_route(&f.r, f.x, ROWS, 3, start, NULL, f.c, NULL), VQ_OK);
		for (s = 0; s < 3; s++) {
			uint32_t n = start[s + 1] - start[s], taken[EXPERTS] = {0};
			double room = fmax(ceil((double)n / EXPERTS * top_k * .75), 5);

			for (k = 0; k < top_k; k++)
				for (i = start[s]; i < start[s + 1]; i++) {
					int kept = taken[all[i].expert[k]]++ < room;

					n_dropped += !kept;
					assert_int_equal(f.c[i].expert[k],
							 kept ? all[i].expert[k] : VQ_NO_EXPERT);
				}
		}
		for (i = 0; i < ROWS; i++) {
			double sum = 0;

			for (k = 0; k < top_k; k++)
				if (f.c[i].expert[k] != VQ_NO_EXPERT)
					sum += probability(&f, i, f.c[i].expert[k]);
			for (k = 0; k < top_k; k++) {
				double p = f.c[i].expert[k] == VQ_NO_EXPERT
						   ? 0
						   : probability(&f, i, f.c[i].expert[k]);

				assert_true(fabs(f.c[i].gate[k] -
						 (top_k == 1 || sum == 0 ? p : p / sum)) < 1e-6);
			}
		}
		/* The factor that the authors train with drops nothing. */
		f.g.capacity_factor = 2;
		assert_int_equal(vq_route(&f.r, f.x, ROWS, 3, start, NULL, f.c, NULL), VQ_OK);
		for (i = 0; top_k == 2 && i < ROWS; i++)
			for (e = 0; e < 2; e++)
				assert_int_equal(f.c[i].expert[e], all[i].expert[e]);
		end(&f);
	}
	assert_true(n_dropped > 10);
}

/* Gumbel's distribution has F(x) = exp(-exp(-x)). */
static void noise_is_gumbels_and_depends_on_seed_layer_position_and_expert(void **state)
{
	enum { DRAWS = 40000, BINS = 20 };
	struct vq_gating g = {.seed = 7};
	uint32_t bin[BINS] = {0}, i;
	double chi = 0, sum = 0;

	(void)state;
	for (i = 0; i < DRAWS; i++) {
		float x = vq_route_noise(&g, i % 3, i / 12, i / 3 % 4);

		bin[(uint32_t)(exp(-exp(-x)) * BINS * (1 - 1e-7))]++;
		sum += x;
	}
	for (i = 0; i < BINS; i++)
		chi += pow((double)bin[i] - DRAWS / BINS, 2) / (DRAWS / BINS);
	print_message(
		"# figure: Gumbel noise: chi^2 %.1f of %d degrees of freedom, mean %.4f (0.5772)\n",
		chi, BINS - 1, sum / DRAWS);
	assert_true(chi < 43.8); /* one in a thousand is larger */
	assert_true(fabs(sum / DRAWS - .57722) < .02);
	assert_true(vq_route_noise(&g, 0, 1, 0) != vq_route_noise(&g, 1, 0, 0));
	assert_true(vq_route_noise(&g, 0, 0, 1) != vq_route_noise(&g, 0, 1, 0));
	g.seed = 8;
	assert_true(vq_route_noise(&g, 0, 1, 0) !=
		    vq_route_noise(&(struct vq_gating){.seed = 7}, 0, 1, 0));
}

static void noise_moves_second_choices_alone_and_not_with_the_batch(void **state)
{
	static const uint32_t start[] = {0, ROWS}, past[] = {100};
	struct fixture f;
	struct vq_choice plain[ROWS], one;
	uint32_t i, moved = 0;

	(void)state;
	begin(&f, 2);
	assert_int_equal(vq_route(&f.r, f.x, ROWS, 1, start, past, plain, NULL), VQ_OK);
	f.g.noise = 1;
	omp_set_num_threads(3);
	assert_int_equal(vq_route(&f.r, f.x, ROWS, 1, start, past, f.c, NULL), VQ_OK);
	omp_set_num_threads(1);
	for (i = 0; i < ROWS; i++) {
		const uint32_t alone[] = {0, 1}, at[] = {100 + i};

		assert_int_equal(f.c[i].expert[0], plain[i].expert[0]);
		assert_int_not_equal(f.c[i].expert[1], f.c[i].expert[0]);
		moved += f.c[i].expert[1] != plain[i].expert[1];
		assert_int_equal(vq_route(&f.r, f.x + i * WIDTH, 1, 1, alone, at, &one, NULL),
				 VQ_OK);
		assert_memory_equal(one.expert, f.c[i].expert, sizeof(one.expert));
		assert_memory_equal(one.gate, f.c[i].gate, sizeof(one.gate));
	}
	assert_true(moved > ROWS / 5 && moved < ROWS);
	end(&f);
}

static void rows_are_gathered_once_for_each_choice(void **state)
{
	struct fixture f;
	struct vq_route r, again;
	uint8_t whole[EXPERTS] = {0, 1, 0, 0, 0};
	uint32_t e, i, k, n = 0, seen[ROWS] = {0};

	(void)state;
	begin(&f, 2);
	assert_int_equal(vq_route(&f.r, f.x, ROWS, 0, NULL, NULL, f.c, NULL), VQ_OK);
	f.c[4].expert[1] = VQ_NO_EXPERT;
	assert_int_equal(vq_route_gather(&r, f.c, ROWS, EXPERTS, NULL, NULL), VQ_OK);
	for (e = 0; e < EXPERTS; e++) {
		assert_true(r.run[e] >= r.n[e] && (r.n[e] == 0 || r.run[e] > VQ_GEMM_FEW));
		for (i = r.start[e]; i < r.start[e] + r.n[e]; i++) {
			const struct vq_choice *c = &f.c[r.row[i]];

			assert_true(i == r.start[e] || r.row[i] > r.row[i - 1]);
			k = c->expert[0] == e ? 0 : 1;
			assert_int_equal(c->expert[k], e);
			assert_true(r.gate[i] == c->gate[k]);
			seen[r.row[i]]++;
		}
		n += r.run[e];
	}
	assert_int_equal(n, r.n_rows);
	for (i = 0; i < ROWS; i++)
		assert_int_equal(seen[i], i == 4 ? 1 : 2);
	assert_int_equal(vq_route_gather(&again, f.c, ROWS, EXPERTS, whole, NULL), VQ_OK);
	assert_int_equal(again.n[1], ROWS);
	for (i = 0; i < ROWS; i++)
		assert_true((again.gate[again.start[1] + i] != 0) ==
			    (f.c[i].expert[0] == 1 || f.c[i].expert[1] == 1));
	vq_route_free(&r);
	vq_route_free(&again);
	/* A call of few rows stays one of few rows. */
	assert_int_equal(vq_route_gather(&r, f.c, 2, EXPERTS, NULL, NULL), VQ_OK);
	assert_int_equal(r.n_rows, 4);
	vq_route_free(&r);
	end(&f);
}

/* --- a layer --- */

static void forward(const struct vq_layer *l, float *h, uint32_t n, uint32_t n_seqs,
		    const uint32_t *start, struct vq_kv_layer *kv)
{
	const uint32_t one[] = {0, n};
	const struct vq_batch b = {start ? n_seqs : 1, start ? start : one};

	assert_int_equal(vq_layer_forward(l, h, &b, kv, NULL), VQ_OK);
}

static float *copy(const float *x, size_t n)
{
	float *y = vq_alloc_f32(n, NULL);

	assert_non_null(y);
	memcpy(y, x, n * sizeof(float));
	return y;
}

/* want += gate * the output of expert e by itself, in the rows that chose it. */
static void add_expert(const struct random_layer *m, uint32_t e, const struct vq_choice *c,
		       const float *x, uint32_t n, float *want)
{
	const struct vq_linear *l = &m->experts[VQ_EXPERT_LINEARS * e];
	float *up = vq_alloc_f32(n * m->cfg.inter, NULL),
	      *gate = vq_alloc_f32(n * m->cfg.inter, NULL), *y = vq_alloc_f32(n * WIDTH, NULL);
	uint32_t i, j, k;

	assert_int_equal(vq_linear_one(&l[0], x, n, up, NULL), VQ_OK);
	assert_int_equal(vq_linear_one(&l[1], x, n, gate, NULL), VQ_OK);
	for (i = 0; i < n * m->cfg.inter; i++)
		up[i] *= gate[i] / (1 + expf(-gate[i]));
	assert_int_equal(vq_linear_one(&l[2], up, n, y, NULL), VQ_OK);
	for (i = 0; i < n; i++)
		for (k = 0; k < 2; k++)
			for (j = 0; c[i].expert[k] == e && j < WIDTH; j++)
				want[i * WIDTH + j] += c[i].gate[k] * y[i * WIDTH + j];
	vq_free(up);
	vq_free(gate);
	vq_free(y);
}

/* h behind attention, and then the experts as dense layers of their own: gate times (layer's output - h). */
static void a_sparse_layer_is_the_gated_sum_of_dense_ones(void **state)
{
	enum { N = 40, E = 6 };
	uint32_t top_k, e, i;

	(void)state;
	for (top_k = 1; top_k <= 2; top_k++) {
		struct random_layer m;
		struct vq_layer_run run;
		const uint32_t start[] = {0, N};
		const struct vq_batch b = {1, start};
		float *h = random_rows(N * WIDTH, 1, 5), *mid, *x, *want;
		struct vq_choice c[N];
		double worst = 0;

		random_layer_sparse(&m, E, top_k, 9);
		mid = copy(h, N * WIDTH);
		assert_int_equal(vq_layer_begin(&run, &m.layer, mid, &b, NULL, NULL), VQ_OK);
		assert_int_equal(vq_layer_next(&run, NULL), VQ_OK);
		assert_int_equal(vq_layer_next(&run, NULL), VQ_OK);
		vq_layer_end(&run);
		x = vq_alloc_f32(N * WIDTH, NULL);
		vq_layer_norm(&m.cfg, mid, N, m.layer.norm2_w, NULL, x);
		assert_int_equal(vq_route(&(struct vq_router){&m.gating, m.router, E, WIDTH, 0}, x,
					  N, 0, NULL, NULL, c, NULL),
				 VQ_OK);
		want = copy(mid, N * WIDTH);
		for (e = 0; e < E; e++)
			add_expert(&m, e, c, x, N, want);
		forward(&m.layer, h, N, 0, NULL, NULL);
		for (i = 0; i < N * WIDTH; i++) {
			double off = fabs((double)h[i] - want[i]);

			assert_true(off < 1e-5); /* each: fmax() would pass a NaN */
			worst = off > worst ? off : worst;
		}
		print_message("# figure: a layer with %u of %u experts a row: off by %.1e\n", top_k,
			      E, worst);
		vq_free(h);
		vq_free(mid);
		vq_free(x);
		vq_free(want);
		random_layer_free(&m);
	}
}

/* Sequences of a batch, parts with a cache, the last rows alone, threads: always the same bits; noise too. */
static void batches_parts_and_threads_change_no_bit(void **state)
{
	enum { N = 30, SEQS = 3 };
	const uint32_t start[] = {0, N, N + 6, N + 20}, all = N + 20;
	struct random_layer m;
	float *h, *want, *got, *last;
	uint32_t s, noise;

	(void)state;
	random_layer_sparse(&m, 4, 2, 3);
	h = random_rows(all * WIDTH, 1, 6);
	for (noise = 0; noise < 2; noise++) {
		struct vq_kv kv;
		float part[14 * WIDTH];

		m.gating.noise = (int)noise;
		want = copy(h, all * WIDTH);
		forward(&m.layer, want, all, SEQS, start, NULL);
		for (s = 0; s < SEQS; s++) {
			got = copy(h + start[s] * WIDTH, (start[s + 1] - start[s]) * WIDTH);
			omp_set_num_threads((int)s + 2);
			forward(&m.layer, got, start[s + 1] - start[s], 0, NULL, NULL);
			assert_memory_equal(got, want + start[s] * WIDTH,
					    (start[s + 1] - start[s]) * WIDTH * sizeof(float));
			vq_free(got);
		}
		omp_set_num_threads(1);
		last = vq_alloc_f32(SEQS * WIDTH, NULL);
		assert_int_equal(vq_layer_last(&m.layer, h, &(struct vq_batch){SEQS, start}, NULL,
					       last, NULL),
				 VQ_OK);
		for (s = 0; s < SEQS * WIDTH; s++) /* three rows are summed in another order */
			assert_true(fabsf(last[s] -
					  want[(start[s / WIDTH + 1] - 1) * WIDTH + s % WIDTH]) <
				    1e-5f);
		/* The first sequence in two parts: 16 rows, then 14 behind the cache. */
		assert_int_equal(
			vq_kv_new(&kv, 1, 1, N, m.cfg.n_kv_heads, m.cfg.head_dim, VQ_KV_F32, NULL),
			VQ_OK);
		got = copy(h, 16 * WIDTH);
		forward(&m.layer, got, 16, 0, NULL, &kv.layers[0]);
		assert_memory_equal(got, want, 16 * WIDTH * sizeof(float));
		kv.n[0] = 16;
		memcpy(part, h + 16 * WIDTH, sizeof(part));
		forward(&m.layer, part, 14, 0, NULL, &kv.layers[0]);
		assert_memory_equal(part, want + 16 * WIDTH, sizeof(part));
		vq_kv_free(&kv);
		vq_free(got);
		vq_free(want);
		vq_free(last);
	}
	vq_free(h);
	random_layer_free(&m);
}

static void a_run_forked_at_any_place_ends_like_the_run(void **state)
{
	enum { N = 23 };
	const uint32_t start[] = {0, N};
	const struct vq_batch b = {1, start};
	struct random_layer m;
	float *h, *want, *x, *y;
	uint32_t place, i;

	(void)state;
	random_layer_sparse(&m, 4, 2, 3);
	assert_int_equal(vq_layer_n_places(&m.layer), 10);
	h = random_rows(N * WIDTH, 1, 6);
	want = copy(h, N * WIDTH);
	forward(&m.layer, want, N, 0, NULL, NULL);
	for (place = 0; place < 10; place++) {
		struct vq_layer_run run, fork;
		struct vq_layer_place at = vq_layer_place(&m.layer, place);
		size_t n;

		x = copy(h, N * WIDTH);
		assert_int_equal(vq_layer_begin(&run, &m.layer, x, &b, NULL, NULL), VQ_OK);
		for (i = 0; i < place; i++)
			assert_int_equal(vq_layer_next(&run, NULL), VQ_OK);
		assert_int_equal(run.slot, at.slot);
		assert_int_equal(run.expert, at.expert);
		vq_layer_input(&run, &n);
		assert_int_equal(n, at.slot < VQ_SLOT_UP ? N : run.route.n[at.expert]);
		y = copy(x, N * WIDTH);
		assert_int_equal(vq_layer_fork(&fork, &run, y, NULL), VQ_OK);
		vq_layer_end(&run);
		for (; i < 10; i++)
			assert_int_equal(vq_layer_next(&fork, NULL), VQ_OK);
		assert_int_equal(fork.slot, VQ_N_SLOTS);
		assert_int_equal(vq_layer_next(&fork, NULL), VQ_E_DATA);
		assert_memory_equal(y, want, N * WIDTH * sizeof(float));
		vq_layer_end(&fork);
		vq_free(x);
		vq_free(y);
	}
	vq_free(h);
	vq_free(want);
	random_layer_free(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(gates_are_softmax_of_the_likeliest_renormalised_for_two),
		cmocka_unit_test(among_equals_the_lowest_number_is_taken),
		cmocka_unit_test(capacity_drops_the_last_that_came_and_renormalises_what_is_left),
		cmocka_unit_test(noise_is_gumbels_and_depends_on_seed_layer_position_and_expert),
		cmocka_unit_test(noise_moves_second_choices_alone_and_not_with_the_batch),
		cmocka_unit_test(rows_are_gathered_once_for_each_choice),
		cmocka_unit_test(a_sparse_layer_is_the_gated_sum_of_dense_ones),
		cmocka_unit_test(batches_parts_and_threads_change_no_bit),
		cmocka_unit_test(a_run_forked_at_any_place_ends_like_the_run),
	};

	return cmocka_run_group_tests_name("route", tests, NULL, NULL);
}
