/* GGUF files of the architecture llama, as convert_hf_to_gguf.py makes them of LlamaForCausalLM. */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/num.h"
#include "format/ckpt_gguf.h"
#include "format/ggml_block.h"

/* What sizes may say; the configuration's own checks are narrower. */
#define MAX_DIM    (1u << 20)
#define MAX_LAYERS 1024u
#define MAX_HEADS  4096u
#define MAX_LENGTH (1u << 24)
#define MAX_VOCAB  (1u << 22)

static const struct vq_gguf_pair tops[] = {{"token_embd", "model.embed_tokens"},
					   {"output_norm", "model.norm"},
					   {"output", "lm_head"},
					   {0}};
static const struct vq_gguf_pair leaves[] = {
	{"attn_norm", "input_layernorm"},    {"attn_q", "self_attn.q_proj"},
	{"attn_k", "self_attn.k_proj"},      {"attn_v", "self_attn.v_proj"},
	{"attn_output", "self_attn.o_proj"}, {"ffn_norm", "post_attention_layernorm"},
	{"ffn_gate", "mlp.gate_proj"},       {"ffn_up", "mlp.up_proj"},
	{"ffn_down", "mlp.down_proj"},       {0},
};

struct shape {
	uint32_t n_layers, hidden, inter, n_heads, n_kv, head_dim, length, vocab;
	double eps, theta;
};

/* --- keys --- */

static int read_heads(const struct vq_gguf_file *g, struct shape *s, struct vq_err *err)
{
	uint32_t value_dim, rotary;
	int rc = vq_gguf_need_u32(g, "llama.attention.head_count", 1, MAX_HEADS, &s->n_heads, err);

	s->n_kv = s->n_heads;
	if (rc >= 0)
		rc = vq_gguf_get_u32(g, "llama.attention.head_count_kv", 1, MAX_HEADS, &s->n_kv,
				     err);
	s->head_dim = rc >= 0 ? s->hidden / s->n_heads : 0;
	if (rc >= 0)
		rc = vq_gguf_get_u32(g, "llama.attention.key_length", 1, MAX_HEADS, &s->head_dim,
				     err);
	value_dim = rotary = s->head_dim;
	if (rc >= 0)
		rc = vq_gguf_get_u32(g, "llama.attention.value_length", 1, MAX_HEADS, &value_dim,
				     err);
	if (rc >= 0)
		rc = vq_gguf_get_u32(g, "llama.rope.dimension_count", 1, MAX_HEADS, &rotary, err);
	if (rc < 0)
		return rc;
	if (value_dim != s->head_dim || rotary != s->head_dim)
		return vq_fail(err, VQ_E_DATA, "%s: key '%s': want %u, the width of a head, got %u",
			       g->path,
			       value_dim != s->head_dim ? "llama.attention.value_length"
							: "llama.rope.dimension_count",
			       s->head_dim, value_dim != s->head_dim ? value_dim : rotary);
	return VQ_OK;
}

static int read_shape(const struct vq_gguf_model *m, struct shape *s, struct vq_err *err)
{
	const struct vq_gguf_file *g = &m->shards[0].file;
	const struct vq_gguf_tensor_info *table = vq_gguf_model_find(m, "token_embd.weight");
	int rc = table ? VQ_OK
		       : vq_fail(err, VQ_E_DATA, "%s: tensor 'token_embd.weight' is missing",
				 g->path);

	s->theta = 10000;
	s->vocab = table && table->dims[0] <= MAX_VOCAB ? (uint32_t)table->dims[0] : 0;
	if (rc >= 0)
		rc = vq_gguf_get_u32(g, "llama.vocab_size", s->vocab, s->vocab, &s->vocab, err);
	if (rc >= 0)
		rc = vq_gguf_need_u32(g, "llama.block_count", 1, MAX_LAYERS, &s->n_layers, err);
	if (rc >= 0)
		rc = vq_gguf_need_u32(g, "llama.embedding_length", 1, MAX_DIM, &s->hidden, err);
	if (rc >= 0)
		rc = vq_gguf_need_u32(g, "llama.feed_forward_length", 1, MAX_DIM, &s->inter, err);
	if (rc >= 0)
		rc = vq_gguf_need_u32(g, "llama.context_length", 1, MAX_LENGTH, &s->length, err);
	if (rc >= 0)
		rc = vq_gguf_need_f64(g, "llama.attention.layer_norm_rms_epsilon", &s->eps, err);
	if (rc >= 0)
		rc = vq_gguf_get_f64(g, "llama.rope.freq_base", &s->theta, err);
	return rc < 0 ? rc : read_heads(g, s, err);
}

