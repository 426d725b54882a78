/* Exporting: config.json in the spelling of Hugging Face's classes, and the files that readers want beside it. */
#include <stdio.h>
#include <string.h>

#include "task/export_parts.h"

/* The packed model has the layers up to the feature layer, so here that is the last. */
static json_t *vision_json(const struct vq_config *c)
{
	const struct vq_vision_config *v = &c->vision;
	const struct vq_layer_config *l = &v->layer;

	return json_pack("{s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:s, s:f, s:i}", "model_type",
			 v->post_norm ? "idefics3_vision" : "clip_vision_model", "hidden_size",
			 (int)l->hidden, "intermediate_size", (int)l->inter, "num_hidden_layers",
			 (int)v->n_layers, "num_attention_heads", (int)l->n_heads, "image_size",
			 (int)v->image_size, "patch_size", (int)v->patch_size, "num_channels", 3,
			 "hidden_act", vq_export_act_name(l->act), "layer_norm_eps", (double)l->eps,
			 "projection_dim", (int)l->hidden);
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
	json_t *j = vq_export_text_json(c, vocab);

	if (!c->has_vision) {
		json_object_set(j, "quantization_config", quant);
		return j;
	}
	if (vq_export_is_idefics3(x))
		return json_pack("{s:[s], s:s, s:s, s:i, s:o, s:i, s:i, s:b, s:b, s:o, s:o, s:O}",
				 "architectures", "Idefics3ForConditionalGeneration", "model_type",
				 "idefics3", "torch_dtype", "float16", "image_token_id",
				 (int)x->image_token, "pad_token_id", vq_export_token(c->pad),
				 "scale_factor", (int)c->projector.shuffle, "vocab_size",
				 (int)vocab, "tie_word_embeddings", c->decoder.tied, "use_cache", 1,
				 "text_config", j, "vision_config", vision_json(c),
				 "quantization_config", quant);
	return json_pack("{s:[s], s:s, s:s, s:i, s:i, s:o, s:i, s:s, s:i, s:s, s:i, s:b, s:b, s:o, "
			 "s:o, s:O}",
			 "architectures", "LlavaForConditionalGeneration", "model_type", "llava",
			 "torch_dtype", "float16", "ignore_index", -100, "image_token_index",
			 (int)x->image_token, "pad_token_id", vq_export_token(c->pad), "vocab_size",
			 (int)vocab, "projector_hidden_act", vq_export_act_name(c->projector.act),
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
			      vq_export_token(c->bos), "eos_token_id", vq_export_token(c->eos),
			      "pad_token_id", vq_export_token(c->pad));
	int rc = vq_export_put_json(x, "generation_config.json", j, err);

	json_decref(j);
	return rc;
}

static const char *processor_class(const struct vq_export *x)
{
	return vq_export_is_idefics3(x) ? "Idefics3Processor" : "LlavaProcessor";
}

/* The image processor's keys; image_aspect_ratio and fill are ours and LLaVA's, which CLIPImageProcessor leaves alone. */
static int put_preprocessor(struct vq_export *x, struct vq_err *err)
{
	const struct vq_preproc *p = &x->config.preproc;
	json_t *j = vq_preproc_json(p), *crop, *more;
	int rc;

	crop = p->tiled ? json_pack("{s:b}", "do_pad", 1)
			: json_pack("{s:{s:i, s:i}}", "crop_size", "height", (int)p->crop, "width",
				    (int)p->crop);
	more = json_pack("{s:s, s:b, s:b, s:b, s:f}", "processor_class", processor_class(x),
			 "do_convert_rgb", 1, "do_rescale", 1, "do_normalize", 1, "rescale_factor",
			 p->rescale);
	if (j && crop && more) {
		json_object_update(j, crop);
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
	json_t *j = vq_export_is_idefics3(x)
			    ? json_pack("{s:s, s:i}", "processor_class", processor_class(x),
					"image_seq_len", (int)x->config.n_image_tokens)
			    : json_pack("{s:s, s:i, s:s, s:i, s:s}", "processor_class",
					processor_class(x), "patch_size", (int)v->patch_size,
					"vision_feature_select_strategy",
					v->keep_class ? "full" : "default",
					"num_additional_image_tokens", v->has_class, "image_token",
					"<image>");
	int rc = vq_export_put_json(x, "processor_config.json", j, err);

	json_decref(j);
	return rc;
}

/* SmolVLM's processor looks for the template in a file of its own. */
static int put_template(struct vq_export *x, struct vq_err *err)
{
	const char *text = x->config.chat->tmpl;
	json_t *j;
	int rc;

	if (!vq_export_is_idefics3(x) || !text)
		return VQ_OK;
	j = json_pack("{s:s}", "chat_template", text);
	rc = vq_export_put_json(x, "chat_template.json", j, err);
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
	if (rc == VQ_OK)
		rc = put_template(x, err);
	json_decref(j);
	json_decref(quant);
	return rc;
}
