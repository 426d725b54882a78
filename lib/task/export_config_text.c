/* Exporting: a decoder as config.json describes it, in the keys of its own class. */
#include <math.h>

#include "task/export_parts.h"

const char *vq_export_act_name(enum vq_act_fn f)
{
	static const char *const names[] = {"silu", "quick_gelu", "gelu", "gelu_pytorch_tanh"};

	return names[f];
}

json_t *vq_export_token(int32_t id)
{
	return id < 0 ? json_null() : json_integer(id);
}

/* Such that int(part * head_dim), as readers compute it, is the number that turns. */
static double rotary_part(const struct vq_layer_config *l)
{
	double n = vq_rotary_dim(l), part = n / l->head_dim;

	return floor(part * l->head_dim) < n ? nextafter(part, 1) : part;
}

/* LlamaForCausalLM and Qwen2ForCausalLM. */
static json_t *rms_json(const struct vq_layer_config *l, int qwen)
{
	json_t *j = json_pack("{s:f, s:i}", "rms_norm_eps", (double)l->eps, "head_dim",
			      (int)l->head_dim);

	if (!qwen)
		json_object_update_new(j, json_pack("{s:b, s:b}", "attention_bias", l->qkv_bias,
						    "mlp_bias", l->mlp_bias));
	return j;
}

/* StableLmForCausalLM and PhiForCausalLM. */
static json_t *norm_json(const struct vq_layer_config *l, int phi)
{
	json_t *j = json_pack("{s:f, s:f, s:b}", "layer_norm_eps", (double)l->eps,
			      "partial_rotary_factor", rotary_part(l), "qk_layernorm", 0);

	if (!phi)
		json_object_update_new(j, json_pack("{s:b, s:b}", "use_qkv_bias", l->qkv_bias,
						    "use_parallel_residual", l->parallel));
	return j;
}

json_t *vq_export_text_json(const struct vq_config *c, uint32_t vocab)
{
	/* enum vq_family */
	static const char *const classes[] = {"LlamaForCausalLM", "StableLmForCausalLM",
					      "PhiForCausalLM", "Qwen2ForCausalLM"};
	static const char *const types[] = {"llama", "stablelm", "phi", "qwen2"};
	const struct vq_decoder_config *d = &c->decoder;
	const struct vq_layer_config *l = &d->layer;
	json_t *j = json_pack(
		"{s:[s], s:s, s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:s, s:f, s:i, s:b, s:o, s:o, "
		"s:o, "
		"s:b}",
		"architectures", classes[c->family], "model_type", types[c->family], "torch_dtype",
		"float16", "vocab_size", (int)vocab, "hidden_size", (int)l->hidden,
		"intermediate_size", (int)l->inter, "num_hidden_layers", (int)d->n_layers,
		"num_attention_heads", (int)l->n_heads, "num_key_value_heads", (int)l->n_kv_heads,
		"hidden_act", vq_export_act_name(l->act), "rope_theta", (double)l->rope_theta,
		"max_position_embeddings", (int)d->max_position, "tie_word_embeddings", d->tied,
		"bos_token_id", vq_export_token(c->bos), "eos_token_id", vq_export_token(c->eos),
		"pad_token_id", vq_export_token(c->pad), "use_cache", 1);

	json_object_update_new(j, l->norm == VQ_NORM_RMS
					  ? rms_json(l, c->family == VQ_FAMILY_QWEN)
					  : norm_json(l, c->family == VQ_FAMILY_PHI));
	return j;
}
