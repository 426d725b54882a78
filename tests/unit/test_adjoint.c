/* model/adjoint: the reverse of layers, against central differences of the forward pass. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <omp.h>
#include <cmocka.h>

#include "base/mem.h"
#include "base/num.h"
#include "kernel/gemm_back.h"
#include "model/adjoint.h"
#include "random_layer.h"

#define N 7 /* tokens */
#define K 3 /* cotangents */

/* <u, F(h + t v)> in double. */
static double probe(const struct vq_layer *l, const float *h, const float *v, double t,
		    const float *u)
{
	const uint32_t start[2] = {0, N};
	const struct vq_batch b = {1, start};
	size_t n = (size_t)N * l->cfg->hidden, i;
	float *x = vq_alloc_f32(n, NULL);
	double sum = 0;

	assert_non_null(x);
	for (i = 0; i < n; i++)
		x[i] = (float)(h[i] + t * v[i]);
	assert_int_equal(vq_layer_forward(l, x, &b, NULL, NULL), VQ_OK);
	for (i = 0; i < n; i++)
		sum += (double)u[i] * x[i];
	vq_free(x);
	return sum;
}

/* Phi's kind: no second norm, half of a head turns. */
static void make_parallel(struct random_layer *m)
{
	m->cfg.parallel = 1;
	m->cfg.rotary_dim = m->cfg.head_dim / 2;
	m->cfg.rope_theta = 10000;
	m->cfg.act = VQ_ACT_GELU_TANH;
	m->cfg.causal = 1;
	m->layer.norm2_w = m->layer.norm2_b = NULL;
}

/* top_k 0: a dense layer. */
static void check_layer(int llama, int parallel, uint32_t top_k, const char *what)
{
	struct random_layer m;
	size_t n, i;
	float *h, *u, *g, *v;
	double worst = 0;
	uint32_t k, trial;

	if (top_k)
		random_layer_sparse(&m, 4, top_k, 0);
	else
		random_layer_new(&m, llama, 0);
	if (parallel)
		make_parallel(&m);
	n = (size_t)N * m.cfg.hidden;
	h = random_rows(n, 1, 1);
	u = random_rows(K * n, 1, 2);
	g = vq_alloc_f32(K * n, NULL);
	assert_non_null(g);
	memcpy(g, u, K * n * sizeof(float));
	assert_int_equal(vq_layer_adjoint(&m.layer, h, N, g, K, NULL, NULL), VQ_OK);
	for (trial = 0; trial < 4; trial++)
		for (k = 0; k < K; k++) {
			double t = 1e-2, got = 0, want, norm = 0;

			v = random_rows(n, 1, 100 + trial);
			want = (probe(&m.layer, h, v, t, u + k * n) -
				probe(&m.layer, h, v, -t, u + k * n)) /
			       (2 * t);
			for (i = 0; i < n; i++) {
				got += (double)g[k * n + i] * v[i];
				norm += (double)g[k * n + i] * g[k * n + i];
			}
			if (fabs(got - want) / sqrt(norm) > worst)
				worst = fabs(got - want) / sqrt(norm);
			vq_free(v);
		}
	print_message("# figure: adjoint of a %s layer against central differences: off by %.1e of "
		      "its norm\n",
		      what, worst);
	assert_true(worst < 2e-3);
	vq_free(h);
	vq_free(u);
	vq_free(g);
	random_layer_free(&m);
}

static void adjoint_of_a_llama_layer_equals_its_central_differences(void **state)
{
	(void)state;
	check_layer(1, 0, 0, "LLaMA");
}

static void adjoint_of_a_clip_layer_equals_its_central_differences(void **state)
{
	(void)state;
	check_layer(0, 0, 0, "CLIP");
}

static void adjoint_of_a_parallel_layer_equals_its_central_differences(void **state)
{
	(void)state;
	check_layer(0, 1, 0, "parallel");
	check_layer(1, 1, 0, "parallel and gated");
}

static void adjoint_of_a_layer_with_experts_equals_its_central_differences(void **state)
{
	(void)state;
	check_layer(1, 0, 1, "sparse (1 of 4 experts a row)");
	check_layer(1, 0, 2, "sparse (2 of 4 experts a row)");
	check_layer(1, 1, 2, "sparse and parallel");
}

