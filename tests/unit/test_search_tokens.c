/* task/search_tokens: weights of calibration tokens. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "base/mem.h"
#include "base/rng.h"
#include "model/attention_mass.h"
#include "quant/layerwise.h"
#include "task/search_gptq.h"
#include "task/search_tokens.h"

#define IMAGE   99
#define HIDDEN  16
#define DECODER 3 /* units 0, 1: tower; 2: projector */
#define ROWS    9

static struct vq_config cfg;
static int32_t first[] = {1, IMAGE, IMAGE, 7}, other[] = {1, 2}, last[] = {1, IMAGE, 5, 6, 8};
static struct vq_acts_sample samples[] = {
	{.tokens = first, .n_tokens = 4},
	{.tokens = other, .n_tokens = 2},
	{.tokens = last, .n_tokens = 5},
};
static struct vq_acts acts = {.cfg = &cfg, .samples = samples, .n_samples = 3};

/* Samples 0 and 2 are at hand. */
static const uint32_t seqs[] = {0, 2}, start[] = {0, 4, ROWS};
static const struct vq_batch batch = {2, start};
static const int is_image[ROWS] = {0, 1, 1, 0, 0, 1, 0, 0, 0};

static int set_up(void **state)
{
	(void)state;
	cfg.has_vision = 1;
	cfg.image_token = IMAGE;
	cfg.vision.n_layers = 2;
	cfg.decoder.n_layers = 2;
	cfg.decoder.layer = (struct vq_layer_config){.hidden = HIDDEN,
						     .inter = HIDDEN,
						     .n_heads = 2,
						     .n_kv_heads = 2,
						     .head_dim = 8,
						     .causal = 1};
	return vq_config_decoder_unit(&cfg) == DECODER ? 0 : -1;
}

static struct vq_tokens begin(const struct vq_search_opts *o)
{
	struct vq_tokens t;

	assert_int_equal(vq_tokens_begin(&t, o, &acts, seqs, &batch, DECODER, NULL), VQ_OK);
	return t;
}

static void rows_of_pictures_weigh_lambda_times_those_of_text(void **state)
{
	const struct vq_search_opts o = {.token_weights = VQ_TOKENS_VISION, .vision_weight = .25};
	struct vq_tokens t = begin(&o);
	double sum = 0;
	uint32_t i;

	(void)state;
	assert_int_equal(vq_tokens_layer(&t, DECODER, NULL, NULL, NULL), VQ_OK);
	for (i = 0; i < ROWS; i++) {
		sum += t.r[i];
		assert_float_equal(t.r[i] / t.r[0], is_image[i] ? .25 : 1, 1e-6);
	}
	assert_float_equal(sum, ROWS, 1e-5);
	assert_memory_equal(t.r, t.block, ROWS * sizeof(float));
	vq_tokens_free(&t);
}

static void equal_weights_are_one_to_the_bit(void **state)
{
	const struct vq_search_opts o = {.token_weights = VQ_TOKENS_VISION, .vision_weight = 1},
				    none = {.token_weights = VQ_TOKENS_VISION, .vision_weight = 0};
	struct vq_tokens t = begin(&o);
	uint32_t i;

	(void)state;
	assert_int_equal(vq_tokens_layer(&t, DECODER, NULL, NULL, NULL), VQ_OK);
	assert_int_equal(vq_tokens_layer(&t, DECODER + 1, NULL, NULL, NULL), VQ_OK);
	for (i = 0; i < ROWS; i++)
		assert_true(t.r[i] == 1 && t.block[i] == 1);
	vq_tokens_free(&t);
	t = begin(&none);
	assert_int_equal(vq_tokens_layer(&t, DECODER, NULL, NULL, NULL), VQ_OK);
	for (i = 0; i < ROWS; i++)
		assert_true(is_image[i] ? t.r[i] == 0 : t.r[i] > 1);
	vq_tokens_free(&t);
}

