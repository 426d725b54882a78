/* The whole model against golden vectors of an independent float32 implementation
 * (pipelines/demo/README.md says how they were made), and what binding refuses. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "format/safetensors.h"
#include "model/model.h"
#include "model/names.h"
#include "emulated.h"

#define DEMO "pipelines/demo/"

static struct vq_ckpt *ckpt;
static struct vq_config cfg;
static struct vq_model model;

static void open_model(const char *name)
{
	struct vq_err err = {0};

	if (vq_ckpt_open(&ckpt, name, &err) < 0 ||
	    vq_config_from_ckpt(&cfg, ckpt, NULL, &err) < 0 ||
	    vq_model_from_ckpt(&model, &cfg, ckpt, &err) < 0)
		fail_msg("%s", err.text);
}

static void close_model(void)
{
	vq_model_free(&model);
	vq_ckpt_close(ckpt);
}

static const struct vq_tensor *golden(const struct vq_st *st, const char *id, const char *what)
{
	char name[64];

	snprintf(name, sizeof(name), "%s.%s", id, what);
	return vq_st_find(st, name);
}

static double difference(const float *got, const struct vq_tensor *want)
{
	size_t n, i;
	double worst = 0;

	assert_int_equal(vq_tensor_count(want, &n), VQ_OK);
	for (i = 0; i < n; i++)
		worst = fmax(worst, fabs((double)got[i] - ((const float *)want->data)[i]));
	return worst;
}

static uint32_t argmax(const float *x, uint32_t n)
{
	uint32_t best = 0, i;

	for (i = 1; i < n; i++)
		if (x[i] > x[best])
			best = i;
	return best;
}

struct worst {
	double features, projected, logits;
	int n, pictures;
};

/* Pixels to decoder rows, looking at both ends. */
static float *encode(const struct vq_st *st, const char *id, struct worst *w)
{
	const struct vq_tensor *pixels = golden(st, id, "pixel_values");
	uint32_t n_pos = vq_vision_positions(&cfg), start[] = {0, n_pos}, i;
	struct vq_batch b = {1, start};
	struct vq_err err = {0};
	float *h, *f, *out;

	if (!pixels)
		return NULL;
	h = vq_alloc_f32((size_t)n_pos * cfg.vision.layer.hidden, NULL);
	f = vq_alloc_f32((size_t)n_pos * cfg.vision.layer.hidden, NULL);
	out = vq_alloc_f32((size_t)cfg.n_image_tokens * cfg.projector.out, NULL);
	assert_int_equal(vq_vision_embed(&model, pixels->data, 1, h, &err), VQ_OK);
	for (i = 0; i < cfg.vision.n_layers; i++)
		assert_int_equal(vq_layer_forward(&model.vision.layers[i], h, &b, NULL, &err),
				 VQ_OK);
	vq_vision_features(&model, h, 1, f);
	w->features = fmax(w->features, difference(f, golden(st, id, "vision_features")));
	assert_int_equal(vq_vision_encode(&model, pixels->data, 1, out, &err), VQ_OK);
	w->projected = fmax(w->projected, difference(out, golden(st, id, "projector_output")));
	w->pictures++;
	vq_free(h);
	vq_free(f);
	return out;
}

static void question(const struct vq_st *st, const char *id, struct worst *w)
{
	const struct vq_tensor *ids = golden(st, id, "input_ids");
	const struct vq_tensor *top1 = golden(st, id, "top1");
	uint32_t n = (uint32_t)ids->dims[0], start[] = {0, n}, last[] = {n - 1};
	float *image = encode(st, id, w),
	      *h = vq_alloc_f32((size_t)n * cfg.decoder.layer.hidden, NULL);
	float *logits = vq_alloc_f32(cfg.decoder.vocab, NULL);
	struct vq_err err = {0};

	assert_int_equal(vq_decoder_embed(&model, ids->data, n, image,
					  image ? cfg.n_image_tokens : 0, h, &err),
			 VQ_OK);
	assert_int_equal(vq_decoder_layers(&model, h, &(struct vq_batch){1, start}, NULL, &err),
			 VQ_OK);
	assert_int_equal(vq_decoder_logits(&model, h, last, 1, logits, &err), VQ_OK);
	w->logits = fmax(w->logits, difference(logits, golden(st, id, "logits")));
	assert_int_equal(argmax(logits, cfg.decoder.vocab), *(const int32_t *)top1->data);
	w->n++;
	vq_free(image);
	vq_free(h);
	vq_free(logits);
}