static void slopes_of_activations_equal_their_differences(void **state)
{
	static const enum vq_act_fn fns[] = {VQ_ACT_GELU_ERF, VQ_ACT_GELU_TANH, VQ_ACT_SILU,
					     VQ_ACT_QUICK_GELU};
	struct vq_linear eye = {
		.n_out = 1, .n_in = 1, .dtype = VQ_F32, .w = &(float){1}, .act = {.bits = 16}};
	struct vq_config c = {.projector = {.n_linears = 2, .in = 1, .out = 1}};
	struct vq_projector p = {{eye, eye}};
	uint32_t f;
	float x;

	(void)state;
	for (f = 0; f < 4; f++)
		for (x = -3; x < 3; x += 0.37f) {
			float at[2] = {x - 1e-2f, x + 1e-2f}, y[2], slope, g = 1, back;

			c.projector.act = fns[f];
			assert_int_equal(vq_projector_apply(&c, &p, at, 2, y, NULL), VQ_OK);
			vq_act_slope(fns[f], &x, 1, &slope);
			assert_true(fabsf(slope - (y[1] - y[0]) / (at[1] - at[0])) < 2e-4f);
			assert_int_equal(vq_projector_adjoint(&c, &p, &x, 1, &g, 1, &back, NULL),
					 VQ_OK);
			assert_true(back == slope);
		}
}

static void product_backwards_equals_the_sum_in_double_for_every_weight_type(void **state)
{
	static const enum vq_dtype types[] = {VQ_F32, VQ_F16, VQ_BF16};
	enum { ROWS = 300, OUT = 37, IN = 530 };
	float *g = random_rows(ROWS * OUT, 1, 1), *w = random_rows(OUT * IN, 1, 2);
	float *y = vq_alloc_f32(ROWS * IN, NULL);
	uint16_t *h = vq_alloc(OUT * IN, 2, NULL);
	uint32_t t, i, j, o;

	(void)state;
	assert_non_null(y);
	assert_non_null(h);
	for (t = 0; t < 3; t++) {
		for (i = 0; i < OUT * IN && t; i++) {
			h[i] = t == 1 ? vq_f32_to_f16(w[i]) : vq_f32_to_bf16(w[i]);
			w[i] = t == 1 ? vq_f16_to_f32(h[i]) : vq_bf16_to_f32(h[i]);
		}
		assert_int_equal(vq_gemm_back(g, ROWS, t ? (void *)h : (void *)w, types[t], OUT, IN,
					      y, NULL),
				 VQ_OK);
		for (i = 0; i < ROWS; i += 7)
			for (j = 0; j < IN; j += 11) {
				double sum = 0;

				for (o = 0; o < OUT; o++)
					sum += (double)g[i * OUT + o] * w[o * IN + j];
				assert_true(fabs(y[i * IN + j] - sum) < 1e-4);
			}
	}
	vq_free(g);
	vq_free(w);
	vq_free(y);
	vq_free(h);
}

static void adjoint_has_the_same_bytes_for_any_number_of_threads(void **state)
{
	struct random_layer m;
	size_t n;
	float *h, *g[2];
	int t, was = omp_get_max_threads();

	(void)state;
	random_layer_new(&m, 1, 0);
	n = (size_t)N * m.cfg.hidden;
	h = random_rows(n, 1, 1);
	for (t = 0; t < 2; t++) {
		omp_set_num_threads(t ? 3 : 1);
		g[t] = random_rows(K * n, 1, 2);
		assert_int_equal(vq_layer_adjoint(&m.layer, h, N, g[t], K, NULL, NULL), VQ_OK);
	}
	omp_set_num_threads(was);
	assert_memory_equal(g[0], g[1], K * n * sizeof(float));
	vq_free(h);
	vq_free(g[0]);
	vq_free(g[1]);
	random_layer_free(&m);
}

/* Two pictures of 6 x 6 patches of 3 numbers, a norm, squares of 3: rows of 27 numbers. */
enum { SIDE = 6, SQUARE = 3, WIDTH = 3, PICTURES = 2, PATCHES = SIDE * SIDE };

static void shuffled_model(struct vq_model *m, int post_norm)
{
	static const float w[WIDTH] = {1.5f, -.5f, 2}, b[WIDTH] = {.25f, 1, -1};

	memset(m, 0, sizeof(*m));
	m->cfg.has_vision = 1;
	m->cfg.vision.layer.hidden = WIDTH;
	m->cfg.vision.layer.norm = VQ_NORM_LAYER;
	m->cfg.vision.layer.eps = 1e-6f;
	m->cfg.vision.image_size = SIDE * 4 + 3;
	m->cfg.vision.patch_size = 4;
	m->cfg.vision.post_norm = post_norm;
	m->cfg.projector.shuffle = SQUARE;
	m->vision.post_w = w;
	m->vision.post_b = b;
}

