/* A layer against a plain double-precision one; stages, cache, batches and threads against each other. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/rng.h"
#include "model/attention_mass.h"
#include "model/layer.h"

enum { HIDDEN = 48, INTER = 80, HEADS = 6, KV_HEADS = 2, DIM = 8, ROWS = 150 };

static const struct vq_layer_config llama = {.hidden = HIDDEN,
					     .inter = INTER,
					     .n_heads = HEADS,
					     .n_kv_heads = KV_HEADS,
					     .head_dim = DIM,
					     .norm = VQ_NORM_RMS,
					     .eps = 1e-5f,
					     .act = VQ_ACT_SILU,
					     .gated = 1,
					     .causal = 1,
					     .rope_theta = 10000};

static const struct vq_layer_config clip = {.hidden = HIDDEN,
					    .inter = INTER,
					    .n_heads = HEADS,
					    .n_kv_heads = HEADS,
					    .head_dim = DIM,
					    .norm = VQ_NORM_LAYER,
					    .eps = 1e-5f,
					    .act = VQ_ACT_QUICK_GELU,
					    .qkv_bias = 1,
					    .o_bias = 1,
					    .mlp_bias = 1};

/* Phi's kind: one norm for both halves, half of a head turns, no gate. */
static const struct vq_layer_config phi = {.hidden = HIDDEN,
					   .inter = INTER,
					   .n_heads = HEADS,
					   .n_kv_heads = HEADS,
					   .head_dim = DIM,
					   .norm = VQ_NORM_LAYER,
					   .eps = 1e-5f,
					   .act = VQ_ACT_GELU_TANH,
					   .causal = 1,
					   .qkv_bias = 1,
					   .o_bias = 1,
					   .mlp_bias = 1,
					   .rope_theta = 10000,
					   .rotary_dim = DIM / 2,
					   .parallel = 1};

static uint64_t draws;

static float *random_block(size_t n, float scale)
{
	float *x = vq_alloc_f32(n, NULL);
	size_t i;

	assert_non_null(x);
	for (i = 0; i < n; i++)
		x[i] = scale * (float)vq_rng_normal(vq_rng_new(3, "layer"), draws++);
	return x;
}

static void layer_make(struct vq_layer *l, const struct vq_layer_config *c)
{
	int i;

	vq_layer_init(l, c);
	l->norm1_w = random_block(c->hidden, 1);
	if (!c->parallel)
		l->norm2_w = random_block(c->hidden, 1);
	if (c->norm == VQ_NORM_LAYER)
		l->norm1_b = random_block(c->hidden, 1);
	if (c->norm == VQ_NORM_LAYER && !c->parallel)
		l->norm2_b = random_block(c->hidden, 1);
	for (i = 0; i < VQ_N_LINEARS; i++) {
		struct vq_linear *f = &l->lin[i];

		if (!f->n_out)
			continue;
		f->w = random_block((size_t)f->n_out * f->n_in, 0.3f);
		f->dtype = VQ_F32;
		if (c->qkv_bias)
			f->bias = random_block(f->n_out, 0.5f);
	}
}

static void layer_drop(struct vq_layer *l)
{
	int i;

	vq_free((void *)l->norm1_w);
	vq_free((void *)l->norm2_w);
	vq_free((void *)l->norm1_b);
	vq_free((void *)l->norm2_b);
	for (i = 0; i < VQ_N_LINEARS; i++) {
		vq_free((void *)l->lin[i].w);
		vq_free((void *)l->lin[i].bias);
	}
}

/* --- the plain layer: one sequence, doubles, loops as in MODEL.md --- */