static void run_golden(const char *variant, const char *vectors)
{
	struct worst w = {0};
	struct vq_err err = {0};
	struct vq_st st;
	size_t i;

	open_model(variant);
	assert_int_equal(vq_st_open(&st, vectors, VQ_E_SYS, &err), VQ_OK);
	for (i = 0; i < st.n; i++) {
		char *dot = strchr(st.entries[i].name, '.');

		if (dot && strcmp(dot, ".input_ids") == 0) {
			char id[32];

			snprintf(id, sizeof(id), "%.*s", (int)(dot - st.entries[i].name),
				 st.entries[i].name);
			question(&st, id, &w);
		}
	}
	print_message(
		"# figure: %s: %d questions, same top token in all; largest difference: vision "
		"%.1e, projector %.1e, logits %.1e\n",
		variant + strlen(DEMO), w.n, w.features, w.projected, w.logits);
	assert_int_equal(w.n, 8);
	assert_int_equal(w.pictures, 5);
	assert_true(w.features <= 1e-3 && w.projected <= 1e-3 && w.logits <= 1e-3);
	vq_st_close(&st);
	close_model();
}

static void mini_llava_gives_the_golden_numbers(void **state)
{
	(void)state;
	run_golden(DEMO "mini-llava", DEMO "golden/golden.safetensors");
}

static void mini_llava_outlier_gives_the_golden_numbers(void **state)
{
	(void)state;
	run_golden(DEMO "mini-llava-outlier", DEMO "golden/golden-outlier.safetensors");
}

static void pictures_together_give_what_each_gives_alone(void **state)
{
	size_t pixels, rows, i;
	float *in, *all, *one;
	struct vq_err err = {0};
	double worst = 0;
	uint32_t p, n = 43; /* more than one round of the tower */

	(void)state;
	open_model(DEMO "mini-llava");
	pixels = (size_t)3 * cfg.vision.image_size * cfg.vision.image_size;
	rows = (size_t)cfg.n_image_tokens * cfg.projector.out;
	in = vq_alloc_f32(n * pixels, NULL);
	all = vq_alloc_f32(n * rows, NULL);
	one = vq_alloc_f32(rows, NULL);
	for (i = 0; i < n * pixels; i++)
		in[i] = sinf((float)i * 0.37f) + (float)(i / pixels) / (float)n;
	assert_int_equal(vq_vision_encode(&model, in, n, all, &err), VQ_OK);
	for (p = 0; p < n; p += 6) {
		assert_int_equal(vq_vision_encode(&model, in + p * pixels, 1, one, &err), VQ_OK);
		for (i = 0; i < rows; i++)
			worst = fmax(worst, fabs((double)one[i] - all[p * rows + i]));
	}
	assert_true(worst < 1e-4);
	vq_free(in);
	vq_free(all);
	vq_free(one);
	close_model();
}

static void new_cache(struct vq_kv *kv, uint32_t n_layers, uint32_t n_seqs, uint32_t room)
{
	assert_int_equal(vq_kv_new(kv, n_layers, n_seqs, room, cfg.decoder.layer.n_kv_heads,
				   cfg.decoder.layer.head_dim, VQ_KV_F32, NULL),
			 VQ_OK);
}

