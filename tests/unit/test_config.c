/* model/config: what folders say, what they leave out, what is refused, and the canonical form. */
#include "folder.h"

#include "base/mem.h"
#include "format/checkpoint.h"
#include "model/config.h"

static const char mini[] = "pipelines/demo/mini-llava";

/* config.json of the published llava-1.5-7b-hf: most sizes are left to the defaults. */
static const char llava_15_7b[] =
	"{\"architectures\":[\"LlavaForConditionalGeneration\"],\"ignore_index\":-100,"
	"\"image_token_index\":32000,\"model_type\":\"llava\",\"pad_token_id\":32001,"
	"\"projector_hidden_act\":\"gelu\",\"text_config\":{\"_name_or_path\":\"x\","
	"\"architectures\":[\"LlamaForCausalLM\"],\"max_position_embeddings\":4096,"
	"\"model_type\":\"llama\",\"rms_norm_eps\":1e-05,\"torch_dtype\":\"float16\","
	"\"vocab_size\":32064},\"tie_word_embeddings\":false,\"torch_dtype\":\"float16\","
	"\"vision_config\":{\"hidden_size\":1024,\"image_size\":336,\"intermediate_size\":4096,"
	"\"model_type\":\"clip_vision_model\",\"num_attention_heads\":16,"
	"\"num_hidden_layers\":24,\"patch_size\":14,\"projection_dim\":768,"
	"\"vocab_size\":32000},\"vision_feature_layer\":-2,"
	"\"vision_feature_select_strategy\":\"default\",\"vocab_size\":32064}";

static int folder_with_weights(void **state)
{
	if (folder_setup(state) < 0)
		return -1;
	put_safetensors("model.safetensors",
			"{\"lm_head.weight\":{\"dtype\":\"F16\",\"shape\":[1],\"data_offsets\":[0,"
			"2]}}",
			2);
	return 0;
}

static int config_of(struct vq_config *c, const char *text, const char *template_name,
		     struct vq_err *err)
{
	struct vq_ckpt *k;
	int rc;

	memset(err, 0, sizeof(*err));
	put_text("config.json", text);
	assert_int_equal(vq_ckpt_open(&k, folder, err), VQ_OK);
	rc = vq_config_from_ckpt(c, k, template_name, err);
	vq_ckpt_close(k);
	return rc;
}

static void accepted(struct vq_config *c, const char *text)
{
	struct vq_err err;

	if (config_of(c, text, NULL, &err) < 0)
		fail_msg("%s", err.text);
}

static void refused(const char *text, const char *const *words)
{
	struct vq_config c;
	struct vq_err err;

	if (config_of(&c, text, NULL, &err) != VQ_E_DATA)
		fail_msg("accepted, or another code: %s", text);
	assert_says(&err, SAYS("config.json"));
	assert_says(&err, words);
}

static void the_demo_model_is_read(void **state)
{
	struct vq_err err = {0};
	struct vq_config c;
	struct vq_ckpt *k;

	(void)state;
	assert_int_equal(vq_ckpt_open(&k, mini, &err), VQ_OK);
	assert_int_equal(vq_config_from_ckpt(&c, k, NULL, &err), VQ_OK);
	vq_ckpt_close(k);
	assert_string_equal(c.arch, "llava");
	assert_int_equal(c.vision.n_layers,
			 4); /* five are stored, layer -2 is the fourth's output */
	assert_int_equal(c.vision.layer.head_dim, 64);
	assert_int_equal(c.vision.layer.act, VQ_ACT_QUICK_GELU);
	assert_int_equal(c.n_image_tokens, 49);
	assert_int_equal(c.decoder.layer.n_kv_heads, 2);
	assert_int_equal(c.projector.act, VQ_ACT_GELU_ERF);
	assert_int_equal(c.image_token, 1022);
	assert_int_equal(c.bos, 1);
	assert_int_equal(c.eos, 2);
	assert_int_equal(c.pad, 1023);
	assert_int_equal(c.preproc.crop, 56);
	assert_string_equal(c.chat->name, "llava-hf");
	assert_false(c.decoder.tied);
}

