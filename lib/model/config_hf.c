/* A configuration from a Hugging Face folder: llava-hf or a plain decoder; config_family.c has the decoders that are not
 * LLaMA's, config_flat.c the layout of the LLaVA authors.  Absent keys have the defaults of transformers' LlavaConfig,
 * LlamaConfig and CLIPVisionConfig; both spellings of keys that version 5 renamed are taken. */
#include "model/config.h"

#include <stdio.h>
#include <string.h>

#include "format/checkpoint.h"
#include "model/config_limits.h"
#include "model/config_parts.h"
#include "model/field.h"
#include "model/names.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

const struct vq_word vq_parts_acts[] = {{"silu", VQ_ACT_SILU},
					{"swish", VQ_ACT_SILU},
					{"quick_gelu", VQ_ACT_QUICK_GELU},
					{"gelu", VQ_ACT_GELU_ERF},
					{"gelu_new", VQ_ACT_GELU_TANH},
					{"gelu_pytorch_tanh", VQ_ACT_GELU_TANH},
					{0}};

/* The defaults of LlamaConfig. */
#define D(m) offsetof(struct vq_decoder_config, m)
static const struct vq_field llama_fields[] = {
	{"vocab_size", VQ_FIELD_U32, D(vocab), 1, VQ_LIMIT_VOCAB, 32000, NULL},
	{"hidden_size", VQ_FIELD_U32, D(layer.hidden), 1, VQ_LIMIT_DIM, 4096, NULL},
	{"intermediate_size", VQ_FIELD_U32, D(layer.inter), 1, VQ_LIMIT_DIM, 11008, NULL},
	{"num_hidden_layers", VQ_FIELD_U32, D(n_layers), 1, VQ_LIMIT_LAYERS, 32, NULL},
	{"num_attention_heads", VQ_FIELD_U32, D(layer.n_heads), 1, VQ_LIMIT_HEADS, 32, NULL},
	{"num_key_value_heads", VQ_FIELD_U32, D(layer.n_kv_heads), 1, VQ_LIMIT_HEADS, 0, NULL},
	{"head_dim", VQ_FIELD_U32, D(layer.head_dim), 1, VQ_LIMIT_HEAD_DIM, 0, NULL},
	{"max_position_embeddings", VQ_FIELD_U32, D(max_position), 1, VQ_LIMIT_POSITION, 2048,
	 NULL},
	{"rms_norm_eps", VQ_FIELD_F32, D(layer.eps), VQ_LIMIT_EPS_LO, 1, 1e-6, NULL},
	{"hidden_act", VQ_FIELD_WORD, D(layer.act), 0, 0, VQ_ACT_SILU, vq_parts_acts},
	{"attention_bias", VQ_FIELD_BOOL, D(layer.qkv_bias), 0, 0, 0, NULL},
	{"mlp_bias", VQ_FIELD_BOOL, D(layer.mlp_bias), 0, 0, 0, NULL},
	{"rope_theta", VQ_FIELD_F32, D(layer.rope_theta), 1, VQ_LIMIT_THETA, 10000, NULL},
};
#undef D

/* The defaults of CLIPVisionConfig. */
struct clip {
	struct vq_vision_config v;
	uint32_t n_layers, channels;
};

#define V(m) offsetof(struct clip, m)
static const struct vq_field clip_fields[] = {
	{"hidden_size", VQ_FIELD_U32, V(v.layer.hidden), 1, VQ_LIMIT_DIM, 768, NULL},
	{"intermediate_size", VQ_FIELD_U32, V(v.layer.inter), 1, VQ_LIMIT_DIM, 3072, NULL},
	{"num_hidden_layers", VQ_FIELD_U32, V(n_layers), 1, VQ_LIMIT_LAYERS, 12, NULL},
	{"num_attention_heads", VQ_FIELD_U32, V(v.layer.n_heads), 1, VQ_LIMIT_HEADS, 12, NULL},
	{"image_size", VQ_FIELD_U32, V(v.image_size), 1, VQ_LIMIT_IMAGE, 224, NULL},
	{"patch_size", VQ_FIELD_U32, V(v.patch_size), 1, VQ_LIMIT_IMAGE, 32, NULL},
	{"num_channels", VQ_FIELD_U32, V(channels), 3, 3, 3, NULL},
	{"layer_norm_eps", VQ_FIELD_F32, V(v.layer.eps), VQ_LIMIT_EPS_LO, 1, 1e-5, NULL},
	{"hidden_act", VQ_FIELD_WORD, V(v.layer.act), 0, 0, VQ_ACT_QUICK_GELU, vq_parts_acts},
};
#undef V