static void ref_norm(const struct vq_layer_config *c, const double *h, const float *w,
		     const float *b, double *out)
{
	double mean = 0, sq = 0;
	uint32_t i;

	for (i = 0; b && i < c->hidden; i++)
		mean += h[i] / c->hidden;
	for (i = 0; i < c->hidden; i++)
		sq += (h[i] - mean) * (h[i] - mean) / c->hidden;
	for (i = 0; i < c->hidden; i++)
		out[i] = (h[i] - mean) / sqrt(sq + (double)c->eps) * w[i] + (b ? b[i] : 0);
}

static void ref_linear(const struct vq_linear *l, const double *x, double *y)
{
	const float *w = l->w;
	uint32_t o, i;

	for (o = 0; o < l->n_out; o++) {
		y[o] = l->bias ? l->bias[o] : 0;
		for (i = 0; i < l->n_in; i++)
			y[o] += w[o * l->n_in + i] * x[i];
	}
}

static void ref_rotate(const struct vq_layer_config *c, double *x, uint32_t heads, uint32_t pos)
{
	uint32_t turn = c->rotary_dim ? c->rotary_dim : c->head_dim, half = turn / 2, h, i;

	for (h = 0; c->rope_theta > 0 && h < heads; h++, x += c->head_dim)
		for (i = 0; i < half; i++) {
			double a = pos * pow((double)c->rope_theta, -2.0 * i / turn);
			double p = x[i], q = x[half + i];

			x[i] = p * cos(a) - q * sin(a);
			x[half + i] = q * cos(a) + p * sin(a);
		}
}

/* Softmax of one head's scores of query t; returns how many keys it sees. */
static uint32_t ref_softmax(const struct vq_layer_config *c, double (*q)[HIDDEN],
			    double (*k)[HIDDEN], uint32_t n, uint32_t t, uint32_t h, double *p)
{
	uint32_t seen = c->causal ? t + 1 : n, u, i, d = c->head_dim;
	uint32_t at = h * d, kv = h / (c->n_heads / c->n_kv_heads) * d;
	double top, sum;

	for (top = -1e300, u = 0; u < seen; u++) {
		for (p[u] = 0, i = 0; i < d; i++)
			p[u] += q[t][at + i] * k[u][kv + i] / sqrt((double)d);
		top = fmax(top, p[u]);
	}
	for (sum = 0, u = 0; u < seen; u++)
		sum += p[u] = exp(p[u] - top);
	for (u = 0; u < seen; u++)
		p[u] /= sum;
	return seen;
}

static void ref_attend(const struct vq_layer_config *c, double (*q)[HIDDEN], double (*k)[HIDDEN],
		       double (*v)[HIDDEN], uint32_t n, uint32_t t, double *out)
{
	uint32_t h, u, i, d = c->head_dim;
	double p[ROWS];

	for (h = 0; h < c->n_heads; h++) {
		uint32_t at = h * d, kv = h / (c->n_heads / c->n_kv_heads) * d;
		uint32_t seen = ref_softmax(c, q, k, n, t, h, p);

		for (i = 0; i < d; i++)
			for (out[at + i] = 0, u = 0; u < seen; u++)
				out[at + i] += p[u] * v[u][kv + i];
	}
}

