/* model/names: the list, the spellings, the refusals, NaN and infinity. */
#include "folder.h"

#include "base/mem.h"
#include "base/num.h"
#include "format/safetensors.h"
#include "model/names.h"

static const char mini[] = "pipelines/demo/mini-llava";

/* The demo model's shape, by hand: the tests need no other part. */
static void mini_config(struct vq_config *c)
{
	memset(c, 0, sizeof(*c));
	c->has_vision = 1;
	c->vision.layer = (struct vq_layer_config){.hidden = 128,
						   .inter = 512,
						   .n_heads = 2,
						   .n_kv_heads = 2,
						   .head_dim = 64,
						   .norm = VQ_NORM_LAYER,
						   .qkv_bias = 1,
						   .o_bias = 1,
						   .mlp_bias = 1};
	c->vision.n_layers = 4;
	c->vision.image_size = 56;
	c->vision.patch_size = 8;
	c->vision.has_class = c->vision.pre_norm = 1;
	c->projector =
		(struct vq_projector_config){.n_linears = 2, .in = 128, .out = 256, .bias = 1};
	c->decoder.layer = (struct vq_layer_config){.hidden = 256,
						    .inter = 640,
						    .n_heads = 4,
						    .n_kv_heads = 2,
						    .head_dim = 64,
						    .norm = VQ_NORM_RMS,
						    .gated = 1};
	c->decoder.n_layers = 5;
	c->decoder.vocab = 1024;
}

static const struct vq_name *by_name(const struct vq_name *list, size_t n, const char *name)
{
	size_t i;

	for (i = 0; i < n; i++)
		if (strcmp(list[i].name, name) == 0)
			return &list[i];
	return NULL;
}

static void the_list_covers_the_demo_model_but_for_what_does_not_run(void **state)
{
	struct vq_err err = {0};
	struct vq_config c;
	struct vq_ckpt *k;
	struct vq_name *list;
	size_t n, i, unused = 0;

	(void)state;
	mini_config(&c);
	assert_int_equal(vq_ckpt_open(&k, mini, &err), VQ_OK);
	assert_int_equal(vq_names_list(&c, &list, &n, &err), VQ_OK);
	for (i = 0; i < n; i++) {
		struct vq_tensor t;

		assert_int_equal(vq_names_find(&c, k, &list[i], &t, &err), VQ_OK);
		assert_int_equal(vq_names_check_finite(&t, list[i].name, mini, &err), VQ_OK);
	}
	for (i = 0; i < vq_ckpt_count(k); i++)
		unused += strstr(vq_ckpt_name(k, i), "vision_model.encoder.layers.4.") != NULL ||
			  strstr(vq_ckpt_name(k, i), "post_layernorm") != NULL;
	assert_int_equal(n + unused, vq_ckpt_count(k));
	vq_free(list);
	vq_ckpt_close(k);
}

static void the_order_is_that_of_execution(void **state)
{
	struct vq_err err = {0};
	struct vq_config c;
	struct vq_name *list;
	size_t n, i;

	(void)state;
	mini_config(&c);
	assert_int_equal(vq_config_projector_unit(&c), 4);
	assert_int_equal(vq_config_decoder_unit(&c), 5);
	assert_int_equal(vq_config_n_units(&c), 10);
	assert_int_equal(vq_names_list(&c, &list, &n, &err), VQ_OK);
	for (i = 1; i < n; i++)
		assert_true(list[i].unit >= list[i - 1].unit);
	assert_string_equal(list[0].name, "vision.class_embed");
	assert_int_equal(list[0].unit, 0);
	assert_int_equal(by_name(list, n, "projector.1.bias")->unit, 4);
	assert_int_equal(by_name(list, n, "decoder.embed.weight")->unit, 5);
	assert_int_equal(by_name(list, n, "decoder.layers.4.down_proj.weight")->unit, 9);
	assert_string_equal(list[n - 1].name, "decoder.head.weight");
	assert_int_equal(list[n - 1].unit, 9);
	assert_int_equal(by_name(list, n, "decoder.layers.0.k_proj.weight")->linear, 1);
	assert_int_equal(by_name(list, n, "decoder.layers.0.k_proj.weight")->dims[0], 128);
	assert_int_equal(by_name(list, n, "vision.patch_embed.weight")->linear, 0);
	assert_int_equal(by_name(list, n, "decoder.head.weight")->linear, 0);
	assert_null(by_name(list, n, "decoder.layers.0.q_proj.bias"));
	vq_free(list);
}