static void keys_that_are_absent_have_the_defaults_of_transformers(void **state)
{
	struct vq_config c;

	(void)state;
	accepted(&c, llava_15_7b);
	assert_int_equal(c.decoder.layer.hidden, 4096);
	assert_int_equal(c.decoder.layer.inter, 11008);
	assert_int_equal(c.decoder.n_layers, 32);
	assert_int_equal(c.decoder.layer.n_heads, 32);
	assert_int_equal(c.decoder.layer.n_kv_heads, 32);
	assert_int_equal(c.decoder.layer.head_dim, 128);
	assert_int_equal(c.decoder.vocab, 32064);
	assert_true(c.decoder.layer.rope_theta == 10000);
	assert_true(c.decoder.layer.eps == 1e-5f);
	assert_int_equal(c.vision.n_layers, 23);
	assert_int_equal(c.n_image_tokens, 576);
	assert_int_equal(c.preproc.crop, 336);
	assert_int_equal(c.bos, 1);
	assert_int_equal(c.eos, 2);
	assert_int_equal(c.pad, 32001);

	accepted(&c, "{\"model_type\":\"llava\"}"); /* LlavaConfig's own vision_config */
	assert_int_equal(c.vision.layer.hidden, 1024);
	assert_int_equal(c.vision.n_layers, 23);
	assert_int_equal(c.vision.image_size, 336);
	assert_int_equal(c.decoder.vocab, 32000);
	assert_int_equal(c.decoder.max_position, 2048);
	assert_true(c.decoder.layer.eps == 1e-6f);
	assert_int_equal(c.image_token, 32000);

	accepted(&c, "{\"model_type\":\"llava\",\"vision_config\":{}}"); /* CLIPVisionConfig's */
	assert_int_equal(c.vision.layer.hidden, 768);
	assert_int_equal(c.vision.n_layers, 11);
	assert_int_equal(c.vision.image_size, 224);
	assert_int_equal(c.n_image_tokens, 49);
}

static void a_plain_llama_folder_has_no_vision(void **state)
{
	struct vq_config c;

	(void)state;
	accepted(&c, "{\"model_type\":\"llama\",\"architectures\":[\"LlamaForCausalLM\"],"
		     "\"hidden_size\":64,\"num_attention_heads\":4,\"num_key_value_heads\":null,"
		     "\"attention_bias\":true,\"num_hidden_layers\":3}");
	assert_string_equal(c.arch, "llama");
	assert_false(c.has_vision);
	assert_int_equal(c.decoder.layer.n_kv_heads, 4);
	assert_int_equal(c.decoder.layer.head_dim, 16);
	assert_true(c.decoder.layer.qkv_bias && c.decoder.layer.o_bias);
	assert_int_equal(c.image_token, -1);
	assert_int_equal(vq_config_n_units(&c), 3);
	assert_string_equal(c.chat->name, "plain");
}

static void the_spellings_of_version_5_are_taken(void **state)
{
	struct vq_config c;

	(void)state;
	accepted(&c, "{\"model_type\":\"llava\",\"dtype\":\"bfloat16\",\"image_token_id\":77,"
		     "\"text_config\":{\"dtype\":\"float32\",\"rope_parameters\":"
		     "{\"rope_theta\":500000.0,\"rope_type\":\"default\"}}}");
	assert_int_equal(c.image_token, 77);
	assert_true(c.decoder.layer.rope_theta == 500000);
	accepted(&c, "{\"model_type\":\"llama\",\"rope_theta\":20000,\"rope_scaling\":"
		     "{\"type\":\"linear\",\"factor\":1.0}}");
	assert_true(c.decoder.layer.rope_theta == 20000);
}

#define LAYER(v) "{\"model_type\":\"llava\",\"vision_feature_layer\":" v "}"