/* LlavaConfig without a vision_config means CLIP-L/14 at 336 pixels. */
static const char clip_l_336[] = "{\"hidden_size\":1024,\"intermediate_size\":4096,"
				 "\"num_hidden_layers\":24,\"num_attention_heads\":16,"
				 "\"image_size\":336,\"patch_size\":14}";

/* Types that the tools compute with.  The tensors' own types are checked one by
 * one later; a configuration that announces another type, or a quantization, is
 * better refused with its name. */
int vq_parts_dtype(const json_t *o, const char *label, struct vq_err *err)
{
	static const char *const keys[] = {"torch_dtype", "dtype"};
	static const char *const types[] = {"float16", "bfloat16", "float32", "auto"};
	size_t i, t;

	for (i = 0; i < COUNT(keys); i++) {
		const json_t *v = json_object_get(o, keys[i]);

		if (!v || json_is_null(v))
			continue;
		for (t = 0; t < COUNT(types); t++)
			if (json_is_string(v) && strcmp(json_string_value(v), types[t]) == 0)
				break;
		if (t == COUNT(types))
			return vq_field_refuse(label, keys[i], "float16, bfloat16 or float32", v,
					       err);
	}
	if (json_is_object(json_object_get(o, "quantization_config")))
		return vq_fail(err, VQ_E_DATA,
			       "%s: 'quantization_config': the checkpoint is quantized already; "
			       "want one in float16, bfloat16 or float32",
			       label);
	return VQ_OK;
}

int vq_parts_heads(struct vq_layer_config *l, const char *label, struct vq_err *err)
{
	if (l->n_kv_heads == 0)
		l->n_kv_heads = l->n_heads;
	if (l->head_dim != 0)
		return VQ_OK;
	if (l->hidden % l->n_heads != 0)
		return vq_fail(err, VQ_E_DATA,
			       "%s: want a hidden_size that is a multiple of num_attention_heads, "
			       "got %u and %u",
			       label, l->hidden, l->n_heads);
	l->head_dim = l->hidden / l->n_heads;
	return VQ_OK;
}

/* Only plain rotary embedding; a scaling of factor 1 is that too. */
static int check_rope(const json_t *o, const char *key, const char *label, struct vq_err *err)
{
	const json_t *v = json_object_get(o, key), *type = json_object_get(v, "rope_type");
	const json_t *factor = json_object_get(v, "factor");

	if (!v || json_is_null(v))
		return VQ_OK;
	if (!type)
		type = json_object_get(v, "type");
	if (json_is_object(v) && (!type || json_is_null(type) ||
				  (json_is_string(type) &&
				   (strcmp(json_string_value(type), "default") == 0 ||
				    (strcmp(json_string_value(type), "linear") == 0 &&
				     json_is_number(factor) && json_number_value(factor) == 1)))))
		return VQ_OK;
	return vq_field_refuse(label, key, "null or the default (scaled rotary is not supported)",
			       v, err);
}

int vq_parts_rope(const json_t *o, const char *label, struct vq_err *err)
{
	int rc = check_rope(o, "rope_scaling", label, err);

	return rc < 0 ? rc : check_rope(o, "rope_parameters", label, err);
}