static void a_model_without_vision_begins_with_its_decoder(void **state)
{
	struct vq_err err = {0};
	struct vq_config c;
	struct vq_name *list;
	size_t n, i;

	(void)state;
	mini_config(&c);
	c.has_vision = 0;
	c.decoder.layer.qkv_bias = c.decoder.layer.o_bias = c.decoder.layer.mlp_bias = 1;
	assert_int_equal(vq_config_n_units(&c), 5);
	assert_int_equal(vq_names_list(&c, &list, &n, &err), VQ_OK);
	assert_string_equal(list[0].name, "decoder.embed.weight");
	assert_int_equal(list[0].unit, 0);
	assert_non_null(by_name(list, n, "decoder.layers.0.gate_proj.bias"));
	for (i = 0; i < n; i++)
		assert_true(strncmp(list[i].name, "decoder.", 8) == 0);
	vq_free(list);
}

/* Writes the demo model's tensors into the folder under another spelling, less one of them. */
static void respell(unsigned spelling, const char *less)
{
	struct vq_err err = {0};
	struct vq_config c;
	struct vq_ckpt *k;
	struct vq_name *list;
	struct vq_st_entry *e;
	char(*names)[128];
	size_t n, m = 0, i;

	mini_config(&c);
	assert_int_equal(vq_ckpt_open(&k, mini, &err), VQ_OK);
	assert_int_equal(vq_names_list(&c, &list, &n, &err), VQ_OK);
	e = calloc(n, sizeof(*e));
	names = calloc(n, sizeof(*names));
	for (i = 0; i < n; i++) {
		if (strcmp(list[i].name, less) == 0)
			continue;
		if (!vq_names_spell(list[i].name, spelling, names[m], sizeof(names[m])))
			assert_true(vq_names_spell(list[i].name, 1, names[m], sizeof(names[m])));
		assert_int_equal(vq_names_find(&c, k, &list[i], &e[m].t, &err), VQ_OK);
		e[m].name = names[m];
		m++;
	}
	assert_int_equal(vq_st_write(in_folder("model.safetensors"), e, m, NULL, &err), VQ_OK);
	put_text("config.json", "{}");
	free(names);
	free(e);
	vq_free(list);
	vq_ckpt_close(k);
}

static void every_spelling_finds_the_same_weights(void **state)
{
	static const char *const first[] = {
		"language_model.model.layers.3.mlp.gate_proj.weight",
		"model.language_model.layers.3.mlp.gate_proj.weight",
		"model.layers.3.mlp.gate_proj.weight",
	};
	unsigned s;

	(void)state;
	for (s = 0; s < 3; s++) {
		struct vq_err err = {0};
		struct vq_config c;
		struct vq_ckpt *k, *old;
		struct vq_name *list;
		size_t n, i;

		respell(s, "");
		mini_config(&c);
		assert_int_equal(vq_ckpt_open(&old, mini, &err), VQ_OK);
		assert_int_equal(vq_ckpt_open(&k, folder, &err), VQ_OK);
		assert_non_null(vq_ckpt_find(k, first[s], NULL));
		assert_int_equal(vq_names_list(&c, &list, &n, &err), VQ_OK);
		for (i = 0; i < n; i++) {
			struct vq_tensor a, b;
			size_t count;

			assert_int_equal(vq_names_find(&c, k, &list[i], &a, &err), VQ_OK);
			assert_int_equal(vq_names_find(&c, old, &list[i], &b, &err), VQ_OK);
			assert_int_equal(vq_tensor_count(&a, &count), VQ_OK);
			assert_memory_equal(a.data, b.data, 2 * count);
		}
		vq_free(list);
		vq_ckpt_close(k);
		vq_ckpt_close(old);
	}
}

static void a_missing_tensor_is_named_with_all_its_spellings(void **state)
{
	struct vq_err err = {0};
	struct vq_config c;
	struct vq_ckpt *k;
	struct vq_name *list;
	struct vq_tensor t;
	size_t n;

	(void)state;
	mini_config(&c);
	respell(0, "decoder.layers.3.q_proj.weight");
	assert_int_equal(vq_ckpt_open(&k, folder, &err), VQ_OK);
	assert_int_equal(vq_names_list(&c, &list, &n, &err), VQ_OK);
	assert_int_equal(
		vq_names_find(&c, k, by_name(list, n, "decoder.layers.3.q_proj.weight"), &t, &err),
		VQ_E_DATA);
	assert_says(&err, SAYS(folder, "decoder.layers.3.q_proj.weight", "missing",
			       "language_model.model.layers.3.self_attn.q_proj.weight",
			       "model.language_model.layers.3.self_attn.q_proj.weight"));
	vq_free(list);
	vq_ckpt_close(k);
}