static void the_feature_layer_says_how_many_layers_run(void **state)
{
	static const struct {
		const char *text;
		uint32_t n;
	} good[] = {{LAYER("-2"), 23}, {LAYER("-1"), 24}, {LAYER("24"), 24},   {LAYER("1"), 1},
		    {LAYER("-24"), 1}, {LAYER("12"), 12}, {LAYER("[-2]"), 23}, {LAYER("null"), 23}};
	struct vq_config c;
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		accepted(&c, good[i].text);
		assert_int_equal(c.vision.n_layers, good[i].n);
	}
	refused(LAYER("0"), SAYS("vision_feature_layer", "1..24", "got 0"));
	refused(LAYER("25"), SAYS("vision_feature_layer", "got 25"));
	refused(LAYER("-25"), SAYS("vision_feature_layer", "got -25"));
	refused(LAYER("-9223372036854775808"), SAYS("vision_feature_layer"));
	refused(LAYER("[]"), SAYS("vision_feature_layer", "got []"));
	refused(LAYER("[-2,-5]"), SAYS("vision_feature_layer", "got [-2,-5]"));
	refused(LAYER("\"last\""), SAYS("vision_feature_layer", "\"last\""));
}

static void the_select_strategy_keeps_or_drops_the_class_token(void **state)
{
	struct vq_config c;

	(void)state;
	accepted(&c, "{\"model_type\":\"llava\",\"vision_feature_select_strategy\":\"full\","
		     "\"image_seq_length\":577}");
	assert_true(c.vision.keep_class);
	assert_int_equal(c.n_image_tokens, 577);
	refused("{\"model_type\":\"llava\",\"image_seq_length\":577}",
		SAYS("image_seq_length", "want 576", "got 577"));
	refused("{\"model_type\":\"llava\",\"vision_feature_select_strategy\":\"some\"}",
		SAYS("vision_feature_select_strategy", "default", "full", "\"some\""));
}

static void an_unknown_architecture_is_named_with_what_is_supported(void **state)
{
	(void)state;
	refused("{}", SAYS("model_type", "llava", "llama", "nothing"));
	refused("{\"model_type\":7}", SAYS("model_type", "got 7"));
	refused("{\"model_type\":\"qwen2_vl\"}", SAYS("model_type", "llava", "qwen2_vl"));
	refused("{\"model_type\":\"llava\",\"architectures\":[\"LlavaMptForCausalLM\"]}",
		SAYS("architectures", "LlavaForConditionalGeneration", "LlavaLlamaForCausalLM",
		     "LlavaMptForCausalLM"));
	refused("{\"model_type\":\"llava\",\"architectures\":[\"LlavaLlamaForCausalLM\"]}",
		SAYS("mm_vision_tower", "--vision"));
	refused("{\"model_type\":\"llava\",\"architectures\":[]}", SAYS("architectures"));
	refused("{\"model_type\":\"llava\",\"text_config\":{\"model_type\":\"mistral\"}}",
		SAYS("text_config", "model_type", "llama", "mistral"));
	refused("{\"model_type\":\"llava\",\"vision_config\":{\"model_type\":\"siglip_vision_"
		"model\"}"
		"}",
		SAYS("vision_config", "clip_vision_model", "siglip_vision_model"));
}

static void an_unknown_type_of_numbers_is_named(void **state)
{
	(void)state;
	refused("{\"model_type\":\"llama\",\"torch_dtype\":\"float8_e4m3fn\"}",
		SAYS("torch_dtype", "float16", "float8_e4m3fn"));
	refused("{\"model_type\":\"llava\",\"text_config\":{\"dtype\":\"int8\"}}",
		SAYS("text_config", "dtype", "int8"));
	refused("{\"model_type\":\"llama\",\"quantization_config\":{\"quant_method\":\"awq\"}}",
		SAYS("quantization_config", "quantized already"));
}

#define TEXT(members)  "{\"model_type\":\"llama\"," members "}"
#define CLIP(members)  "{\"model_type\":\"llava\",\"vision_config\":{" members "}}"
#define LLAVA(members) "{\"model_type\":\"llava\"," members "}"