static int llama_decoder(struct vq_decoder_config *d, const json_t *o, const char *label,
			 struct vq_err *err)
{
	const json_t *rope = json_object_get(o, "rope_parameters");
	const struct vq_field *theta = &llama_fields[COUNT(llama_fields) - 1];
	struct vq_layer_config *l = &d->layer;
	int rc = vq_fields_read(llama_fields, COUNT(llama_fields), d, o, label, err);

	if (rc == VQ_OK)
		rc = vq_parts_dtype(o, label, err);
	if (rc == VQ_OK)
		rc = vq_parts_rope(o, label, err);
	if (rc == VQ_OK && json_object_get(rope, "rope_theta"))
		rc = vq_fields_read(theta, 1, d, rope, label, err);
	if (rc == VQ_OK)
		rc = vq_parts_heads(l, label, err);
	if (rc < 0)
		return rc;
	l->norm = VQ_NORM_RMS;
	l->gated = 1;
	l->causal = 1;
	l->o_bias = l->qkv_bias; /* LlamaAttention: attention_bias is for all four */
	return VQ_OK;
}

int vq_parts_decoder(struct vq_config *c, const json_t *o, const char *label, struct vq_err *err)
{
	return c->family == VQ_FAMILY_LLAMA ? llama_decoder(&c->decoder, o, label, err)
					    : vq_family_decoder(c, o, label, err);
}

/* The index into hidden_states of vision_feature_layer, which is the number of
 * layers that run: state 0 is the embedding, state i the output of layer i - 1.
 */
static int feature_layer(uint32_t *n_run, uint32_t n_layers, const json_t *o, const char *key,
			 const char *label, struct vq_err *err)
{
	const json_t *v = json_object_get(o, key), *one = v;
	json_int_t i = -2;
	char want[96];

	if (json_is_array(v) && json_array_size(v) == 1)
		one = json_array_get(v, 0);
	snprintf(want, sizeof(want), "one layer of 1..%u, or of -%u..-1", n_layers, n_layers);
	if (v && !json_is_null(v)) {
		if (!json_is_integer(one))
			return vq_field_refuse(label, key, want, v, err);
		i = json_integer_value(one);
	}
	if (i < 0)
		i += (json_int_t)n_layers + 1;
	if (i < 1 || i > (json_int_t)n_layers)
		return vq_field_refuse(label, key, want, v, err);
	*n_run = (uint32_t)i;
	return VQ_OK;
}

int vq_parts_vision(struct vq_config *c, const struct vq_feature_keys *keys, const json_t *top,
		    const json_t *o, const char *label, const char *top_label, struct vq_err *err)
{
	const struct vq_field select = {keys->select, VQ_FIELD_WORD, 0, 0, 0, 0, keys->words};
	struct clip clip;
	struct vq_layer_config *l = &clip.v.layer;
	int rc;

	memset(&clip, 0, sizeof(clip));
	rc = vq_fields_read(clip_fields, COUNT(clip_fields), &clip, o, label, err);
	if (rc == VQ_OK)
		rc = vq_parts_dtype(o, label, err);
	if (rc == VQ_OK)
		rc = feature_layer(&clip.v.n_layers, clip.n_layers, top, keys->layer, top_label,
				   err);
	if (rc == VQ_OK)
		rc = vq_fields_read(&select, 1, &clip.v.keep_class, top, top_label, err);
	if (rc == VQ_OK)
		rc = vq_parts_heads(l, label, err);
	if (rc < 0)
		return rc;
	l->norm = VQ_NORM_LAYER;
	l->qkv_bias = l->o_bias = l->mlp_bias = 1;
	clip.v.has_class = 1;
	clip.v.pre_norm = 1;
	c->vision = clip.v;
	return VQ_OK;
}

static int projector_from(struct vq_config *c, const json_t *top, const char *label,
			  struct vq_err *err)
{
	static const struct vq_field fields[] = {
		{"projector_hidden_act", VQ_FIELD_WORD, offsetof(struct vq_projector_config, act),
		 0, 0, VQ_ACT_GELU_ERF, vq_parts_acts},
		{"multimodal_projector_bias", VQ_FIELD_BOOL,
		 offsetof(struct vq_projector_config, bias), 0, 0, 1, NULL},
	};