/* What the engine would compute otherwise than LLaMA. */
static int refuse_others(const struct vq_gguf_file *g, struct vq_err *err)
{
	static const char scaled[] = "scaled rotary embedding is not supported";
	static const struct {
		const char *key;
		double fine;
		const char *why;
	} numbers[] = {
		{"llama.rope.scaling.factor", 1, scaled},
		{"llama.rope.scale_linear", 1, scaled},
		{"llama.attention.scale", 0, "scaled attention is not supported"},
		{"llama.logit_scale", 1, "scaled logits are not supported"},
		{"llama.embedding_scale", 1, "scaled embeddings are not supported"},
		{"llama.residual_scale", 1, "scaled residuals are not supported"},
		{"llama.attention.clamp_kqv", 0, "clamped attention is not supported"},
	};
	uint32_t experts = 0;
	char *type = NULL;
	double v;
	size_t i;
	int rc = vq_gguf_get_u32(g, "llama.expert_count", 0, UINT32_MAX, &experts, err);

	if (rc >= 0 && experts)
		rc = vq_fail(
			err, VQ_E_DATA,
			"%s: key 'llama.expert_count': a mixture of %u experts is not supported",
			g->path, experts);
	if (rc >= 0)
		rc = vq_gguf_get_text(g, "llama.rope.scaling.type", &type, err);
	if (rc > 0 && strcmp(type, "none") != 0 && strcmp(type, "linear") != 0)
		rc = vq_fail(err, VQ_E_DATA, "%s: key 'llama.rope.scaling.type': '%.32s': %s",
			     g->path, type, scaled);
	vq_free(type);
	for (i = 0; rc >= 0 && i < sizeof(numbers) / sizeof(numbers[0]); i++) {
		v = numbers[i].fine;
		rc = vq_gguf_get_f64(g, numbers[i].key, &v, err);
		/* Absent, or 0 where that means the same. */
		if (rc >= 0 && v != numbers[i].fine && v != 0)
			rc = vq_fail(err, VQ_E_DATA, "%s: key '%s': %g: %s", g->path,
				     numbers[i].key, v, numbers[i].why);
	}
	return rc < 0 ? rc : VQ_OK;
}

static int put_token(json_t *o, const char *ours, const struct vq_gguf_file *g, const char *key,
		     struct vq_err *err)
{
	uint32_t id = 0;
	int rc = vq_gguf_get_u32(g, key, 0, UINT32_MAX, &id, err);

	/* 2^32 - 1 is how some converters write "none". */
	if (rc > 0 && id <= MAX_VOCAB)
		(void)!json_object_set_new(o, ours, json_integer(id));
	return rc < 0 ? rc : VQ_OK;
}