static void a_tied_head_is_the_embedding(void **state)
{
	struct vq_err err = {0};
	struct vq_config c;
	struct vq_ckpt *k;
	struct vq_name *list, head;
	struct vq_tensor a, b;
	size_t n;

	(void)state;
	mini_config(&c);
	assert_int_equal(vq_names_list(&c, &list, &n, &err), VQ_OK);
	head = *by_name(list, n, "decoder.head.weight");
	vq_free(list);
	respell(0, "decoder.head.weight");
	assert_int_equal(vq_ckpt_open(&k, folder, &err), VQ_OK);
	assert_false(vq_names_has(k, "decoder.head.weight"));
	assert_true(vq_names_has(k, "decoder.embed.weight"));
	c.decoder.tied = 1;
	assert_int_equal(vq_names_list(&c, &list, &n, &err), VQ_OK);
	assert_null(by_name(list, n, "decoder.head.weight"));
	assert_int_equal(vq_names_find(&c, k, &head, &a, &err), VQ_OK);
	assert_int_equal(vq_names_find(&c, k, by_name(list, n, "decoder.embed.weight"), &b, &err),
			 VQ_OK);
	assert_ptr_equal(a.data, b.data);
	c.decoder.tied = 0;
	assert_int_equal(vq_names_find(&c, k, &head, &a, &err), VQ_E_DATA);
	assert_says(&err, SAYS("lm_head.weight", "missing"));
	vq_free(list);
	vq_ckpt_close(k);
}

static void another_shape_or_type_is_refused_with_both(void **state)
{
	struct vq_name want = {.name = "decoder.norm.weight", .n_dims = 1, .dims = {2}};
	struct vq_err err = {0};
	struct vq_config c;
	struct vq_ckpt *k;
	struct vq_tensor t;

	(void)state;
	mini_config(&c);
	put_text("config.json", "{}");
	put_safetensors("model.safetensors",
			"{\"model.norm.weight\":{\"dtype\":\"I16\",\"shape\":[2],\"data_offsets\":["
			"0,4]}}",
			4);
	assert_int_equal(vq_ckpt_open(&k, folder, &err), VQ_OK);
	assert_int_equal(vq_names_find(&c, k, &want, &t, &err), VQ_E_DATA);
	assert_says(&err, SAYS("model.safetensors", "'model.norm.weight'", "f16", "got i16"));
	err.code = VQ_OK;
	want.dims[0] = 3;
	assert_int_equal(vq_names_find(&c, k, &want, &t, &err), VQ_E_DATA);
	assert_says(&err, SAYS("'model.norm.weight'", "want shape [3]", "got [2]"));
	err.code = VQ_OK;
	want.n_dims = 2;
	assert_int_equal(vq_names_find(&c, k, &want, &t, &err), VQ_E_DATA);
	assert_says(&err, SAYS("want shape [3, 0]", "got [2]"));
	vq_ckpt_close(k);
}

static void names_that_are_none_have_no_spelling(void **state)
{
	static const char *const odd[] = {
		"",
		"decoder",
		"decoder.",
		"decoder.layers.",
		"decoder.layers.x.q_proj.weight",
		"decoder.layers.3",
		"decoder.layers.3.",
		"decoder.layers.3.q_proj",
		"decoder.layers.3.z_proj.weight",
		"vision.layers.3.gate_proj.weight",
		"projector.layers.0.q_proj.weight",
		"projector.2.weight",
		"lm_head.weight",
	};
	char buf[128];
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(odd) / sizeof(odd[0]); i++)
		assert_int_equal(vq_names_spell(odd[i], 0, buf, sizeof(buf)), 0);
	assert_int_equal(vq_names_spell("vision.layers.12.up_proj.bias", 0, buf, sizeof(buf)), 1);
	assert_string_equal(buf, "vision_tower.vision_model.encoder.layers.12.mlp.fc1.bias");
	assert_int_equal(vq_names_spell("vision.layers.12.up_proj.bias", 3, buf, sizeof(buf)), 1);
	assert_string_equal(buf, "vision_model.encoder.layers.12.mlp.fc1.bias");
	assert_int_equal(vq_names_spell("vision.layers.12.up_proj.bias", 4, buf, sizeof(buf)), 1);
	assert_string_equal(
		buf, "model.image_tower.image_tower.vision_model.encoder.layers.12.mlp.fc1.bias");
	assert_int_equal(vq_names_spell("vision.layers.12.up_proj.bias", 6, buf, sizeof(buf)), 1);
	assert_string_equal(buf, "model.vision_model.encoder.layers.12.mlp.fc1.bias");
	assert_int_equal(vq_names_spell("vision.layers.12.up_proj.bias", 7, buf, sizeof(buf)), 0);
	assert_int_equal(vq_names_spell("projector.1.weight", 2, buf, sizeof(buf)), 1);
	assert_string_equal(buf, "model.mm_projector.2.weight");
	assert_int_equal(vq_names_spell("projector.1.weight", 3, buf, sizeof(buf)), 1);
	assert_string_equal(buf, "model.mm_projector.image_spatial_proj.2.weight");
	assert_int_equal(vq_names_spell("projector.1.weight", 5, buf, sizeof(buf)), 0);
	assert_int_equal(vq_names_spell("projector.0.weight", 3, buf, sizeof(buf)), 1);
	assert_string_equal(buf, "model.mm_projector.weight");
	assert_int_equal(vq_names_spell("projector.0.weight", 8, buf, sizeof(buf)), 1);
	assert_string_equal(buf, "model.connector.modality_projection.proj.weight");
	assert_int_equal(vq_names_spell("vision.post_norm.bias", 6, buf, sizeof(buf)), 1);
	assert_string_equal(buf, "model.vision_model.post_layernorm.bias");
}

