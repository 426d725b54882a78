/* Decoders other than LLaMA's, behind MoE-LLaVA's models among others: StableLM 2, Phi 1 to 2, and the first Qwen.
 * Absent keys have the defaults of transformers' StableLmConfig and PhiConfig, of Stability AI's StableLMEpochConfig
 * and of QWenConfig. */
#include <stdio.h>
#include <string.h>

#include "model/config_limits.h"
#include "model/config_parts.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

/* A configuration on its way to switches. */
struct family {
	struct vq_decoder_config d;
	float part; /* of a head that turns; share() reads it in double */
	int qk_norm, no_bias, ntk, logn, scaled;
	uint32_t trained; /* Qwen: positions without tricks */
};

#define F(m) offsetof(struct family, m)
#define SIZE(key, m, dflt)                                           \
	{                                                            \
		key, VQ_FIELD_U32, F(m), 1, VQ_LIMIT_DIM, dflt, NULL \
	}
#define FLAG(key, m, dflt)                                 \
	{                                                  \
		key, VQ_FIELD_BOOL, F(m), 0, 0, dflt, NULL \
	}
#define EPS(key, dflt)                                                            \
	{                                                                         \
		key, VQ_FIELD_F32, F(d.layer.eps), VQ_LIMIT_EPS_LO, 1, dflt, NULL \
	}
#define PART(key, dflt)                                      \
	{                                                    \
		key, VQ_FIELD_F32, F(part), 0, 1, dflt, NULL \
	}
#define SHAPE(vocab_size, width, middle, layers, heads, positions)                                \
	{"vocab_size", VQ_FIELD_U32, F(d.vocab), 1, VQ_LIMIT_VOCAB, vocab_size, NULL},            \
		SIZE("hidden_size", d.layer.hidden, width),                                       \
		SIZE("intermediate_size", d.layer.inter, middle),                                 \
		{"num_hidden_layers", VQ_FIELD_U32, F(d.n_layers), 1,                             \
		 VQ_LIMIT_LAYERS,     layers,       NULL},                                        \
		{"num_attention_heads",                                                           \
		 VQ_FIELD_U32,                                                                    \
		 F(d.layer.n_heads),                                                              \
		 1,                                                                               \
		 VQ_LIMIT_HEADS,                                                                  \
		 heads,                                                                           \
		 NULL},                                                                           \
	{                                                                                         \
		"max_position_embeddings", VQ_FIELD_U32, F(d.max_position), 1, VQ_LIMIT_POSITION, \
			positions, NULL                                                           \
	}
#define SPREAD(dflt)                                                                              \
	{"num_key_value_heads", VQ_FIELD_U32, F(d.layer.n_kv_heads), 1, VQ_LIMIT_HEADS, 0, NULL}, \
	{                                                                                         \
		"hidden_act", VQ_FIELD_WORD, F(d.layer.act), 0, 0, dflt, vq_parts_acts            \
	}

static const struct vq_field theta = {
	"rope_theta", VQ_FIELD_F32, F(d.layer.rope_theta), 1, VQ_LIMIT_THETA, 10000, NULL};

/* Turning numbers of a head: int(head_dim * key), as Python computes it. */
static int share(struct family *f, const json_t *o, const char *key, const char *label,
		 struct vq_err *err)
{
	struct vq_layer_config *l = &f->d.layer;
	const json_t *v = json_object_get(o, key);
	double part = v && !json_is_null(v) ? json_number_value(v) : (double)f->part;
	uint32_t n = (uint32_t)(part * l->head_dim);

	if (n < 2 || n % 2 != 0)
		return vq_fail(err, VQ_E_DATA,
			       "%s: '%s': want an even number of each head's %u numbers to turn, "
			       "got %g of them, which is %u",
			       label, key, l->head_dim, part, n);
	l->rotary_dim = n < l->head_dim ? n : 0;
	return VQ_OK;
}

/* What the models have in common, after the keys. */
static int settle(struct family *f, const json_t *o, const char *key, const char *label,
		  struct vq_err *err)
{
	struct vq_layer_config *l = &f->d.layer;
	int rc = vq_parts_heads(l, label, err);

	if (rc < 0)
		return rc;
	if (f->qk_norm)
		return vq_fail(err, VQ_E_DATA,
			       "%s: 'qk_layernorm': norms of queries and keys are not supported; "
			       "want a model without them",
			       label);
	l->causal = 1;
	return share(f, o, key, label, err);
}