static int config(json_t **out, const struct vq_gguf_model *m, struct vq_err *err)
{
	const struct vq_gguf_file *g = &m->shards[0].file;
	struct shape s = {0};
	json_t *o = NULL;
	int rc = refuse_others(g, err);

	if (rc == VQ_OK)
		rc = vq_gguf_tokenizer_check(g, err);
	if (rc == VQ_OK)
		rc = read_shape(m, &s, err);
	if (rc < 0)
		return rc;
	o = json_pack(
		"{s:s, s:[s], s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:f, s:b, s:b, s:b}",
		"model_type", "llama", "architectures", "LlamaForCausalLM", "hidden_size",
		(json_int_t)s.hidden, "intermediate_size", (json_int_t)s.inter, "num_hidden_layers",
		(json_int_t)s.n_layers, "num_attention_heads", (json_int_t)s.n_heads,
		"num_key_value_heads", (json_int_t)s.n_kv, "head_dim", (json_int_t)s.head_dim,
		"vocab_size", (json_int_t)s.vocab, "max_position_embeddings", (json_int_t)s.length,
		"rms_norm_eps", s.eps, "rope_theta", s.theta, "tie_word_embeddings",
		!vq_gguf_model_find(m, "output.weight"), "attention_bias",
		vq_gguf_model_find(m, "blk.0.attn_q.bias") != NULL, "mlp_bias",
		vq_gguf_model_find(m, "blk.0.ffn_up.bias") != NULL);
	if (!o)
		return vq_fail(err, VQ_E_SYS, "memory: cannot have a configuration");
	rc = put_token(o, "bos_token_id", g, "tokenizer.ggml.bos_token_id", err);
	if (rc == VQ_OK)
		rc = put_token(o, "eos_token_id", g, "tokenizer.ggml.eos_token_id", err);
	if (rc == VQ_OK)
		rc = put_token(o, "pad_token_id", g, "tokenizer.ggml.padding_token_id", err);
	if (rc < 0)
		json_decref(o);
	else
		*out = o;
	return rc;
}

/* --- tensors --- */

/* Factors of the rotary frequencies: none where all are 1. */
static int skip_factors(const struct vq_gguf_entry *e, struct vq_err *err)
{
	const struct vq_gguf_tensor_info *t = e->from;
	size_t i, n = t->bytes / sizeof(float);
	float v = 1;

	for (i = 0; t->type == VQ_GGML_F32 && v == 1.0f && i < n; i++)
		memcpy(&v, t->data + i * sizeof(v), sizeof(v));
	if (t->type == VQ_GGML_F32 && v == 1.0f)
		return 0;
	return vq_gguf_refuse_tensor(e, "scaled rotary embedding (as Llama 3.1's) is not supported",
				     err);
}

static int name(struct vq_gguf_entry *e, const struct vq_gguf_model *m, struct vq_err *err)
{
	const struct vq_gguf_file *g = &m->shards[0].file;
	const char *from = e->from->name, *leaf;
	uint32_t layer = 0, n = 0;
	char ours[64];
	int rc;

	if (strcmp(from, "rope_freqs.weight") == 0)
		return skip_factors(e, err);
	if (vq_gguf_translate(tops, from, e->name, sizeof(e->name)))
		return 1;
	leaf = vq_gguf_layer(from, "blk.", &layer);
	if (!leaf || !vq_gguf_translate(leaves, leaf, ours, sizeof(ours)))
		return vq_gguf_refuse_tensor(
			e, "no part of a LLaMA model; its kind is not supported", err);
	rc = vq_gguf_need_u32(g, "llama.block_count", 1, MAX_LAYERS, &n, err);
	if (rc == VQ_OK && layer >= n)
		return vq_gguf_refuse_tensor(e, "a layer beyond 'llama.block_count'", err);
	if (rc == VQ_OK && strncmp(leaf, "attn_q.", 7) == 0)
		rc = vq_gguf_need_u32(g, "llama.attention.head_count", 1, MAX_HEADS, &e->heads,
				      err);
	if (rc == VQ_OK && strncmp(leaf, "attn_k.", 7) == 0) {
		rc = vq_gguf_get_u32(g, "llama.attention.head_count_kv", 1, MAX_HEADS, &e->heads,
				     err);
		if (rc == 0)
			rc = vq_gguf_need_u32(g, "llama.attention.head_count", 1, MAX_HEADS,
					      &e->heads, err);
	}
	if (rc < 0)
		return rc;
	snprintf(e->name, sizeof(e->name), "model.layers.%u.%s", layer, ours);
	return 1;
}

static int file(const struct vq_gguf_model *m, const char *wanted, char **data, size_t *n,
		struct vq_err *err)
{
	return vq_gguf_tokenizer_file(&m->shards[0].file, wanted, data, n, err);
}

const struct vq_gguf_arch vq_gguf_llama = {"llama", config, name, file};