static void prefill_and_decoding_agree(void **state)
{
	static const int32_t tokens[] = {1, 300, 17, 401, 33, 90, 512, 7};
	enum { N = 8 };
	uint32_t d, whole[] = {0, N}, first[] = {0, 5}, one[] = {0, 1}, rows[] = {N - 1},
		    zero[] = {0}, i;
	float *h, *a, *b;
	struct vq_err err = {0};
	struct vq_kv kv;

	(void)state;
	open_model(DEMO "mini-llava");
	d = cfg.decoder.layer.hidden;
	h = vq_alloc_f32(N * d, NULL);
	a = vq_alloc_f32(cfg.decoder.vocab, NULL);
	b = vq_alloc_f32(cfg.decoder.vocab, NULL);
	assert_int_equal(vq_decoder_embed(&model, tokens, N, NULL, 0, h, &err), VQ_OK);
	assert_int_equal(vq_decoder_layers(&model, h, &(struct vq_batch){1, whole}, NULL, &err),
			 VQ_OK);
	assert_int_equal(vq_decoder_logits(&model, h, rows, 1, a, &err), VQ_OK);
	new_cache(&kv, cfg.decoder.n_layers, 1, N);
	assert_int_equal(vq_decoder_embed(&model, tokens, 5, NULL, 0, h, &err), VQ_OK);
	assert_int_equal(vq_decoder_layers(&model, h, &(struct vq_batch){1, first}, &kv, &err),
			 VQ_OK);
	for (i = 5; i < N; i++) {
		assert_int_equal(kv.n[0], i);
		assert_int_equal(vq_decoder_embed(&model, tokens + i, 1, NULL, 0, h, &err), VQ_OK);
		assert_int_equal(
			vq_decoder_layers(&model, h, &(struct vq_batch){1, one}, &kv, &err), VQ_OK);
	}
	assert_int_equal(vq_decoder_logits(&model, h, zero, 1, b, &err), VQ_OK);
	for (i = 0; i < cfg.decoder.vocab; i++)
		assert_true(fabs((double)a[i] - b[i]) < 1e-3);
	vq_kv_free(&kv);
	vq_free(h);
	vq_free(a);
	vq_free(b);
	close_model();
}

/* Three prompts; the second begins with 12 tokens of the first, the third with 15 of the second. */
enum { ALL = 20 + 19 + 21, OWN = 20 + 7 + 6 };
static const uint32_t whole[] = {0, 20, 39, ALL}, own[] = {0, 20, 27, OWN}, shared[] = {0, 12, 15};

static void make_prompts(int32_t *all, int32_t *rest)
{
	uint32_t s, i;

	for (s = 0; s < 3; s++)
		for (i = 0; i < whole[s + 1] - whole[s]; i++) {
			int32_t token = (int32_t)(7 + 31 * i + 100 * s) % 1000;

			if (i < shared[s])
				token = all[whole[s - 1] + i];
			else
				rest[own[s] + i - shared[s]] = token;
			all[whole[s] + i] = token;
		}
}

static void share(struct vq_kv *kv)
{
	vq_kv_reset(kv);
	vq_kv_share(kv, 1, shared[1]);
	vq_kv_share(kv, 2, shared[2]);
}

/* The prompts one after the other: each finds what it shares in the cache. */
static void last_rows_one_by_one(struct vq_kv *kv, float *h, float *last)
{
	uint32_t d = cfg.decoder.layer.hidden, s, start[2] = {0, 0};
	struct vq_err err = {0};

	for (s = 0; s < 3; s++) {
		start[1] = own[s + 1] - own[s];
		vq_kv_begin_at(kv, s);
		assert_int_equal(vq_decoder_last(&model, h + own[s] * d,
						 &(struct vq_batch){1, start}, kv, last + s * d,
						 &err),
				 VQ_OK);
	}
	vq_kv_begin_at(kv, 0);
}

static void expect_close(const float *a, const float *b, size_t n)
{
	size_t i;

	for (i = 0; i < n; i++)
		assert_true(fabs((double)a[i] - b[i]) < 1e-4 * (1 + fabs((double)b[i])));
}