/* Puts each bad value at several places of an otherwise ordinary tensor, aligned and not. */
static void finite_check(enum vq_dtype type, const uint32_t *good, const uint32_t *bad,
			 size_t n_bad)
{
	enum { N = 9001 };
	const size_t size = vq_dtype_size(type), places[] = {0, 1, 4095, 4096, 4500, N - 1};
	uint8_t *buf = calloc(N + 1, size);
	size_t shift, i, k;

	for (shift = 0; shift < 2; shift++) {
		struct vq_tensor t = {type, 2, {1, N}, buf + shift};

		for (i = 0; i < N; i++)
			memcpy(buf + shift + i * size, &good[i % 4], size);
		assert_int_equal(vq_names_check_finite(&t, "x", "f", NULL), VQ_OK);
		for (k = 0; k < n_bad; k++)
			for (i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
				uint8_t *at = buf + shift + places[i] * size;
				struct vq_err err = {0};
				char index[32];

				memcpy(at, &bad[k], size);
				assert_int_equal(vq_names_check_finite(&t, "x", "f", &err),
						 VQ_E_DATA);
				snprintf(index, sizeof(index), "[0, %zu]", places[i]);
				assert_says(&err, SAYS("f", "'x'", "NaN or infinity", index));
				memcpy(at, &good[places[i] % 4], size);
			}
	}
	free(buf);
}

static void nan_and_infinity_are_found_wherever_they_are(void **state)
{
	const uint32_t f32[] = {0x00000000, 0x7f7fffff, 0xff7fffff, 0x80000001};
	const uint32_t f32_bad[] = {0x7f800000, 0xff800000, 0x7fc00000, 0xff800001};
	const uint32_t f16[] = {0x0000, 0x7bff, 0xfbff, 0x8001};
	const uint32_t f16_bad[] = {0x7c00, 0xfc00, 0x7e00, 0xfc01};
	const uint32_t bf16[] = {0x0000, 0x7f7f, 0xff7f, 0x8001};
	const uint32_t bf16_bad[] = {0x7f80, 0xff80, 0x7fc0, 0xff81};

	(void)state;
	finite_check(VQ_F32, f32, f32_bad, 4);
	finite_check(VQ_F16, f16, f16_bad, 4);
	finite_check(VQ_BF16, bf16, bf16_bad, 4);
}

#define WITH_FOLDER(f) cmocka_unit_test_setup_teardown(f, folder_setup, folder_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_list_covers_the_demo_model_but_for_what_does_not_run),
		cmocka_unit_test(the_order_is_that_of_execution),
		cmocka_unit_test(a_model_without_vision_begins_with_its_decoder),
		WITH_FOLDER(every_spelling_finds_the_same_weights),
		WITH_FOLDER(a_missing_tensor_is_named_with_all_its_spellings),
		WITH_FOLDER(a_tied_head_is_the_embedding),
		WITH_FOLDER(another_shape_or_type_is_refused_with_both),
		cmocka_unit_test(names_that_are_none_have_no_spelling),
		cmocka_unit_test(nan_and_infinity_are_found_wherever_they_are),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