/* A later version of transformers keeps both numbers of the rotary embedding in an object. */
static int rotary(struct family *f, const json_t *o, const struct vq_field *part,
		  const json_t **where, const char *label, struct vq_err *err)
{
	const json_t *later = json_object_get(o, "rope_parameters");
	int rc = vq_parts_rope(o, label, err);

	*where = json_object_get(later, part->key) ? later : o;
	if (rc == VQ_OK)
		rc = vq_fields_read(part, 1, f, *where, label, err);
	if (rc == VQ_OK)
		rc = vq_fields_read(&theta, 1, f, json_object_get(later, theta.key) ? later : o,
				    label, err);
	return rc;
}

static int stablelm(struct family *f, const json_t *o, const char *label, struct vq_err *err)
{
	const char *type = json_string_value(json_object_get(o, "model_type"));
	/* Stability AI's own code, MoE-LLaVA's too, before transformers had the model */
	const int old = !json_object_get(o, "layer_norm_eps") &&
			((type && strcmp(type, "stablelm") != 0) ||
			 json_object_get(o, "norm_eps") || json_object_get(o, "rope_pct"));
	const struct vq_field part = PART(old ? "rope_pct" : "partial_rotary_factor", 0.25);
	const struct vq_field fields[] = {
		SHAPE(50304, 2560, 6912, 32, 32, 4096),
		SPREAD(VQ_ACT_SILU),
		EPS(old ? "norm_eps" : "layer_norm_eps", 1e-5),
		FLAG("use_qkv_bias", d.layer.qkv_bias, old),
		FLAG("use_parallel_residual", d.layer.parallel, 0),
		FLAG("qk_layernorm", qk_norm, 0),
	};
	const json_t *where;
	int rc = vq_fields_read(fields, COUNT(fields), f, o, label, err);

	if (rc == VQ_OK)
		rc = rotary(f, o, &part, &where, label, err);
	f->d.layer.norm = VQ_NORM_LAYER;
	f->d.layer.gated = 1;
	return rc < 0 ? rc : settle(f, where, part.key, label, err);
}

/* Microsoft's own code before transformers had the model.  Absent keys have the defaults of its PhiConfig. */
static int phi_msft(struct family *f, const json_t *o, const char *label, struct vq_err *err)
{
	static const struct vq_field fields[] = {
		{"vocab_size", VQ_FIELD_U32, F(d.vocab), 1, VQ_LIMIT_VOCAB, 50304, NULL},
		SIZE("n_embd", d.layer.hidden, 1024),
		{"n_inner", VQ_FIELD_U32, F(d.layer.inter), 1, VQ_LIMIT_DIM, 0, NULL},
		{"n_layer", VQ_FIELD_U32, F(d.n_layers), 1, VQ_LIMIT_LAYERS, 20, NULL},
		{"n_head", VQ_FIELD_U32, F(d.layer.n_heads), 1, VQ_LIMIT_HEADS, 16, NULL},
		{"n_head_kv", VQ_FIELD_U32, F(d.layer.n_kv_heads), 1, VQ_LIMIT_HEADS, 0, NULL},
		{"n_positions", VQ_FIELD_U32, F(d.max_position), 1, VQ_LIMIT_POSITION, 2048, NULL},
		{"rotary_dim", VQ_FIELD_U32, F(d.layer.rotary_dim), 2, VQ_LIMIT_HEAD_DIM, 32, NULL},
		{"activation_function", VQ_FIELD_WORD, F(d.layer.act), 0, 0, VQ_ACT_GELU_TANH,
		 vq_parts_acts},
		EPS("layer_norm_epsilon", 1e-5),
	};
	struct vq_layer_config *l = &f->d.layer;
	int rc = vq_fields_read(fields, COUNT(fields), f, o, label, err);

	if (rc == VQ_OK)
		rc = vq_parts_heads(l, label, err);
	if (rc < 0)
		return rc;
	if (l->rotary_dim % 2)
		return vq_field_refuse(label, "rotary_dim", "an even number",
				       json_object_get(o, "rotary_dim"), err);
	if (!l->inter)
		l->inter = 4 * l->hidden;
	if (l->rotary_dim >= l->head_dim)
		l->rotary_dim = 0; /* the whole head */
	l->rope_theta = 10000;
	l->causal = 1;
	return VQ_OK;
}