	c->projector.n_linears = 2;
	c->projector.in = c->vision.layer.hidden;
	c->projector.out = c->decoder.layer.hidden;
	return vq_fields_read(fields, COUNT(fields), &c->projector, top, label, err);
}

/* The picture's tokens: image_token_index, or image_token_id since version 5; and how many of them, which
 * image_seq_length repeats and must agree. */
static int image_tokens(struct vq_config *c, const json_t *top, const char *label,
			struct vq_err *err)
{
	struct vq_field id = {"image_token_index", VQ_FIELD_I32, 0, 0, VQ_LIMIT_VOCAB, 32000, NULL};
	struct vq_field count = {"image_seq_length", VQ_FIELD_U32, 0, 1, VQ_LIMIT_DIM, 0, NULL};
	uint32_t side = c->vision.image_size / c->vision.patch_size, seq;
	int rc;

	if (!json_object_get(top, id.key) && json_object_get(top, "image_token_id"))
		id.key = "image_token_id";
	rc = vq_fields_read(&id, 1, &c->image_token, top, label, err);
	if (rc == VQ_OK)
		rc = vq_fields_read(&count, 1, &seq, top, label, err);
	if (rc < 0)
		return rc;
	c->n_image_tokens = side * side + (c->vision.keep_class ? 1 : 0);
	if (seq != 0 && seq != c->n_image_tokens)
		return vq_fail(err, VQ_E_DATA,
			       "%s: '%s': want %u (%u x %u patches), got %u; image_size, "
			       "patch_size and the select strategy must fit it",
			       label, count.key, c->n_image_tokens, side, side, seq);
	return VQ_OK;
}

/* text_config's word counts, then the top's; without either, a checkpoint
 * without a head is tied. */
int vq_parts_tied(struct vq_config *c, const struct vq_side *s, const json_t *text,
		  const char *label, struct vq_err *err)
{
	static const char key[] = "tie_word_embeddings";
	const json_t *v = json_object_get(text, key);

	if (!v || json_is_null(v))
		v = json_object_get(s->config, key);
	if (v && !json_is_null(v) && !json_is_boolean(v))
		return vq_field_refuse(label, key, "true or false", v, err);
	c->decoder.tied = v && !json_is_null(v) ? json_is_true(v)
						: !vq_names_has(s->k, "decoder.head.weight");
	return VQ_OK;
}

/* c->arch and has_vision by model_type and architectures, *flat for the layout
 * of the LLaVA authors; anything else is refused with its name. */
