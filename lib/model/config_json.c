/* The canonical form of a configuration, as it rides in streams and packed models. */
#include "model/config.h"

#include <stdio.h>
#include <string.h>

#include "model/config_limits.h"
#include "model/config_moe.h"
#include "model/field.h"

#define U32(s, k, m, lo, hi)                                               \
	{                                                                  \
		k, VQ_FIELD_U32, offsetof(s, m), lo, hi, VQ_REQUIRED, NULL \
	}
#define I32(s, k, m, lo, hi)                                               \
	{                                                                  \
		k, VQ_FIELD_I32, offsetof(s, m), lo, hi, VQ_REQUIRED, NULL \
	}
#define F32(s, k, m, lo, hi)                                               \
	{                                                                  \
		k, VQ_FIELD_F32, offsetof(s, m), lo, hi, VQ_REQUIRED, NULL \
	}
#define BOOL(s, k, m)                                                     \
	{                                                                 \
		k, VQ_FIELD_BOOL, offsetof(s, m), 0, 0, VQ_REQUIRED, NULL \
	}
#define WORD(s, k, m, w)                                               \
	{                                                              \
		k, VQ_FIELD_WORD, offsetof(s, m), 0, 0, VQ_REQUIRED, w \
	}
/* Of models that came later: absent where it is 0. */
#define LATER_U32(s, k, m, hi)                                  \
	{                                                       \
		k, VQ_FIELD_U32, offsetof(s, m), 0, hi, 0, NULL \
	}
#define LATER_BOOL(s, k, m)                                     \
	{                                                       \
		k, VQ_FIELD_BOOL, offsetof(s, m), 0, 0, 0, NULL \
	}
#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static const struct vq_word norms[] = {{"layer", VQ_NORM_LAYER}, {"rms", VQ_NORM_RMS}, {0}};
static const struct vq_word acts[] = {{"silu", VQ_ACT_SILU},
				      {"quick_gelu", VQ_ACT_QUICK_GELU},
				      {"gelu", VQ_ACT_GELU_ERF},
				      {"gelu_tanh", VQ_ACT_GELU_TANH},
				      {0}};

#define L struct vq_layer_config
static const struct vq_field layer_fields[] = {
	U32(L, "hidden", hidden, 1, VQ_LIMIT_DIM),
	U32(L, "inter", inter, 1, VQ_LIMIT_DIM),
	U32(L, "n_heads", n_heads, 1, VQ_LIMIT_HEADS),
	U32(L, "n_kv_heads", n_kv_heads, 1, VQ_LIMIT_HEADS),
	U32(L, "head_dim", head_dim, 1, VQ_LIMIT_HEAD_DIM),
	WORD(L, "norm", norm, norms),
	F32(L, "eps", eps, VQ_LIMIT_EPS_LO, 1),
	WORD(L, "act", act, acts),
	BOOL(L, "gated", gated),
	BOOL(L, "causal", causal),
	BOOL(L, "qkv_bias", qkv_bias),
	BOOL(L, "o_bias", o_bias),
	BOOL(L, "mlp_bias", mlp_bias),
	F32(L, "rope_theta", rope_theta, 0, VQ_LIMIT_THETA),
	LATER_U32(L, "rotary_dim", rotary_dim, VQ_LIMIT_HEAD_DIM),
	LATER_BOOL(L, "parallel", parallel),
};
#undef L

#define V struct vq_vision_config
static const struct vq_field vision_fields[] = {
	U32(V, "n_layers", n_layers, 1, VQ_LIMIT_LAYERS),
	U32(V, "image_size", image_size, 1, VQ_LIMIT_IMAGE),
	U32(V, "patch_size", patch_size, 1, VQ_LIMIT_IMAGE),
	BOOL(V, "has_class", has_class),
	BOOL(V, "pre_norm", pre_norm),
	BOOL(V, "keep_class", keep_class),
	LATER_BOOL(V, "patch_bias", patch_bias),
	LATER_BOOL(V, "post_norm", post_norm),
};
#undef V

#define P struct vq_projector_config
static const struct vq_field projector_fields[] = {
	U32(P, "n_linears", n_linears, 1, 2),
	U32(P, "in", in, 1, VQ_LIMIT_DIM),
	U32(P, "out", out, 1, VQ_LIMIT_DIM),
	WORD(P, "act", act, acts),
	BOOL(P, "bias", bias),
	LATER_U32(P, "shuffle", shuffle, VQ_LIMIT_SHUFFLE),
};
#undef P

#define D struct vq_decoder_config
static const struct vq_field decoder_fields[] = {
	U32(D, "n_layers", n_layers, 1, VQ_LIMIT_LAYERS),
	U32(D, "vocab", vocab, 1, VQ_LIMIT_VOCAB),
	U32(D, "max_position", max_position, 1, VQ_LIMIT_POSITION),
	BOOL(D, "tied", tied),
	LATER_BOOL(D, "head_bias", head_bias),
};
#undef D

#define C struct vq_config
static const struct vq_field config_fields[] = {
	I32(C, "image_token", image_token, -1, VQ_LIMIT_VOCAB),
	I32(C, "bos", bos, -1, VQ_LIMIT_VOCAB),
	I32(C, "eos", eos, -1, VQ_LIMIT_VOCAB),
	I32(C, "pad", pad, -1, VQ_LIMIT_VOCAB),
	U32(C, "n_image_tokens", n_image_tokens, 0, VQ_LIMIT_DIM),
};
#undef C