static void prompts_that_share_tokens_give_what_each_gives(void **state)
{
	static const int32_t next[] = {5, 6, 7};
	static const uint32_t one_each[] = {0, 1, 2, 3};
	int32_t all[ALL], rest[OWN];
	struct vq_err err = {0};
	struct vq_kv plain, kv, single;
	uint32_t d, s, pass;
	float *a, *b, *last;

	(void)state;
	open_model(DEMO "mini-llava");
	d = cfg.decoder.layer.hidden;
	a = vq_alloc_f32(ALL * d, NULL);
	b = vq_alloc_f32(ALL * d, NULL);
	last = vq_alloc_f32(3 * d, NULL);
	make_prompts(all, rest);
	new_cache(&plain, cfg.decoder.n_layers, 3, 22);
	new_cache(&kv, cfg.decoder.n_layers, 3, 22);
	new_cache(&single, 1, 3, 22);
	assert_int_equal(vq_decoder_embed(&model, all, ALL, NULL, 0, a, &err), VQ_OK);
	assert_int_equal(vq_decoder_layers(&model, a, &(struct vq_batch){3, whole}, &plain, &err),
			 VQ_OK);
	for (pass = 0; pass < 3; pass++) {
		struct vq_kv *c = pass == 0 ? &single : &kv;

		share(c);
		assert_int_equal(vq_decoder_embed(&model, rest, OWN, NULL, 0, b, &err), VQ_OK);
		if (pass == 2)
			last_rows_one_by_one(c, b, last);
		else
			assert_int_equal(vq_decoder_last(&model, b, &(struct vq_batch){3, own}, c,
							 last, &err),
					 VQ_OK);
		for (s = 0; s < 3; s++) {
			expect_close(last + s * d, a + (whole[s + 1] - 1) * d, d);
			assert_int_equal(c->n[s], pass ? whole[s + 1] - whole[s] : 0);
			assert_int_equal(c->shared[s], 0);
		}
	}
	/* What they left in the cache is read by the next token. */
	assert_int_equal(vq_decoder_embed(&model, next, 3, NULL, 0, a, &err), VQ_OK);
	memcpy(b, a, 3 * d * sizeof(float));
	assert_int_equal(
		vq_decoder_layers(&model, a, &(struct vq_batch){3, one_each}, &plain, &err), VQ_OK);
	assert_int_equal(vq_decoder_layers(&model, b, &(struct vq_batch){3, one_each}, &kv, &err),
			 VQ_OK);
	expect_close(b, a, 3 * d);
	vq_kv_free(&plain);
	vq_kv_free(&kv);
	vq_kv_free(&single);
	vq_free(a);
	vq_free(b);
	vq_free(last);
	close_model();
}

static void what_cannot_be_shared_is_refused(void **state)
{
	static const uint32_t empty[] = {0, 3, 3}, fine[] = {0, 3, 5};
	struct vq_err err = {0}, err2 = {0}, err3 = {0}, err4 = {0};
	float *h, *last;
	struct vq_kv kv;

	(void)state;
	open_model(DEMO "mini-llava");
	h = vq_calloc(5 * cfg.decoder.layer.hidden, sizeof(float), NULL);
	last = vq_alloc_f32(2 * cfg.decoder.layer.hidden, NULL);
	new_cache(&kv, 1, 2, 5);
	vq_kv_share(&kv, 1, 4); /* of three */
	assert_int_equal(vq_decoder_last(&model, h, &(struct vq_batch){2, fine}, &kv, last, &err),
			 VQ_E_DATA);
	assert_non_null(strstr(err.text, "cannot begin with 4 tokens"));
	vq_kv_reset(&kv);
	vq_kv_share(&kv, 0, 1);
	assert_int_equal(vq_decoder_last(&model, h, &(struct vq_batch){2, fine}, &kv, last, &err2),
			 VQ_E_DATA);
	vq_kv_reset(&kv);
	vq_kv_begin_at(&kv, 1);
	assert_int_equal(vq_decoder_last(&model, h, &(struct vq_batch){2, fine}, &kv, last, &err4),
			 VQ_E_DATA);
	assert_non_null(strstr(err4.text, "want room for 2 sequences, have 1"));
	vq_kv_reset(&kv);
	assert_int_equal(vq_decoder_last(&model, h, &(struct vq_batch){2, empty}, &kv, last, &err3),
			 VQ_E_DATA);
	assert_non_null(strstr(err3.text, "no last row"));
	vq_kv_free(&kv);
	vq_free(h);
	vq_free(last);
	close_model();
}