static double ref_act(const struct vq_layer_config *c, double x)
{
	if (c->act == VQ_ACT_GELU_TANH)
		return x / 2 * (1 + tanh(sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
	return x / (1 + exp(c->act == VQ_ACT_SILU ? -x : -1.702 * x));
}

/* in: what a parallel layer's norm reads; h else. */
static void ref_mlp(const struct vq_layer *l, const double *in, double *h)
{
	const struct vq_layer_config *c = l->cfg;
	double x[HIDDEN], up[INTER], gate[INTER], y[HIDDEN];
	uint32_t i;

	if (c->parallel)
		ref_norm(c, in, l->norm1_w, l->norm1_b, x);
	else
		ref_norm(c, h, l->norm2_w, l->norm2_b, x);
	ref_linear(&l->lin[VQ_LIN_UP], x, up);
	if (c->gated)
		ref_linear(&l->lin[VQ_LIN_GATE], x, gate);
	for (i = 0; i < c->inter; i++)
		up[i] = c->gated ? up[i] * ref_act(c, gate[i]) : ref_act(c, up[i]);
	ref_linear(&l->lin[VQ_LIN_DOWN], up, y);
	for (i = 0; i < c->hidden; i++)
		h[i] += y[i];
}

static void ref_layer(const struct vq_layer *l, const float *in, uint32_t n, double (*h)[HIDDEN])
{
	static double q[ROWS][HIDDEN], k[ROWS][HIDDEN], v[ROWS][HIDDEN];
	const struct vq_layer_config *c = l->cfg;
	double x[HIDDEN], y[HIDDEN], before[HIDDEN];
	uint32_t t, i;

	for (t = 0; t < n; t++) {
		for (i = 0; i < HIDDEN; i++)
			h[t][i] = in[t * HIDDEN + i];
		ref_norm(c, h[t], l->norm1_w, l->norm1_b, x);
		ref_linear(&l->lin[VQ_LIN_Q], x, q[t]);
		ref_linear(&l->lin[VQ_LIN_K], x, k[t]);
		ref_linear(&l->lin[VQ_LIN_V], x, v[t]);
		ref_rotate(c, q[t], c->n_heads, t);
		ref_rotate(c, k[t], c->n_kv_heads, t);
	}
	for (t = 0; t < n; t++) {
		ref_attend(c, q, k, v, n, t, x);
		ref_linear(&l->lin[VQ_LIN_O], x, y);
		memcpy(before, h[t], sizeof(before));
		for (i = 0; i < HIDDEN; i++)
			h[t][i] += y[i];
		ref_mlp(l, before, h[t]);
	}
}

/* Three sequences of different lengths, the longest of several attention tiles. */
static const uint32_t starts[] = {0, 1, 20, ROWS};
static const struct vq_batch batch = {3, starts};

static double compare_with_ref(const struct vq_layer_config *c)
{
	static double want[ROWS][HIDDEN];
	float *in = random_block((size_t)ROWS * HIDDEN, 1),
	      *h = random_block((size_t)ROWS * HIDDEN, 1);
	struct vq_err err = {0};
	struct vq_layer l;
	double worst = 0;
	uint32_t s, t, i;

	layer_make(&l, c);
	memcpy(h, in, sizeof(float) * ROWS * HIDDEN);
	assert_int_equal(vq_layer_forward(&l, h, &batch, NULL, &err), VQ_OK);
	for (s = 0; s < 3; s++) {
		uint32_t n = starts[s + 1] - starts[s];

		ref_layer(&l, in + starts[s] * HIDDEN, n, want);
		for (t = 0; t < n; t++)
			for (i = 0; i < HIDDEN; i++)
				worst = fmax(worst,
					     fabs(want[t][i] - h[(starts[s] + t) * HIDDEN + i]));
	}
	layer_drop(&l);
	vq_free(in);
	vq_free(h);
	return worst;
}

static void a_llama_layer_agrees_with_double_precision(void **state)
{
	double worst = compare_with_ref(&llama);

	(void)state;
	print_message("# figure: LLaMA layer, grouped heads, rotary: largest error %.1e\n", worst);
	assert_true(worst < 2e-4);
}

static void a_parallel_layer_agrees_with_double_precision(void **state)
{
	double worst = compare_with_ref(&phi);

	(void)state;
	print_message("# figure: parallel layer, half of a head turns: largest error %.1e\n",
		      worst);
	assert_true(worst < 2e-4);
}

static void a_clip_layer_agrees_with_double_precision(void **state)
{
	double worst = compare_with_ref(&clip);

	(void)state;
	print_message("# figure: CLIP layer: largest error %.1e\n", worst);
	assert_true(worst < 2e-4);
}

static void tokens_that_come_one_by_one_find_the_cache(void **state)
{
	float *in = random_block((size_t)ROWS * HIDDEN, 1),
	      *all = random_block((size_t)ROWS * HIDDEN, 1), step[2 * HIDDEN];
	uint32_t t, i, n = 40, one[] = {0, n}, two[] = {0, 1, 2};
	struct vq_err err = {0};
	struct vq_layer l;
	struct vq_kv kv;
	double worst = 0;

	(void)state;
	layer_make(&l, &llama);
	memcpy(all, in, sizeof(float) * n * HIDDEN);
	assert_int_equal(vq_layer_forward(&l, all, &(struct vq_batch){1, one}, NULL, &err), VQ_OK);
	/* Two sequences at once: the same tokens, the second one starting three later. */
	assert_int_equal(vq_kv_new(&kv, 1, 2, n, KV_HEADS, DIM, VQ_KV_F32, &err), VQ_OK);
	for (t = 0; t < n; t++) {
		memcpy(step, in + t * HIDDEN, sizeof(float) * HIDDEN);
		memcpy(step + HIDDEN, in + (t < 3 ? 0 : t - 3) * HIDDEN, sizeof(float) * HIDDEN);
		two[2] = t < 3 ? 1 : 2; /* an empty sequence is fine */
		assert_int_equal(
			vq_layer_forward(&l, step, &(struct vq_batch){2, two}, &kv.layers[0], &err),
			VQ_OK);
		kv.n[0]++;
		kv.n[1] += t >= 3;
		for (i = 0; i < HIDDEN; i++) {
			worst = fmax(worst, fabs((double)step[i] - all[t * HIDDEN + i]));
			if (t >= 3)
				worst = fmax(worst, fabs((double)step[HIDDEN + i] -
							 all[(t - 3) * HIDDEN + i]));
		}
	}
	assert_true(worst < 1e-4);
	assert_int_equal(
		vq_layer_forward(&l, step, &(struct vq_batch){2, two}, &kv.layers[0], &err),
		VQ_E_DATA);
	assert_non_null(strstr(err.text, "room is 40"));
	vq_kv_free(&kv);
	layer_drop(&l);
	vq_free(in);
	vq_free(all);
}

static void stages_give_what_the_whole_layer_gives(void **state)
{
	float *a = random_block((size_t)ROWS * HIDDEN, 1),
	      *b = random_block((size_t)ROWS * HIDDEN, 1);
	static const uint32_t widths[] = {HIDDEN, HEADS * DIM, HIDDEN, INTER};
	const struct vq_linear *lin[3];
	struct vq_layer_run r;
	struct vq_err err = {0};
	struct vq_layer l;
	enum vq_lin which[3];
	int i;

	(void)state;
	layer_make(&l, &llama);
	memcpy(b, a, sizeof(float) * ROWS * HIDDEN);
	assert_int_equal(vq_layer_forward(&l, a, &batch, NULL, &err), VQ_OK);
	assert_int_equal(vq_layer_begin(&r, &l, b, &batch, NULL, &err), VQ_OK);
	for (i = 0; i < VQ_N_SLOTS; i++) {
		uint32_t n =
			vq_layer_place_linears(&l, (struct vq_layer_place){r.slot, 0}, lin, which);

		assert_int_equal(r.slot, i);
		assert_int_equal(r.x_width, widths[i]);
		while (n-- > 0)
			assert_int_equal(lin[n]->n_in, r.x_width);
		assert_int_equal(vq_layer_next(&r, &err), VQ_OK);
	}
	assert_int_equal(vq_layer_next(&r, &err), VQ_E_DATA);
	vq_layer_end(&r);
	assert_memory_equal(a, b, sizeof(float) * ROWS * HIDDEN);
	layer_drop(&l);
	vq_free(a);
	vq_free(b);
}

static void the_number_of_threads_changes_no_bit(void **state)
{
	float *a = random_block((size_t)ROWS * HIDDEN, 1),
	      *b = random_block((size_t)ROWS * HIDDEN, 1);
	int n = omp_get_max_threads();
	struct vq_err err = {0};
	struct vq_layer l;

	(void)state;
	layer_make(&l, &llama);
	memcpy(b, a, sizeof(float) * ROWS * HIDDEN);
	omp_set_num_threads(1);
	assert_int_equal(vq_layer_forward(&l, a, &batch, NULL, &err), VQ_OK);
	omp_set_num_threads(4);
	assert_int_equal(vq_layer_forward(&l, b, &batch, NULL, &err), VQ_OK);
	omp_set_num_threads(n);
	assert_memory_equal(a, b, sizeof(float) * ROWS * HIDDEN);
	layer_drop(&l);
	vq_free(a);
	vq_free(b);
}

/* Column sums of the softmax of one sequence, over heads and queries, by the number of queries that see each. */
static void ref_mass(const struct vq_layer *l, const float *x, uint32_t n, double *mass)
{
	static double q[ROWS][HIDDEN], k[ROWS][HIDDEN];
	const struct vq_layer_config *c = l->cfg;
	double row[HIDDEN], p[ROWS];
	uint32_t t, u, h, i, seen;

	for (t = 0; t < n; t++) {
		for (i = 0; i < HIDDEN; i++)
			row[i] = x[t * HIDDEN + i];
		ref_linear(&l->lin[VQ_LIN_Q], row, q[t]);
		ref_linear(&l->lin[VQ_LIN_K], row, k[t]);
		ref_rotate(c, q[t], c->n_heads, t);
		ref_rotate(c, k[t], c->n_kv_heads, t);
		mass[t] = 0;
	}
	for (h = 0; h < c->n_heads; h++)
		for (t = 0; t < n; t++) {
			seen = ref_softmax(c, q, k, n, t, h, p);
			for (u = 0; u < seen; u++)
				mass[u] += p[u] / c->n_heads;
		}
	for (t = 0; t < n; t++)
		mass[t] /= c->causal ? n - t : n;
}

static void compare_mass(const struct vq_layer_config *c)
{
	float *x = random_block((size_t)ROWS * HIDDEN, 1), got[ROWS], again[ROWS];
	double want[ROWS], worst = 0;
	struct vq_layer l;
	uint32_t s, t;

	layer_make(&l, c);
	assert_int_equal(vq_attention_mass(&l, x, &batch, got, NULL), VQ_OK);
	for (s = 0; s < 3; s++) {
		uint32_t n = starts[s + 1] - starts[s];

		ref_mass(&l, x + starts[s] * HIDDEN, n, want);
		for (t = 0; t < n; t++)
			worst = fmax(worst, fabs(want[t] - got[starts[s] + t]) / want[t]);
	}
	assert_true(worst < 1e-3);
	omp_set_num_threads(3);
	assert_int_equal(vq_attention_mass(&l, x, &batch, again, NULL), VQ_OK);
	omp_set_num_threads(1);
	assert_memory_equal(got, again, sizeof(got));
	layer_drop(&l);
	vq_free(x);
}

static void the_attention_that_tokens_get_is_the_softmax_summed_over_queries(void **state)
{
	(void)state;
	compare_mass(&llama);
	compare_mass(&clip);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_llama_layer_agrees_with_double_precision),
		cmocka_unit_test(a_clip_layer_agrees_with_double_precision),
		cmocka_unit_test(a_parallel_layer_agrees_with_double_precision),
		cmocka_unit_test(tokens_that_come_one_by_one_find_the_cache),
		cmocka_unit_test(stages_give_what_the_whole_layer_gives),
		cmocka_unit_test(the_number_of_threads_changes_no_bit),
		cmocka_unit_test(the_attention_that_tokens_get_is_the_softmax_summed_over_queries),
	};

	return cmocka_run_group_tests_name("layer", tests, NULL, NULL);
}