static void measured_weights_are_those_of_the_unit(void **state)
{
	const struct vq_search_opts o = {.token_weights = VQ_TOKENS_VISION, .vision_weight = -1};
	float measured[] = {1, 1, 1, .5f, .125f};
	struct vq_err err = {0};
	struct vq_tokens t;
	float first_layer[ROWS];
	uint32_t i;

	(void)state;
	assert_int_equal(vq_tokens_begin(&t, &o, &acts, seqs, &batch, DECODER, &err), VQ_E_DATA);
	assert_non_null(strstr(err.text, "stat/vision_weight"));
	acts.vision_weight = measured;
	t = begin(&o);
	assert_int_equal(vq_tokens_layer(&t, DECODER, NULL, NULL, NULL), VQ_OK);
	assert_float_equal(t.r[1] / t.r[0], .5, 1e-6);
	memcpy(first_layer, t.r, sizeof(first_layer));
	assert_int_equal(vq_tokens_layer(&t, DECODER + 1, NULL, NULL, NULL), VQ_OK);
	assert_float_equal(t.r[1] / t.r[0], .125, 1e-6);
	for (i = 0; i < ROWS; i++) /* a block's output counts the mean of its layers */
		assert_float_equal(t.block[i], (first_layer[i] + t.r[i]) / 2, 1e-6);
	vq_tokens_free(&t);
	acts.vision_weight = NULL;
}

static void attention_weights_span_a_hundredth_to_one_in_the_order_of_attention(void **state)
{
	const struct vq_search_opts o = {.token_weights = VQ_TOKENS_ATTENTION};
	float w[2][HIDDEN * HIDDEN], x[ROWS * HIDDEN], mass[ROWS], low = INFINITY, high = 0;
	struct vq_rng r = vq_rng_new(4, "tokens");
	struct vq_tokens t = begin(&o);
	struct vq_layer l;
	uint64_t i, j;

	(void)state;
	vq_layer_init(&l, &cfg.decoder.layer);
	for (i = 0; i < HIDDEN * HIDDEN; i++)
		for (j = 0; j < 2; j++)
			w[j][i] = (float)vq_rng_normal(r, 2 * i + j) / 4;
	for (i = 0; i < ROWS * HIDDEN; i++)
		x[i] = (float)vq_rng_normal(r, 10000 + i);
	l.lin[VQ_LIN_Q].w = w[0];
	l.lin[VQ_LIN_K].w = w[1];
	l.lin[VQ_LIN_Q].dtype = l.lin[VQ_LIN_K].dtype = VQ_F32;
	assert_int_equal(vq_attention_mass(&l, x, &batch, mass, NULL), VQ_OK);
	assert_int_equal(vq_tokens_layer(&t, DECODER, &l, x, NULL), VQ_OK);
	for (i = 0; i < ROWS; i++) {
		low = fminf(low, t.r[i]);
		high = fmaxf(high, t.r[i]);
		for (j = 0; j < ROWS; j++)
			assert_true((mass[i] < mass[j]) == (t.r[i] < t.r[j]));
	}
	assert_float_equal(low / high, .01, 1e-6);
	vq_tokens_free(&t);
}

static void without_weights_and_before_the_decoder_there_are_none(void **state)
{
	const struct vq_search_opts none = {.token_weights = VQ_TOKENS_NONE},
				    o = {.token_weights = VQ_TOKENS_ATTENTION};
	struct vq_tokens t = begin(&none);

	(void)state;
	assert_int_equal(vq_tokens_layer(&t, DECODER, NULL, NULL, NULL), VQ_OK);
	assert_null(t.r);
	assert_null(t.block);
	vq_tokens_free(&t);
	assert_int_equal(vq_tokens_begin(&t, &o, &acts, seqs, &batch, 0, NULL), VQ_OK);
	assert_null(t.r);
	vq_tokens_free(&t);
}

enum { IN = 64, OUT = 24, DISTINCT = 200 };