static void tokens_and_pictures_must_match(void **state)
{
	int32_t tokens[3] = {1, 2, 3};
	struct vq_err err = {0}, err2 = {0};
	float *h;

	(void)state;
	open_model(DEMO "mini-llava");
	h = vq_alloc_f32(3 * cfg.decoder.layer.hidden, NULL);
	tokens[1] = cfg.image_token;
	assert_int_equal(vq_decoder_embed(&model, tokens, 3, NULL, 0, h, &err), VQ_E_DATA);
	assert_non_null(strstr(err.text, "1 image tokens"));
	tokens[1] = (int32_t)cfg.decoder.vocab;
	assert_int_equal(vq_decoder_embed(&model, tokens, 3, NULL, 0, h, &err2), VQ_E_DATA);
	assert_non_null(strstr(err2.text, "want 0..1023"));
	vq_free(h);
	close_model();
}

static void a_unit_binds_and_unbinds(void **state)
{
	struct vq_err err = {0}, err2 = {0}, err3 = {0};
	struct vq_name *names;
	struct vq_model m;
	struct vq_tensor t;
	size_t n, i, unit = 1;

	(void)state;
	open_model(DEMO "mini-llava");
	assert_int_equal(vq_model_new(&m, &cfg, &err), VQ_OK);
	assert_int_equal(vq_names_list(&cfg, &names, &n, &err), VQ_OK);
	assert_int_equal(vq_model_check(&m, 1, &err2), VQ_E_DATA);
	assert_non_null(strstr(err2.text, "vision.layers.1."));
	for (i = 0; i < n; i++) {
		assert_int_equal(names[i].linear && !strstr(names[i].name, "embed"),
				 names[i].linear ? vq_model_linear(&m, names[i].name) != NULL : 0);
		if (names[i].unit != unit)
			continue;
		assert_int_equal(vq_names_find(&cfg, ckpt, &names[i], &t, &err), VQ_OK);
		assert_int_equal(vq_model_bind(&m, names[i].name, &t, &err), VQ_OK);
	}
	assert_int_equal(vq_model_check(&m, 1, &err), VQ_OK);
	vq_model_unbind(&m, 1);
	assert_int_equal(vq_model_check(&m, 1, &err3), VQ_E_DATA);
	assert_ptr_equal(vq_model_layer(&m, 1), &m.vision.layers[1]);
	assert_null(vq_model_layer(&m, vq_config_projector_unit(&cfg)));
	assert_ptr_equal(vq_model_layer(&m, vq_config_decoder_unit(&cfg)), &m.decoder.layers[0]);
	vq_free(names);
	vq_model_free(&m);
	close_model();
}