static void values_that_cannot_be_are_refused_with_key_and_value(void **state)
{
	(void)state;
	refused(TEXT("\"num_attention_heads\":0"), SAYS("num_attention_heads", "got 0"));
	refused(TEXT("\"num_key_value_heads\":0"), SAYS("num_key_value_heads", "got 0"));
	refused(TEXT("\"num_key_value_heads\":5"), SAYS("multiple", "32 and 5"));
	refused(TEXT("\"hidden_size\":4097"), SAYS("hidden_size", "4097", "32"));
	refused(TEXT("\"hidden_size\":-4096"), SAYS("hidden_size", "got -4096"));
	refused(TEXT("\"hidden_size\":1048608"), SAYS("hidden_size", "1048576", "1048608"));
	refused(TEXT("\"hidden_size\":\"4096\""), SAYS("hidden_size", "\"4096\""));
	refused(TEXT("\"hidden_size\":4096.5"), SAYS("hidden_size", "4096.5"));
	refused(TEXT("\"intermediate_size\":0"), SAYS("intermediate_size"));
	refused(TEXT("\"num_hidden_layers\":1000000"), SAYS("num_hidden_layers", "1000000"));
	refused(TEXT("\"num_hidden_layers\":0"), SAYS("num_hidden_layers", "got 0"));
	refused(TEXT("\"vocab_size\":0"), SAYS("vocab_size"));
	refused(TEXT("\"vocab_size\":9999999999"), SAYS("vocab_size", "9999999999"));
	refused(TEXT("\"max_position_embeddings\":0"), SAYS("max_position_embeddings"));
	refused(TEXT("\"head_dim\":0"), SAYS("head_dim", "got 0"));
	refused(TEXT("\"head_dim\":33"), SAYS("even head_dim", "33"));
	refused(TEXT("\"head_dim\":4096,\"num_attention_heads\":4096"), SAYS("4096 x 4096"));
	refused(TEXT("\"rms_norm_eps\":0"), SAYS("rms_norm_eps"));
	refused(TEXT("\"rms_norm_eps\":-1e-5"), SAYS("rms_norm_eps"));
	refused(TEXT("\"rms_norm_eps\":\"small\""), SAYS("rms_norm_eps", "\"small\""));
	refused(TEXT("\"rope_theta\":0"), SAYS("rope_theta"));
	refused(TEXT("\"rope_theta\":1e300"), SAYS("rope_theta"));
	refused(TEXT("\"rope_parameters\":{\"rope_theta\":0}"), SAYS("rope_theta"));
	refused(TEXT("\"hidden_act\":\"relu\""), SAYS("hidden_act", "silu", "relu"));
	refused(TEXT("\"attention_bias\":1"), SAYS("attention_bias", "true or false"));
	refused(TEXT("\"tie_word_embeddings\":\"no\""), SAYS("tie_word_embeddings", "\"no\""));
	refused(TEXT("\"rope_scaling\":{\"type\":\"linear\",\"factor\":2.0}"),
		SAYS("rope_scaling", "linear"));
	refused(TEXT("\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8.0}"),
		SAYS("rope_scaling", "llama3"));
	refused(TEXT("\"rope_parameters\":{\"rope_type\":\"yarn\"}"),
		SAYS("rope_parameters", "yarn"));
	refused(TEXT("\"rope_scaling\":4"), SAYS("rope_scaling", "got 4"));
	refused(TEXT("\"eos_token_id\":\"</s>\""), SAYS("eos_token_id", "</s>"));
	refused(TEXT("\"eos_token_id\":[]"), SAYS("eos_token_id"));
	refused(CLIP("\"hidden_size\":1000,\"num_attention_heads\":16"),
		SAYS("hidden_size", "1000"));
	refused(CLIP("\"patch_size\":0"), SAYS("patch_size", "got 0"));
	refused(CLIP("\"patch_size\":15"), SAYS("multiple of patch_size", "224", "15"));
	refused(CLIP("\"patch_size\":448"), SAYS("multiple of patch_size", "224", "448"));
	refused(CLIP("\"image_size\":8192,\"patch_size\":1"), SAYS("65536 patches", "8192 x 8192"));
	refused(CLIP("\"image_size\":1000000"), SAYS("image_size", "1000000"));
	refused(CLIP("\"num_channels\":4"), SAYS("num_channels", "got 4"));
	refused(CLIP("\"layer_norm_eps\":2"), SAYS("layer_norm_eps"));
	refused(CLIP("\"hidden_act\":\"tanh\""), SAYS("hidden_act", "tanh"));
	refused(LLAVA("\"text_config\":[]"), SAYS("text_config", "object"));
	refused(LLAVA("\"vision_config\":3"), SAYS("vision_config", "object"));
	refused(LLAVA("\"projector_hidden_act\":\"relu\""), SAYS("projector_hidden_act", "relu"));
	refused(LLAVA("\"multimodal_projector_bias\":0"), SAYS("multimodal_projector_bias"));
	refused(LLAVA("\"image_token_index\":-200"), SAYS("image_token_index", "-200"));
	refused(LLAVA("\"image_seq_length\":0"), SAYS("image_seq_length", "got 0"));
}