/* Models without a later switch keep the bytes that they had before it. */
static void leave_out_later(json_t *o, const struct vq_field *f, size_t n)
{
	size_t i;

	for (i = 0; i < n; i++) {
		const json_t *v = json_object_get(o, f[i].key);

		if (f[i].dflt == 0 &&
		    (json_is_false(v) || (json_is_integer(v) && !json_integer_value(v))))
			json_object_del(o, f[i].key);
	}
}

/* o[key] = an object with the fields of base, and of its layer when there is one. */
static int write_part(json_t *o, const char *key, const struct vq_field *f, size_t n,
		      const void *base, const struct vq_layer_config *layer, struct vq_err *err)
{
	json_t *part = json_object(), *l = layer ? json_object() : NULL;
	int rc = vq_fields_write(f, n, base, part, err);

	leave_out_later(part, f, n);

	if (rc == VQ_OK && layer) {
		rc = vq_fields_write(layer_fields, COUNT(layer_fields), layer, l, err);
		leave_out_later(l, layer_fields, COUNT(layer_fields));
		json_object_set(part, "layer", l);
	}
	if (rc == VQ_OK)
		json_object_set(o, key, part);
	json_decref(l);
	json_decref(part);
	return rc;
}

json_t *vq_config_json(const struct vq_config *c, struct vq_err *err)
{
	json_t *o = json_object(), *pre;
	int rc = vq_fields_write(config_fields, COUNT(config_fields), c, o, err);

	if (rc == VQ_OK)
		rc = write_part(o, "decoder", decoder_fields, COUNT(decoder_fields), &c->decoder,
				&c->decoder.layer, err);
	if (rc == VQ_OK && c->decoder.moe.top_k)
		rc = vq_moe_write(&c->decoder, json_object_get(o, "decoder"), err);
	if (rc == VQ_OK && c->has_vision)
		rc = write_part(o, "vision", vision_fields, COUNT(vision_fields), &c->vision,
				&c->vision.layer, err);
	if (rc == VQ_OK && c->has_vision)
		rc = write_part(o, "projector", projector_fields, COUNT(projector_fields),
				&c->projector, NULL, err);
	if (rc == VQ_OK && c->has_vision) {
		pre = vq_preproc_json(&c->preproc);
		if (!pre)
			rc = vq_fail(err, VQ_E_SYS, "memory: cannot write 'preproc'");
		else
			json_object_set_new(o, "preproc", pre);
	}
	if (rc < 0) {
		json_decref(o);
		return NULL;
	}
	if (c->image_marks)
		json_object_set_new(o, "image_marks", json_true());
	json_object_set_new(o, "arch", json_string(c->arch));
	json_object_set_new(o, "chat", json_string(c->chat->name));
	return o;
}

static int read_part(const json_t *o, const char *key, const struct vq_field *f, size_t n,
		     void *base, struct vq_layer_config *layer, const char *label,
		     struct vq_err *err)
{
	const json_t *part = json_object_get(o, key), *l = json_object_get(part, "layer");
	char where[256];
	int rc;

	if (!json_is_object(part))
		return vq_field_refuse(label, key, "an object", part, err);
	snprintf(where, sizeof(where), "%s: %s", label, key);
	if (layer && !json_is_object(l))
		return vq_field_refuse(where, "layer", "an object", l, err);
	rc = vq_fields_read(f, n, base, part, where, err);
	if (rc == VQ_OK && layer)
		rc = vq_fields_read(layer_fields, COUNT(layer_fields), layer, l, where, err);
	return rc;
}

static int read_vision(struct vq_config *c, const json_t *j, const char *label, struct vq_err *err)
{
	const json_t *pre = json_object_get(j, "preproc");
	int rc = read_part(j, "vision", vision_fields, COUNT(vision_fields), &c->vision,
			   &c->vision.layer, label, err);

	if (rc == VQ_OK)
		rc = read_part(j, "projector", projector_fields, COUNT(projector_fields),
			       &c->projector, NULL, label, err);
	if (rc == VQ_OK && !json_is_object(pre))
		rc = vq_field_refuse(label, "preproc", "an object", pre, err);
	if (rc == VQ_OK)
		rc = vq_preproc_parse(&c->preproc, pre, c->vision.image_size, label, err);
	return rc;
}

int vq_config_parse(struct vq_config *out, const json_t *j, const char *label, struct vq_err *err)
{
	struct vq_config c;
	const json_t *arch = json_object_get(j, "arch"), *chat = json_object_get(j, "chat");
	int rc;

	memset(&c, 0, sizeof(c));
	if (!json_is_string(arch) || vq_config_arch(&c, json_string_value(arch)) < 0)
		return vq_field_refuse(label, "arch",
				       "llama, stablelm, phi or qwen, or llava, llava_stablelm, "
				       "llava_phi, llava_qwen or idefics3",
				       arch, err);
	c.chat = json_is_string(chat) ? vq_chat_by_name(json_string_value(chat)) : NULL;
	if (!c.chat)
		return vq_field_refuse(label, "chat", vq_chat_names(), chat, err);
	rc = vq_fields_read(config_fields, COUNT(config_fields), &c, j, label, err);
	if (rc == VQ_OK)
		rc = vq_json_bool(j, "image_marks", 0, &c.image_marks, label, err);
	if (rc == VQ_OK)
		rc = read_part(j, "decoder", decoder_fields, COUNT(decoder_fields), &c.decoder,
			       &c.decoder.layer, label, err);
	if (rc == VQ_OK)
		rc = vq_moe_parse(&c.decoder, json_object_get(j, "decoder"), label, err);
	if (rc == VQ_OK && c.has_vision)
		rc = read_vision(&c, j, label, err);
	if (rc == VQ_OK)
		rc = vq_config_check(&c, label, err);
	if (rc == VQ_OK)
		*out = c;
	return rc;
}
