/* model/lora: adapters against the formulas. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "kernel/gemm16.h"
#include "kernel/gemm_back.h"
#include "model/lora.h"
#include "random_layer.h"

#define LAYERS 2
#define RANK   3
#define ROWS   9

struct two {
	struct random_layer made[LAYERS];
	struct vq_layer layers[LAYERS];
	struct vq_lora lora;
};

static void two_new(struct two *t)
{
	uint32_t i;

	for (i = 0; i < LAYERS; i++) {
		random_layer_new(&t->made[i], 1, 100 * i);
		t->layers[i] = t->made[i].layer;
	}
	assert_int_equal(vq_lora_new(&t->lora, t->layers, LAYERS, RANK, 16, 1, NULL), VQ_OK);
}

static void two_free(struct two *t)
{
	uint32_t i;

	vq_lora_free(&t->lora);
	for (i = 0; i < LAYERS; i++)
		random_layer_free(&t->made[i]);
}

/* Adapters that are not 0. */
static void fill(struct vq_lora *l)
{
	float *v = random_rows(l->n, 0.1, 5);

	memcpy(l->value, v, l->n * sizeof(float));
	vq_free(v);
}

static void adapters_cover_all_numbers_once_and_begin_with_the_model_as_it_is(void **state)
{
	struct two t;
	size_t seen = 0, i;
	uint32_t layer, lin;

	(void)state;
	two_new(&t);
	for (layer = 0; layer < LAYERS; layer++)
		for (lin = 0; lin < VQ_N_LINEARS; lin++) {
			const struct vq_linear *l = &t.layers[layer].lin[lin];
			struct vq_adapter a = vq_lora_at(&t.lora, layer, lin);
			float *w = vq_alloc_f32((size_t)l->n_out * l->n_in, NULL);

			assert_ptr_equal(a.a, t.lora.value + seen);
			seen += ((size_t)l->n_in + l->n_out) * RANK;
			assert_int_equal(vq_lora_merge(&t.lora, layer, lin, w, NULL), VQ_OK);
			assert_memory_equal(w, l->w, (size_t)l->n_out * l->n_in * sizeof(float));
			for (i = 0; i < (size_t)RANK * l->n_in; i++)
				assert_true(a.a[i] != 0 && fabs(a.a[i]) <= 1 / sqrt(l->n_in));
			vq_free(w);
		}
	assert_int_equal(seen, t.lora.n);
	two_free(&t);
}

static void merged_weights_give_what_the_adapters_give_beside_them(void **state)
{
	struct two t;
	uint32_t lin, i, r, o, k;

	(void)state;
	two_new(&t);
	fill(&t.lora);
	for (lin = 0; lin < VQ_N_LINEARS; lin++) {
		const struct vq_linear *l = &t.layers[1].lin[lin];
		struct vq_adapter a = vq_lora_at(&t.lora, 1, lin);
		float *w = vq_alloc_f32((size_t)l->n_out * l->n_in, NULL);
		float *x = random_rows((size_t)ROWS * l->n_in, 1, 6);
		float *y = vq_alloc_f32((size_t)ROWS * l->n_out, NULL);
		float *plain = vq_alloc_f32((size_t)ROWS * l->n_out, NULL);

		assert_int_equal(vq_lora_merge(&t.lora, 1, lin, w, NULL), VQ_OK);
		assert_int_equal(vq_gemm(x, ROWS, w, VQ_F32, l->n_out, l->n_in, NULL, y, NULL),
				 VQ_OK);
		assert_int_equal(
			vq_gemm(x, ROWS, l->w, VQ_F32, l->n_out, l->n_in, NULL, plain, NULL),
			VQ_OK);
		for (i = 0; i < ROWS; i++)
			for (o = 0; o < l->n_out; o++) {
				double sum = 0;

				for (r = 0; r < RANK; r++) {
					double xa = 0;

					for (k = 0; k < l->n_in; k++)
						xa += x[i * l->n_in + k] * a.a[r * l->n_in + k];
					sum += xa * a.b[o * RANK + r];
				}
				sum = plain[i * l->n_out + o] + 16.0 / RANK * sum;
				assert_true(fabs(y[i * l->n_out + o] - sum) < 1e-4);
			}
		vq_free(w);
		vq_free(x);
		vq_free(y);
		vq_free(plain);
	}
	two_free(&t);
}