static int phi_keys(struct family *f, const json_t *o, const char *label, struct vq_err *err)
{
	static const struct vq_field part = PART("partial_rotary_factor", 0.5);
	static const struct vq_field fields[] = {
		SHAPE(51200, 2048, 8192, 24, 32, 2048),
		SPREAD(VQ_ACT_GELU_TANH),
		EPS("layer_norm_eps", 1e-5),
		FLAG("qk_layernorm", qk_norm, 0),
	};
	const json_t *where;
	int rc = vq_fields_read(fields, COUNT(fields), f, o, label, err);

	if (rc == VQ_OK)
		rc = rotary(f, o, &part, &where, label, err);
	return rc < 0 ? rc : settle(f, where, part.key, label, err);
}

static int phi(struct family *f, const json_t *o, const char *label, struct vq_err *err)
{
	const char *type = json_string_value(json_object_get(o, "model_type"));
	int old = type && strcmp(type, "phi-msft") == 0;
	int rc = old ? phi_msft(f, o, label, err) : phi_keys(f, o, label, err);

	f->d.layer.norm = VQ_NORM_LAYER;
	f->d.layer.parallel = 1;
	f->d.layer.qkv_bias = f->d.layer.o_bias = f->d.layer.mlp_bias = 1;
	f->d.head_bias = 1;
	return rc;
}

/* seq_length says up to where it was trained: beyond, use_dynamic_ntk turns by other angles and use_logn_attn
 * scales queries.  Neither is computed here, so a model with one of them ends there. */
static int qwen(struct family *f, const json_t *o, const char *label, struct vq_err *err)
{
	static const struct vq_field fields[] = {
		SHAPE(151936, 4096, 22016, 32, 32, 8192),
		{"kv_channels", VQ_FIELD_U32, F(d.layer.head_dim), 1, VQ_LIMIT_HEAD_DIM, 128, NULL},
		EPS("layer_norm_epsilon", 1e-6),
		PART("rotary_pct", 1),
		{"rotary_emb_base", VQ_FIELD_F32, F(d.layer.rope_theta), 1, VQ_LIMIT_THETA, 10000,
		 NULL},
		FLAG("no_bias", no_bias, 1),
		FLAG("scale_attn_weights", scaled, 1),
		FLAG("use_dynamic_ntk", ntk, 1),
		FLAG("use_logn_attn", logn, 1),
		{"seq_length", VQ_FIELD_U32, F(trained), 1, VQ_LIMIT_POSITION, 0, NULL},
	};
	struct vq_layer_config *l = &f->d.layer;
	int rc = vq_fields_read(fields, COUNT(fields), f, o, label, err);

	if (rc < 0)
		return rc;
	if (l->inter % 2 != 0)
		return vq_fail(err, VQ_E_DATA,
			       "%s: 'intermediate_size': want an even number, twice the rows of "
			       "w1, got %u",
			       label, l->inter);
	if (!f->scaled)
		return vq_field_refuse(label, "scale_attn_weights",
				       "true (attention divides by the root of the head's width)",
				       json_object_get(o, "scale_attn_weights"), err);
	if ((f->ntk || f->logn) && f->trained && f->trained < f->d.max_position)
		f->d.max_position = f->trained;
	l->inter /= 2;
	l->norm = VQ_NORM_RMS;
	l->act = VQ_ACT_SILU;
	l->gated = 1;
	l->qkv_bias = 1;
	l->o_bias = l->mlp_bias = !f->no_bias;
	return settle(f, o, "rotary_pct", label, err);
}

int vq_family_decoder(struct vq_config *c, const json_t *o, const char *label, struct vq_err *err)
{
	struct family f;
	int rc = vq_parts_dtype(o, label, err);

	memset(&f, 0, sizeof(f));
	if (rc < 0)
		return rc;
	switch (c->family) {
	case VQ_FAMILY_STABLELM: rc = stablelm(&f, o, label, err); break;
	case VQ_FAMILY_PHI: rc = phi(&f, o, label, err); break;
	case VQ_FAMILY_QWEN: rc = qwen(&f, o, label, err); break;
	case VQ_FAMILY_LLAMA: return VQ_E_DATA; /* vq_parts_decoder reads it */
	}
	if (rc == VQ_OK)
		c->decoder = f.d;
	return rc;
}