static int architecture(struct vq_config *c, int *flat, const json_t *o, const char *label,
			struct vq_err *err)
{
	static const char supported[] =
		"llava (LlavaForConditionalGeneration, in llava-hf layout, or "
		"LlavaLlamaForCausalLM), moe_llava_llama (MoELLaVALlamaForCausalLM), moe_llava_ or "
		"llava_ and stablelm, phi or qwen, idefics3 or smolvlm "
		"(Idefics3ForConditionalGeneration, SmolVLMForConditionalGeneration), llama "
		"(LlamaForCausalLM), stablelm (StableLmForCausalLM), phi or phi-msft "
		"(PhiForCausalLM) or qwen "
		"(QWenLMHeadModel)";
	static const struct {
		const char *type, *arch, *ours;
		int flat;
	} known[] = {
		{"llava", "LlavaForConditionalGeneration", "llava", 0},
		{"llava", "LlavaLlamaForCausalLM", "llava", 1},
		{"llava_llama", "LlavaLlamaForCausalLM", "llava", 1},
		{"moe_llava", "MoELLaVALlamaForCausalLM", "llava", 1},
		{"moe_llava", "EvalMoELLaVALlamaForCausalLM", "llava", 1},
		{"moe_llava_llama", "MoELLaVALlamaForCausalLM", "llava", 1},
		{"moe_llava_llama", "EvalMoELLaVALlamaForCausalLM", "llava", 1},
		{"llava_stablelm", "LlavaStablelmForCausalLM", "llava_stablelm", 1},
		{"moe_llava_stablelm", "MoELLaVAStablelmForCausalLM", "llava_stablelm", 1},
		{"moe_llava_stablelm", "EvalMoELLaVAStablelmForCausalLM", "llava_stablelm", 1},
		{"llava_phi", "LlavaPhiForCausalLM", "llava_phi", 1},
		{"moe_llava_phi", "MoELLaVAPhiForCausalLM", "llava_phi", 1},
		{"moe_llava_phi", "EvalMoELLaVAPhiForCausalLM", "llava_phi", 1},
		{"llava_qwen", "LlavaQWenForCausalLM", "llava_qwen", 1},
		{"moe_llava_qwen", "MoELLaVAQWenForCausalLM", "llava_qwen", 1},
		{"moe_llava_qwen", "EvalMoELLaVAQWenForCausalLM", "llava_qwen", 1},
		{"idefics3", "Idefics3ForConditionalGeneration", "idefics3", 0},
		{"smolvlm", "SmolVLMForConditionalGeneration", "idefics3", 0},
		{"llama", "LlamaForCausalLM", "llama", 0},
		{"stablelm", "StableLmForCausalLM", "stablelm", 0},
		{"stablelm_epoch", "StableLMEpochForCausalLM", "stablelm", 0},
		{"stablelm_epoch", "StableLmForCausalLM", "stablelm", 0},
		{"phi", "PhiForCausalLM", "phi", 0},
		{"phi-msft", "PhiForCausalLM", "phi", 0},
		{"qwen", "QWenLMHeadModel", "qwen", 0},
	};
	const char *type = vq_side_str(o, "model_type"), *arch;
	const json_t *v = json_object_get(o, "architectures");
	int any_type = 0;
	size_t i;

	arch = json_string_value(json_array_get(v, 0));
	for (i = 0; i < COUNT(known); i++) {
		if (!type || strcmp(type, known[i].type) != 0)
			continue;
		any_type = 1;
		if (v && !json_is_null(v) && (!arch || strcmp(arch, known[i].arch) != 0))
			continue;
		if (vq_config_arch(c, known[i].ours) < 0)
			break;
		*flat = known[i].flat || (c->has_vision && json_object_get(o, "mm_vision_tower"));
		return VQ_OK;
	}
	return any_type ? vq_field_refuse(label, "architectures", supported, v, err)
			: vq_field_refuse(label, "model_type", supported,
					  json_object_get(o, "model_type"), err);
}

static const struct vq_word strategies[] = {{"default", 0}, {"full", 1}, {0}};
static const struct vq_feature_keys feature_keys = {"vision_feature_layer",
						    "vision_feature_select_strategy", strategies};

/* A nested configuration and its model_type; *out is the object, an empty one
 * when it is absent. Given. */
static int nested(json_t **out, const json_t *top, const char *key, const char *type,
		  const char *absent, const char *label, struct vq_err *err)
{
	json_t *o = json_object_get(top, key);
	const char *got;
	char where[512];

	if (!o || json_is_null(o)) {
		*out = vq_json_parse(absent, strlen(absent), key, err);
		return *out ? VQ_OK : VQ_E_SYS;
	}
	if (!json_is_object(o))
		return vq_field_refuse(label, key, "an object", o, err);
	got = vq_side_str(o, "model_type");
	snprintf(where, sizeof(where), "%s: %s", label, key);
	if (json_object_get(o, "model_type") && (!got || strcmp(got, type) != 0))
		return vq_field_refuse(where, "model_type", type, json_object_get(o, "model_type"),
				       err);
	*out = json_incref(o);
	return VQ_OK;
}

static int parts_from(struct vq_config *c, const struct vq_side *s, const char *template_name,
		      struct vq_err *err)
{
	char label[512], text_label[528], vision_label[528];
	json_t *text = NULL, *vision = NULL;
	const json_t *top = s->config;
	int rc;