static void experts_have_adapters_of_their_own_behind_those_of_attention(void **state)
{
	struct random_layer made[2];
	struct vq_layer layers[2];
	struct vq_lora lora;
	size_t seen = 0;
	uint32_t layer, k;

	(void)state;
	random_layer_sparse(&made[0], 3, 2, 7);
	random_layer_new(&made[1], 1, 8);
	for (k = 0; k < 2; k++)
		layers[k] = made[k].layer;
	assert_int_equal(vq_layer_n_linears(&layers[0]), 4 + 3 * 3);
	assert_int_equal(vq_layer_n_linears(&layers[1]), VQ_N_LINEARS);
	assert_int_equal(vq_lora_new(&lora, layers, 2, RANK, 16, 1, NULL), VQ_OK);
	for (layer = 0; layer < 2; layer++)
		for (k = 0; k < vq_layer_n_linears(&layers[layer]); k++) {
			const struct vq_linear *l = vq_layer_linear_at(&layers[layer], k);

			assert_ptr_equal(vq_lora_at(&lora, layer, k).a, lora.value + seen);
			seen += ((size_t)l->n_in + l->n_out) * RANK;
		}
	assert_int_equal(seen, lora.n);
	assert_ptr_equal(vq_layer_linear_at(&layers[0], vq_layer_linear_number(VQ_LIN_DOWN, 2)),
			 vq_layer_linear(&layers[0], VQ_LIN_DOWN, 2));
	assert_ptr_equal(vq_layer_linear_at(&layers[0], vq_layer_linear_number(VQ_LIN_V, 2)),
			 &layers[0].lin[VQ_LIN_V]);
	vq_lora_free(&lora);
	for (k = 0; k < 2; k++)
		random_layer_free(&made[k]);
}

/* With G = g^T x of the merged weight: dB = s G A^T, dA = s B^T G. */
static void gradients_of_adapters_are_those_of_the_weight_through_their_product(void **state)
{
	struct two t;
	uint32_t o, k, r;

	(void)state;
	two_new(&t);
	fill(&t.lora);
	{
		const struct vq_linear *l = &t.layers[1].lin[VQ_LIN_UP];
		struct vq_adapter a = vq_lora_at(&t.lora, 1, VQ_LIN_UP);
		float *x = random_rows((size_t)ROWS * l->n_in, 1, 6);
		float *g = random_rows((size_t)ROWS * l->n_out, 1, 7);
		float *w = vq_calloc((size_t)l->n_out * l->n_in, sizeof(float), NULL);
		const float *ga = t.lora.grad + (a.a - t.lora.value);
		const float *gb = t.lora.grad + (a.b - t.lora.value);

		vq_gemm_weight_grad(g, x, ROWS, l->n_out, l->n_in, w);
		assert_int_equal(vq_lora_grad(&t.lora, 1, VQ_LIN_UP, x, g, ROWS, NULL), VQ_OK);
		for (r = 0; r < RANK; r++) {
			for (o = 0; o < l->n_out; o++) {
				double sum = 0;

				for (k = 0; k < l->n_in; k++)
					sum += w[o * l->n_in + k] * a.a[r * l->n_in + k];
				assert_true(fabs(gb[o * RANK + r] - 16.0 / RANK * sum) < 1e-3);
			}
			for (k = 0; k < l->n_in; k++) {
				double sum = 0;

				for (o = 0; o < l->n_out; o++)
					sum += w[o * l->n_in + k] * a.b[o * RANK + r];
				assert_true(fabs(ga[r * l->n_in + k] - 16.0 / RANK * sum) < 1e-3);
			}
		}
		vq_free(x);
		vq_free(g);
		vq_free(w);
	}
	two_free(&t);
}

static void a_first_step_goes_by_the_rate_against_the_gradient_and_decays(void **state)
{
	const double rate = 1e-3;
	struct two t;
	float was[2];

	(void)state;
	two_new(&t);
	was[0] = t.lora.value[0] = 0.5f;
	was[1] = t.lora.value[1] = -0.5f;
	t.lora.grad[0] = 3;
	t.lora.grad[1] = -7;
	vq_lora_step(&t.lora, 1, rate);
	/* With both means corrected the first step is rate * sign(g). */
	assert_true(fabs(t.lora.value[0] - (was[0] * (1 - rate * 0.01) - rate)) < 1e-6);
	assert_true(fabs(t.lora.value[1] - (was[1] * (1 - rate * 0.01) + rate)) < 1e-6);
	assert_true(t.lora.grad[0] == 0 && t.lora.grad[1] == 0);
	two_free(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(adapters_cover_all_numbers_once_and_begin_with_the_model_as_it_is),
		cmocka_unit_test(merged_weights_give_what_the_adapters_give_beside_them),
		cmocka_unit_test(experts_have_adapters_of_their_own_behind_those_of_attention),
		cmocka_unit_test(
			gradients_of_adapters_are_those_of_the_weight_through_their_product),
		cmocka_unit_test(a_first_step_goes_by_the_rate_against_the_gradient_and_decays),
	};

	return cmocka_run_group_tests_name("lora", tests, NULL, NULL);
}