static void token_ids_come_from_the_first_place_that_has_them(void **state)
{
	struct vq_config c;

	(void)state;
	put_text("tokenizer_config.json",
		 "{\"eos_token\":{\"content\":\"<e>\"},\"bos_token\":\"<b>\","
		 "\"added_tokens_decoder\":{\"11\":{\"content\":\"<b>\"},\"12\":{\"content\":\"<e>"
		 "\"},\"x\":{\"content\":\"<b>\"}}}");
	accepted(&c, "{\"model_type\":\"llava\"}");
	assert_int_equal(c.bos, 11);
	assert_int_equal(c.eos, 12);
	assert_int_equal(c.pad, -1);
	accepted(&c, "{\"model_type\":\"llava\",\"bos_token_id\":21,\"eos_token_id\":22}");
	assert_int_equal(c.bos, 21);
	accepted(&c, "{\"model_type\":\"llava\",\"eos_token_id\":22,\"text_config\":{"
		     "\"eos_token_id\":32}}");
	assert_int_equal(c.eos, 32);
	put_text("generation_config.json", "{\"eos_token_id\":[42]}");
	accepted(&c, "{\"model_type\":\"llava\",\"eos_token_id\":22}");
	assert_int_equal(c.eos, 42);
}

static void a_head_is_tied_when_said_or_when_there_is_none(void **state)
{
	struct vq_config c;

	(void)state;
	accepted(&c, "{\"model_type\":\"llama\"}");
	assert_false(c.decoder.tied);
	accepted(&c, "{\"model_type\":\"llama\",\"tie_word_embeddings\":true}");
	assert_true(c.decoder.tied);
	accepted(&c, "{\"model_type\":\"llava\",\"tie_word_embeddings\":true,\"text_config\":{"
		     "\"tie_word_embeddings\":false}}");
	assert_false(c.decoder.tied);
	put_safetensors("model.safetensors", "{}", 0);
	accepted(&c, "{\"model_type\":\"llama\"}");
	assert_true(c.decoder.tied);
	accepted(&c, "{\"model_type\":\"llama\",\"tie_word_embeddings\":false}");
	assert_false(c.decoder.tied); /* the missing head is an error when it is looked for */
}

static void the_chat_template_is_the_checkpoints_or_the_named_one(void **state)
{
	static const char odd[] = "{\"chat_template\":\"{{ odd }}\"}";
	struct vq_config c;
	struct vq_err err;

	(void)state;
	put_text("tokenizer_config.json", odd);
	assert_int_equal(config_of(&c, llava_15_7b, NULL, &err), VQ_E_DATA);
	assert_says(&err, SAYS("tokenizer_config.json", "{{ odd }}", "--template"));
	assert_int_equal(config_of(&c, llava_15_7b, "vicuna_v1", &err), VQ_OK);
	assert_string_equal(c.chat->name, "vicuna_v1");
	assert_int_equal(config_of(&c, llava_15_7b, "nonesuch", &err), VQ_E_USAGE);
	assert_says(&err, SAYS("--template", "nonesuch", "vicuna_v1"));
	put_text("chat_template.json", "{\"chat_template\":\"{{ json }}\"}");
	assert_int_equal(config_of(&c, llava_15_7b, NULL, &err), VQ_E_DATA);
	assert_says(&err, SAYS("chat_template.json", "{{ json }}"));
	put_text("chat_template.jinja", "{{ jinja }}\n");
	assert_int_equal(config_of(&c, llava_15_7b, NULL, &err), VQ_E_DATA);
	assert_says(&err, SAYS("chat_template.jinja", "{{ jinja }}"));
	unlink(in_folder("chat_template.jinja"));
	unlink(in_folder("chat_template.json"));
	put_text("tokenizer_config.json",
		 "{\"chat_template\":[{\"name\":\"tool\",\"template\":\"{{ t }}\"},"
		 "{\"name\":\"default\",\"template\":\"{{ d }}\"}]}");
	assert_int_equal(config_of(&c, llava_15_7b, NULL, &err), VQ_E_DATA);
	assert_says(&err, SAYS("{{ d }}"));
}