	snprintf(label, sizeof(label), "%s/config.json", vq_ckpt_path(s->k));
	snprintf(text_label, sizeof(text_label), "%s%s", label,
		 c->has_vision ? ": text_config" : "");
	snprintf(vision_label, sizeof(vision_label), "%s: vision_config", label);
	rc = vq_parts_dtype(top, label, err);
	if (rc == VQ_OK && c->has_vision)
		rc = nested(&text, top, "text_config", "llama", "{}", label, err);
	else if (rc == VQ_OK)
		text = json_incref((json_t *)(uintptr_t)top);
	if (rc == VQ_OK)
		rc = vq_parts_decoder(c, text, text_label, err);
	if (rc == VQ_OK && c->has_vision)
		rc = nested(&vision, top, "vision_config", "clip_vision_model", clip_l_336, label,
			    err);
	if (rc == VQ_OK && c->has_vision)
		rc = vq_parts_vision(c, &feature_keys, top, vision, vision_label, label, err);
	if (rc == VQ_OK && c->has_vision)
		rc = projector_from(c, top, label, err);
	if (rc == VQ_OK && c->has_vision)
		rc = image_tokens(c, top, label, err);
	if (rc == VQ_OK && c->has_vision)
		rc = vq_side_preproc(c, s->k, NULL, err);
	if (rc == VQ_OK)
		rc = vq_parts_tied(c, s, text, text_label, err);
	if (rc == VQ_OK)
		rc = vq_side_token(s, text, "bos", 1, &c->bos, err);
	if (rc == VQ_OK)
		rc = vq_side_token(s, text, "eos", 2, &c->eos, err);
	if (rc == VQ_OK)
		rc = vq_side_token(s, text, "pad", -1, &c->pad, err);
	if (rc == VQ_OK)
		rc = vq_side_chat(c, s, template_name, c->has_vision ? "llava-hf" : "plain", err);
	if (rc == VQ_OK)
		rc = vq_config_check(c, label, err);
	json_decref(text);
	json_decref(vision);
	return rc;
}

/* A model stream has the configuration as we write it. */
static int from_stream(struct vq_config *out, const struct vq_ckpt *k, const char *template_name,
		       struct vq_err *err)
{
	struct vq_config c;
	char label[512];
	int rc;

	snprintf(label, sizeof(label), "%s: config", vq_ckpt_path(k));
	rc = vq_config_parse(&c, vq_ckpt_config(k), label, err);
	if (rc == VQ_OK && template_name)
		rc = vq_side_chat(&c, NULL, template_name, NULL, err);
	if (rc == VQ_OK)
		*out = c;
	return rc;
}

int vq_config_from_ckpt(struct vq_config *out, const struct vq_ckpt *k, const char *template_name,
			struct vq_err *err)
{
	struct vq_config c;
	struct vq_side s = {.k = k, .config = vq_ckpt_config(k)};
	char label[512];
	int rc, flat = 0;

	if (vq_ckpt_form(k) == VQ_CKPT_MODEL)
		return from_stream(out, k, template_name, err);
	memset(&c, 0, sizeof(c));
	c.image_token = -1;
	snprintf(label, sizeof(label), "%s/config.json", vq_ckpt_path(k));
	rc = architecture(&c, &flat, s.config, label, err);
	if (rc == VQ_OK)
		rc = vq_side_json(k, "generation_config.json", &s.generation, err);
	if (rc == VQ_OK)
		rc = vq_side_json(k, "tokenizer_config.json", &s.tokenizer, err);
	if (rc == VQ_OK)
		rc = flat ? vq_config_flat(&c, &s, template_name, err)
		     : strcmp(c.arch, "idefics3") == 0
			     ? vq_config_idefics3(&c, &s, template_name, err)
			     : parts_from(&c, &s, template_name, err);
	json_decref(s.generation);
	json_decref(s.tokenizer);
	if (rc == VQ_OK)
		*out = c;
	return rc;
}
