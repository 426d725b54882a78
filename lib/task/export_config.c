/* Exporting: config.json in the spelling of llava-hf and LLaMA, and the files that readers want beside it. */
#include <stdio.h>
#include <string.h>

#include "task/export_parts.h"

static const char *act_name(enum vq_act_fn f)
{
	static const char *const names[] = {"silu", "quick_gelu", "gelu", "gelu_pytorch_tanh"};

	return names[f];
}

/* A token's id, or null. */
static json_t *token(int32_t id)
{
	return id < 0 ? json_null() : json_integer(id);
}

static json_t *decoder_json(const struct vq_config *c, uint32_t vocab)
{
	const struct vq_decoder_config *d = &c->decoder;
	const struct vq_layer_config *l = &d->layer;

	return json_pack(
		"{s:[s], s:s, s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:s, s:f, s:f, s:i, "
		"s:b, s:b, s:b, s:o, s:o, s:o, s:b}",
		"architectures", "LlamaForCausalLM", "model_type", "llama", "torch_dtype",
		"float16", "vocab_size", (int)vocab, "hidden_size", (int)l->hidden,
		"intermediate_size", (int)l->inter, "num_hidden_layers", (int)d->n_layers,
		"num_attention_heads", (int)l->n_heads, "num_key_value_heads", (int)l->n_kv_heads,
		"head_dim", (int)l->head_dim, "hidden_act", act_name(l->act), "rms_norm_eps",
		(double)l->eps, "rope_theta", (double)l->rope_theta, "max_position_embeddings",
		(int)d->max_position, "attention_bias", l->qkv_bias, "mlp_bias", l->mlp_bias,
		"tie_word_embeddings", d->tied, "bos_token_id", token(c->bos), "eos_token_id",
		token(c->eos), "pad_token_id", token(c->pad), "use_cache", 1);
}

/* The packed model has the layers up to the feature layer, so here that is the last. */
static json_t *vision_json(const struct vq_config *c)
{
	const struct vq_vision_config *v = &c->vision;
	const struct vq_layer_config *l = &v->layer;

	return json_pack("{s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:s, s:f, s:i}", "model_type",
			 "clip_vision_model", "hidden_size", (int)l->hidden, "intermediate_size",
			 (int)l->inter, "num_hidden_layers", (int)v->n_layers,
			 "num_attention_heads", (int)l->n_heads, "image_size", (int)v->image_size,
			 "patch_size", (int)v->patch_size, "num_channels", 3, "hidden_act",
			 act_name(l->act), "layer_norm_eps", (double)l->eps, "projection_dim",
			 (int)l->hidden);
}

/* Rows of the embedding, with those of new tokens. */
static uint32_t vocab_of(const struct vq_export *x)
{
	uint32_t n = x->config.decoder.vocab;

	return x->image_token >= (int32_t)n ? (uint32_t)x->image_token + 1 : n;
}

static json_t *config_json(const struct vq_export *x, json_t *quant)
{
	const struct vq_config *c = &x->config;
	uint32_t vocab = vocab_of(x);
	json_t *j = decoder_json(c, vocab);

	if (!c->has_vision) {
		json_object_set(j, "quantization_config", quant);
		return j;
	}
	return json_pack("{s:[s], s:s, s:s, s:i, s:i, s:o, s:i, s:s, s:i, s:s, s:i, s:b, s:b, s:o, "
			 "s:o, s:O}",
			 "architectures", "LlavaForConditionalGeneration", "model_type", "llava",
			 "torch_dtype", "float16", "ignore_index", -100, "image_token_index",
			 (int)x->image_token, "pad_token_id", token(c->pad), "vocab_size",
			 (int)vocab, "projector_hidden_act", act_name(c->projector.act),
			 "vision_feature_layer", -1, "vision_feature_select_strategy",
			 c->vision.keep_class ? "full" : "default", "image_seq_length",
			 (int)c->n_image_tokens, "multimodal_projector_bias", c->projector.bias,
			 "tie_word_embeddings", c->decoder.tied, "text_config", j, "vision_config",
			 vision_json(c), "quantization_config", quant);
}

static int put_generation(struct vq_export *x, struct vq_err *err)
{
	const struct vq_config *c = &x->config;
	json_t *j = json_pack("{s:b, s:o, s:o, s:o}", "_from_model_config", 1, "bos_token_id",
			      token(c->bos), "eos_token_id", token(c->eos), "pad_token_id",
			      token(c->pad));
	int rc = vq_export_put_json(x, "generation_config.json", j, err);

	json_decref(j);
	return rc;
}

/* CLIPImageProcessor's keys; image_aspect_ratio and fill are ours and LLaVA's, which it leaves alone. */
static int put_preprocessor(struct vq_export *x, struct vq_err *err)
{
	const struct vq_preproc *p = &x->config.preproc;
	json_t *j = vq_preproc_json(p), *crop, *more;
	int rc;

	crop = json_pack("{s:i, s:i}", "height", (int)p->crop, "width", (int)p->crop);
	more = json_pack("{s:s, s:b, s:b, s:b, s:f}", "processor_class", "LlavaProcessor",
			 "do_convert_rgb", 1, "do_rescale", 1, "do_normalize", 1, "rescale_factor",
			 p->rescale);
	if (j && crop && more) {
		json_object_set(j, "crop_size", crop);
		json_object_update(j, more);
	}
	rc = j && crop && more ? vq_export_put_json(x, "preprocessor_config.json", j, err)
			       : vq_fail(err, VQ_E_SYS, "memory: cannot write the preprocessor");
	json_decref(j);
	json_decref(crop);
	json_decref(more);
	return rc;
}

static int put_processor(struct vq_export *x, struct vq_err *err)
{
	const struct vq_vision_config *v = &x->config.vision;
	json_t *j = json_pack("{s:s, s:i, s:s, s:i, s:s}", "processor_class", "LlavaProcessor",
			      "patch_size", (int)v->patch_size, "vision_feature_select_strategy",
			      v->keep_class ? "full" : "default", "num_additional_image_tokens",
			      v->has_class, "image_token", "<image>");
	int rc = vq_export_put_json(x, "processor_config.json", j, err);

	json_decref(j);
	return rc;
}

int vq_export_config(struct vq_export *x, struct vq_err *err)
{
	json_t *quant = vq_export_quant_config(x, err), *j;
	int rc;

	if (!quant)
		return VQ_E_SYS;
	j = config_json(x, quant);
	rc = vq_export_put_json(x, "config.json", j, err);
	if (rc == VQ_OK && x->o->to == VQ_EXPORT_GPTQ)
		rc = vq_export_put_json(x, "quantize_config.json", quant, err);
	if (rc == VQ_OK)
		rc = put_generation(x, err);
	if (rc == VQ_OK && x->config.has_vision)
		rc = put_preprocessor(x, err);
	if (rc == VQ_OK && x->config.has_vision)
		rc = put_processor(x, err);
	json_decref(j);
	json_decref(quant);
	return rc;
}