static void side_files_that_are_no_objects_are_refused(void **state)
{
	static const char *const files[] = {"generation_config.json", "tokenizer_config.json",
					    "preprocessor_config.json", "processor_config.json"};
	struct vq_config c;
	struct vq_err err;
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
		put_text(files[i], "[1]");
		assert_int_equal(config_of(&c, llava_15_7b, NULL, &err), VQ_E_DATA);
		assert_says(&err, SAYS(files[i], "object"));
		put_text(files[i], "{\"a\":");
		assert_int_equal(config_of(&c, llava_15_7b, NULL, &err), VQ_E_DATA);
		assert_says(&err, SAYS(files[i], "bad JSON"));
		unlink(in_folder(files[i]));
	}
}

static void pictures_of_another_size_than_the_towers_are_refused(void **state)
{
	struct vq_config c;
	struct vq_err err;

	(void)state;
	put_text("preprocessor_config.json",
		 "{\"size\":{\"shortest_edge\":224},\"crop_size\":{\"height\":224,\"width\":224}}");
	assert_int_equal(config_of(&c, llava_15_7b, NULL, &err), VQ_E_DATA);
	assert_says(&err, SAYS("336", "224"));
}

/* --- the canonical form --- */

static json_t *canonical(const char *text, struct vq_config *c)
{
	struct vq_err err = {0};
	json_t *j;

	accepted(c, text);
	j = vq_config_json(c, &err);
	assert_non_null(j);
	return j;
}

static void round_trip(const char *text)
{
	struct vq_err err = {0};
	struct vq_config c, d;
	json_t *j = canonical(text, &c), *again, *k;
	char *a = vq_json_text(j, &err), *b;

	again = vq_json_parse(a, strlen(a), "canonical", &err);
	assert_int_equal(vq_config_parse(&d, again, "canonical", &err), VQ_OK);
	k = vq_config_json(&d, &err);
	b = vq_json_text(k, &err);
	assert_string_equal(a, b);
	assert_true(c.decoder.layer.eps == d.decoder.layer.eps);
	assert_true(c.decoder.layer.rope_theta == d.decoder.layer.rope_theta);
	assert_true(c.vision.layer.eps == d.vision.layer.eps);
	assert_memory_equal(c.preproc.mean, d.preproc.mean, sizeof(c.preproc.mean));
	assert_true(c.preproc.rescale == d.preproc.rescale);
	assert_string_equal(c.arch, d.arch);
	assert_ptr_equal(c.chat, d.chat);
	vq_free(a);
	vq_free(b);
	json_decref(j);
	json_decref(k);
	json_decref(again);
}

static void the_canonical_form_comes_back_to_the_bit(void **state)
{
	(void)state;
	round_trip(llava_15_7b);
	round_trip("{\"model_type\":\"llama\",\"rms_norm_eps\":1.1920928955078125e-07,"
		   "\"rope_theta\":123456.789}");
	round_trip("{\"model_type\":\"llava\",\"vision_feature_select_strategy\":\"full\","
		   "\"projector_hidden_act\":\"gelu_new\",\"vision_config\":{\"hidden_act\":"
		   "\"gelu\"}}");
}

/* Every member of the canonical form, at any depth: without it, or with nonsense in its place, the form is
 * refused and the key is named (the preprocessor's own members have defaults). */