/* Against the order of transformers' pixel_shuffle, written as its two reshapes and transpositions: [H, W, C] ->
 * [H, W/s, C s] -> [W/s, H, C s] -> [W/s, H/s, C s s] -> [H/s, W/s, C s s]. */
static void features_are_shuffled_as_transformers_does(void **state)
{
	enum { ALL = PATCHES * WIDTH, S = SQUARE, R = SIDE / SQUARE };
	float a[ALL], b[ALL], got[PICTURES * ALL], h[PICTURES * ALL];
	struct vq_model m;
	size_t i, p, y, x, c;

	(void)state;
	shuffled_model(&m, 0);
	for (i = 0; i < PICTURES * ALL; i++)
		h[i] = (float)i;
	vq_vision_features(&m, h, PICTURES, got);
	for (p = 0; p < PICTURES; p++) {
		for (y = 0; y < SIDE; y++) /* rows of C s numbers are as they lie; transpose */
			for (x = 0; x < R; x++)
				memcpy(a + (x * SIDE + y) * WIDTH * S,
				       h + p * ALL + (y * R + x) * WIDTH * S,
				       WIDTH * S * sizeof(*a));
		for (x = 0; x < R; x++)
			for (y = 0; y < R; y++)
				memcpy(b + (y * R + x) * WIDTH * S * S,
				       a + (x * R + y) * WIDTH * S * S, WIDTH * S * S * sizeof(*a));
		for (c = 0; c < ALL; c++)
			assert_true(got[p * ALL + c] == b[c]);
	}
}

static void the_adjoint_of_features_is_that_of_central_differences(void **state)
{
	enum { ALL = PICTURES * PATCHES * WIDTH, ONE = PATCHES * WIDTH };
	float *h = random_rows(ALL, 1, 1), *u = random_rows(K * ALL, 1, 2),
	      *v = random_rows(ALL, 1, 3);
	float up[ALL], down[ALL], fu[ALL], fd[ALL], g[K * ONE];
	const double t = 1e-2;
	struct vq_model m;
	uint32_t i, k, p;

	(void)state;
	shuffled_model(&m, 1);
	for (p = 0; p < PICTURES; p++) {
		vq_vision_features_adjoint(&m, h, PICTURES, p, u, K, g);
		for (i = 0; i < ALL; i++) { /* only this picture moves */
			double d = i / ONE == p ? t * v[i] : 0;

			up[i] = (float)(h[i] + d);
			down[i] = (float)(h[i] - d);
		}
		vq_vision_features(&m, up, PICTURES, fu);
		vq_vision_features(&m, down, PICTURES, fd);
		for (k = 0; k < K; k++) {
			double want = 0, got = 0, norm = 0;

			for (i = 0; i < ALL; i++)
				want += (double)u[k * ALL + i] * ((double)fu[i] - fd[i]) / (2 * t);
			for (i = 0; i < ONE; i++) {
				got += (double)g[k * ONE + i] * v[p * ONE + i];
				norm += (double)g[k * ONE + i] * g[k * ONE + i];
			}
			assert_true(fabs(got - want) < 5e-3 * sqrt(norm));
		}
	}
	vq_free(h);
	vq_free(u);
	vq_free(v);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(features_are_shuffled_as_transformers_does),
		cmocka_unit_test(the_adjoint_of_features_is_that_of_central_differences),
		cmocka_unit_test(adjoint_of_a_llama_layer_equals_its_central_differences),
		cmocka_unit_test(adjoint_of_a_clip_layer_equals_its_central_differences),
		cmocka_unit_test(adjoint_of_a_parallel_layer_equals_its_central_differences),
		cmocka_unit_test(adjoint_of_a_layer_with_experts_equals_its_central_differences),
		cmocka_unit_test(slopes_of_activations_equal_their_differences),
		cmocka_unit_test(product_backwards_equals_the_sum_in_double_for_every_weight_type),
		cmocka_unit_test(adjoint_has_the_same_bytes_for_any_number_of_threads),
	};

	return cmocka_run_group_tests_name("adjoint", tests, NULL, NULL);
}