static void bad_tensors_are_refused(void **state)
{
	float bad[256] = {[7] = NAN};
	const struct vq_tensor right = {VQ_F32, 1, {256}, bad}, wide = {VQ_F32, 2, {2, 128}, bad},
			       codes = {VQ_U8, 1, {256}, bad};
	const struct {
		const char *name;
		const struct vq_tensor *t;
		const char *says;
	} cases[] = {
		{"decoder.norm.weight", &right, "element 7"},
		{"decoder.norm.bias", &right, "none of that name"},
		{"decoder.layers.5.norm1.weight", &right, "none of that name"},
		{"decoder.layers.0.q_proj.weight", &wide, "want shape [256, 256], got [2, 128]"},
		{"vision.layers.0.norm1.weight", &right, "want shape [128], got [256]"},
		{"decoder.norm.weight", &codes, "want f32, f16 or bf16, got u8"},
	};
	size_t i;

	(void)state;
	open_model(DEMO "mini-llava");
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct vq_err err = {0};

		assert_int_equal(vq_model_bind(&model, cases[i].name, cases[i].t, &err), VQ_E_DATA);
		if (!strstr(err.text, cases[i].says))
			fail_msg("'%s' does not say '%s'", err.text, cases[i].says);
	}
	close_model();
}

/* 1,100 rows are three parts (in an emulator two of 530); layer by layer they are one. */
static void a_long_prompt_in_parts_is_what_it_is_in_one(void **state)
{
	const uint32_t rows = emulated() ? 530 : 1100, start[] = {0, rows};
	uint32_t d, i;
	const struct vq_batch b = {1, start};
	float *one, *parts, *last, *again;
	size_t n;
	struct vq_err err = {0};
	int32_t tokens[1100];
	struct vq_kv kv;

	(void)state;
	open_model(DEMO "mini-llava");
	d = cfg.decoder.layer.hidden;
	n = (size_t)rows * d;
	one = vq_alloc_f32(n, NULL);
	parts = vq_alloc_f32(n, NULL);
	last = vq_alloc_f32(d, NULL);
	again = vq_alloc_f32(n, NULL);
	for (i = 0; i < rows; i++)
		tokens[i] = (int32_t)(2 + i * 7919 % 997);
	assert_int_equal(vq_decoder_embed(&model, tokens, rows, NULL, 0, one, &err), VQ_OK);
	memcpy(parts, one, n * sizeof(float));
	memcpy(again, one, n * sizeof(float));
	for (i = 0; i < cfg.decoder.n_layers; i++)
		assert_int_equal(vq_layer_forward(&model.decoder.layers[i], one, &b, NULL, &err),
				 VQ_OK);
	assert_int_equal(vq_kv_new(&kv, cfg.decoder.n_layers, 1, rows, cfg.decoder.layer.n_kv_heads,
				   cfg.decoder.layer.head_dim, VQ_KV_F32, &err),
			 VQ_OK);
	assert_int_equal(vq_decoder_layers(&model, parts, &b, &kv, &err), VQ_OK);
	assert_int_equal(kv.n[0], rows);
	for (i = 0; i < n; i++)
		assert_true(fabsf(one[i] - parts[i]) <= 1e-4f * (1 + fabsf(one[i])));
	vq_kv_reset(&kv);
	assert_int_equal(vq_decoder_last(&model, again, &b, &kv, last, &err), VQ_OK);
	assert_int_equal(kv.n[0], rows);
	for (i = 0; i < d; i++)
		assert_true(fabsf(last[i] - parts[n - d + i]) <= 1e-4f * (1 + fabsf(last[i])));
	vq_kv_free(&kv);
	vq_free(one);
	vq_free(parts);
	vq_free(last);
	vq_free(again);
	close_model();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(mini_llava_gives_the_golden_numbers),
		cmocka_unit_test(mini_llava_outlier_gives_the_golden_numbers),
		cmocka_unit_test(pictures_together_give_what_each_gives_alone),
		cmocka_unit_test(prefill_and_decoding_agree),
		cmocka_unit_test(prompts_that_share_tokens_give_what_each_gives),
		cmocka_unit_test(what_cannot_be_shared_is_refused),
		cmocka_unit_test(tokens_and_pictures_must_match),
		cmocka_unit_test(a_unit_binds_and_unbinds),
		cmocka_unit_test(bad_tensors_are_refused),
		cmocka_unit_test(a_long_prompt_in_parts_is_what_it_is_in_one),
	};

	return cmocka_run_group_tests_name("model", tests, NULL, NULL);
}