static void spoil(json_t *whole, json_t *part)
{
	static const char *const nonsense[] = {"-7", "\"nonsense\"", "[]", "1e99", "-4294967296"};
	char names[64][32];
	struct vq_config c;
	const char *key;
	json_t *v;
	size_t n = 0, i, k;

	json_object_foreach(part, key, v)
	{
		assert_true(n < 64);
		snprintf(names[n++], sizeof(names[0]), "%s", key);
	}
	for (k = 0; k < n; k++) {
		json_t *old = json_incref(json_object_get(part, names[k]));
		struct vq_err err = {0};

		json_object_del(part, names[k]);
		assert_int_equal(vq_config_parse(&c, whole, "canonical", &err), VQ_E_DATA);
		assert_says(&err, SAYS("canonical", names[k]));
		for (i = 0; i < sizeof(nonsense) / sizeof(nonsense[0]); i++) {
			json_object_set_new(part, names[k],
					    json_loads(nonsense[i], JSON_DECODE_ANY, NULL));
			memset(&err, 0, sizeof(err));
			if (vq_config_parse(&c, whole, "canonical", &err) != VQ_E_DATA)
				fail_msg("'%s' may be %s", names[k], nonsense[i]);
		}
		json_object_set(part, names[k], old);
		if (json_is_object(old) && strcmp(names[k], "preproc") != 0)
			spoil(whole, old);
		json_decref(old);
	}
}

static void a_canonical_form_without_a_member_or_with_nonsense_is_refused(void **state)
{
	struct vq_err err = {0};
	struct vq_config c;
	json_t *j = canonical(llava_15_7b, &c);

	(void)state;
	spoil(j, j);
	assert_int_equal(vq_config_parse(&c, j, "canonical", &err), VQ_OK); /* all is back */
	json_decref(j);
}

static void a_canonical_form_whose_sizes_do_not_fit_is_refused(void **state)
{
	static const struct {
		const char *part, *key;
		int value;
		const char *says;
	} cases[] = {
		{"projector", "in", 1000, "projector"}, {"projector", "out", 1000, "projector"},
		{"vision", "image_size", 350, "350"},   {"vision", "patch_size", 9, "patch_size"},
		{NULL, "n_image_tokens", 575, "576"},   {NULL, "image_token", -1, "image token"},
	};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct vq_err err = {0};
		struct vq_config c;
		json_t *j = canonical(llava_15_7b, &c);

		json_object_set_new(cases[i].part ? json_object_get(j, cases[i].part) : j,
				    cases[i].key, json_integer(cases[i].value));
		assert_int_equal(vq_config_parse(&c, j, "canonical", &err), VQ_E_DATA);
		assert_says(&err, SAYS("canonical", cases[i].says));
		json_decref(j);
	}
}

#define WITH_FOLDER(f) cmocka_unit_test_setup_teardown(f, folder_with_weights, folder_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_demo_model_is_read),
		WITH_FOLDER(keys_that_are_absent_have_the_defaults_of_transformers),
		WITH_FOLDER(a_plain_llama_folder_has_no_vision),
		WITH_FOLDER(the_spellings_of_version_5_are_taken),
		WITH_FOLDER(the_feature_layer_says_how_many_layers_run),
		WITH_FOLDER(the_select_strategy_keeps_or_drops_the_class_token),
		WITH_FOLDER(an_unknown_architecture_is_named_with_what_is_supported),
		WITH_FOLDER(an_unknown_type_of_numbers_is_named),
		WITH_FOLDER(values_that_cannot_be_are_refused_with_key_and_value),
		WITH_FOLDER(token_ids_come_from_the_first_place_that_has_them),
		WITH_FOLDER(a_head_is_tied_when_said_or_when_there_is_none),
		WITH_FOLDER(the_chat_template_is_the_checkpoints_or_the_named_one),
		WITH_FOLDER(side_files_that_are_no_objects_are_refused),
		WITH_FOLDER(pictures_of_another_size_than_the_towers_are_refused),
		WITH_FOLDER(the_canonical_form_comes_back_to_the_bit),
		WITH_FOLDER(a_canonical_form_without_a_member_or_with_nonsense_is_refused),
		WITH_FOLDER(a_canonical_form_whose_sizes_do_not_fit_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