/* Codes of a random weight for n_rows inputs with weights r. */
static struct vq_codes gptq_codes(const float *w, const float *x, const float *full, const float *r,
				  size_t n_rows, double *loss)
{
	const struct vq_search_opts o = {.gptaq = .5};
	struct vq_record rec = {.name = "w"};
	struct vq_held held = {.rec = rec};
	struct vq_linear l = {.n_out = OUT, .n_in = IN, .dtype = VQ_F32, .w = w}, quant = l;
	struct vq_place p = {.n = 1,
			     .lin[0] = {.rec = &held, .full = &l, .quant = &quant},
			     .w = {3, 32, 0},
			     .a = {.bits = VQ_ACT_FLOAT, .clip = 1},
			     .a_ratio = {1, 1, 1, 1, 1}};
	struct vq_gptq_cost cost = {0};
	struct vq_codes c;

	assert_int_equal(
		vq_place_gptq(&p, &o, (const uint8_t[]){0, 0}, x, full, r, n_rows, &cost, NULL),
		VQ_OK);
	c = p.lin[0].codes;
	memset(&p.lin[0].codes, 0, sizeof(c));
	vq_place_free(&p);
	*loss = cost.loss;
	return c;
}

static void whole_weights_are_what_repeated_rows_give(void **state)
{
	static float w[OUT * IN], x[3 * DISTINCT * IN], full[3 * DISTINCT * IN], r[DISTINCT];
	static float many[3 * DISTINCT * IN], many_full[3 * DISTINCT * IN];
	struct vq_rng rng = vq_rng_new(8, "weights");
	struct vq_codes a, b, plain;
	double loss[3];
	size_t n = 0, i, j;

	(void)state;
	for (i = 0; i < OUT * IN; i++)
		w[i] = (float)vq_rng_normal(rng, i);
	for (i = 0; i < DISTINCT * IN; i++) {
		x[i] = (float)(vq_rng_normal(rng, 10000 + i) * (i / IN % 5 ? 1 : 3));
		full[i] = x[i] + .2f * (float)vq_rng_normal(rng, 100000 + i);
	}
	for (i = 0; i < DISTINCT; i++)
		for (j = 0; j < 1 + i % 3; j++, n++) {
			memcpy(many + n * IN, x + i * IN, IN * sizeof(float));
			memcpy(many_full + n * IN, full + i * IN, IN * sizeof(float));
		}
	for (i = 0; i < DISTINCT; i++)
		r[i] = (float)(1 + i % 3) * DISTINCT / (float)n;
	/* Fewer than 8 rows an input would be damped more: both sides are. */
	assert_true(n < 8 * IN);
	a = gptq_codes(w, x, full, r, DISTINCT, &loss[0]);
	b = gptq_codes(w, many, many_full, NULL, n, &loss[1]);
	plain = gptq_codes(w, x, full, NULL, DISTINCT, &loss[2]);
	assert_memory_equal(a.codes, b.codes, OUT * IN);
	assert_float_equal(loss[0] / loss[1], 1, 1e-5);
	assert_true(memcmp(a.codes, plain.codes, OUT * IN) != 0);
	/* Errors: the same rule. */
	assert_float_equal(vq_sum_weighted2(x, full, r, DISTINCT, IN) * (double)n / DISTINCT /
				   vq_sum_error2(many, many_full, n, IN),
			   1, 1e-6);
	vq_codes_free(&a);
	vq_codes_free(&b);
	vq_codes_free(&plain);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(rows_of_pictures_weigh_lambda_times_those_of_text),
		cmocka_unit_test(equal_weights_are_one_to_the_bit),
		cmocka_unit_test(measured_weights_are_those_of_the_unit),
		cmocka_unit_test(
			attention_weights_span_a_hundredth_to_one_in_the_order_of_attention),
		cmocka_unit_test(without_weights_and_before_the_decoder_there_are_none),
		cmocka_unit_test(whole_weights_are_what_repeated_rows_give),
	};

	return cmocka_run_group_tests_name("search tokens", tests, set_up, NULL);
}
