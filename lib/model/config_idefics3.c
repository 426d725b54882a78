/* Idefics3's layout, which SmolVLM has: a SigLIP tower, squares of patches side by side through one linear without bias, a
 * LLaMA decoder.  Absent keys have the defaults of transformers' Idefics3Config and Idefics3VisionConfig. */
#include <stdio.h>
#include <string.h>

#include "model/config_limits.h"
#include "model/config_parts.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

struct siglip {
	struct vq_vision_config v;
	uint32_t channels;
};

#define V(m) offsetof(struct siglip, m)
static const struct vq_field vision_fields[] = {
	{"hidden_size", VQ_FIELD_U32, V(v.layer.hidden), 1, VQ_LIMIT_DIM, 1152, NULL},
	{"intermediate_size", VQ_FIELD_U32, V(v.layer.inter), 1, VQ_LIMIT_DIM, 3072, NULL},
	{"num_hidden_layers", VQ_FIELD_U32, V(v.n_layers), 1, VQ_LIMIT_LAYERS, 12, NULL},
	{"num_attention_heads", VQ_FIELD_U32, V(v.layer.n_heads), 1, VQ_LIMIT_HEADS, 16, NULL},
	{"image_size", VQ_FIELD_U32, V(v.image_size), 1, VQ_LIMIT_IMAGE, 224, NULL},
	{"patch_size", VQ_FIELD_U32, V(v.patch_size), 1, VQ_LIMIT_IMAGE, 32, NULL},
	{"num_channels", VQ_FIELD_U32, V(channels), 3, 3, 3, NULL},
	{"layer_norm_eps", VQ_FIELD_F32, V(v.layer.eps), VQ_LIMIT_EPS_LO, 1, 1e-6, NULL},
	{"hidden_act", VQ_FIELD_WORD, V(v.layer.act), 0, 0, VQ_ACT_GELU_TANH, vq_parts_acts},
};
#undef V

static int vision_from(struct vq_config *c, const json_t *o, const char *label, struct vq_err *err)
{
	struct siglip s;
	struct vq_layer_config *l = &s.v.layer;
	int rc;

	memset(&s, 0, sizeof(s));
	rc = vq_fields_read(vision_fields, COUNT(vision_fields), &s, o, label, err);
	if (rc == VQ_OK)
		rc = vq_parts_dtype(o, label, err);
	if (rc == VQ_OK)
		rc = vq_parts_heads(l, label, err);
	if (rc < 0)
		return rc;
	if (s.v.patch_size > s.v.image_size)
		return vq_fail(err, VQ_E_DATA,
			       "%s: want patches smaller than the picture, got %u in %u pixels",
			       label, s.v.patch_size, s.v.image_size);
	l->norm = VQ_NORM_LAYER;
	l->qkv_bias = l->o_bias = l->mlp_bias = 1;
	s.v.patch_bias = s.v.post_norm = 1;
	c->vision = s.v;
	return VQ_OK;
}

/* The connector, and what it makes of a tile. */
static int connector_from(struct vq_config *c, const json_t *top, const char *label,
			  struct vq_err *err)
{
	const struct vq_field scale = {
		"scale_factor", VQ_FIELD_U32, 0, 1, VQ_LIMIT_SHUFFLE, 2, NULL};
	const struct vq_field token = {"image_token_id", VQ_FIELD_I32, 0,   0,
				       VQ_LIMIT_VOCAB,   128257,       NULL};
	uint32_t side = c->vision.image_size / c->vision.patch_size, s;
	uint64_t in;
	int rc = vq_fields_read(&scale, 1, &s, top, label, err);

	if (rc == VQ_OK)
		rc = vq_fields_read(&token, 1, &c->image_token, top, label, err);
	if (rc < 0)
		return rc;
	in = (uint64_t)c->vision.layer.hidden * s * s;
	if (side % s != 0 || in > VQ_LIMIT_DIM)
		return vq_fail(
			err, VQ_E_DATA,
			"%s: 'scale_factor': want one whose squares tile %u x %u patches and "
			"make at most %u inputs, got %u",
			label, side, side, VQ_LIMIT_DIM, s);
	c->projector = (struct vq_projector_config){.n_linears = 1,
						    .in = (uint32_t)in,
						    .out = c->decoder.layer.hidden,
						    .act = VQ_ACT_GELU_ERF, /* there is none */
						    .shuffle = s};
	c->n_image_tokens = side / s * (side / s);
	return VQ_OK;
}

/* A nested configuration: an object whose model_type, if it has one, begins with one of two words. */
static int nested(const json_t **out, const json_t *top, const char *key, const char *a,
		  const char *b, const char *label, struct vq_err *err)
{
	const json_t *o = json_object_get(top, key), *v = json_object_get(o, "model_type");
	const char *type = json_string_value(v);
	char where[560], want[64];

	if (!json_is_object(o))
		return vq_field_refuse(label, key, "an object", o, err);
	snprintf(where, sizeof(where), "%s: %s", label, key);
	snprintf(want, sizeof(want), "%s%s%s", a, *b ? " or " : "", b);
	if (v && (!type ||
		  (strncmp(type, a, strlen(a)) != 0 && (!*b || strncmp(type, b, strlen(b)) != 0))))
		return vq_field_refuse(where, "model_type", want, v, err);
	*out = o;
	return VQ_OK;
}

/* Parts that some Idefics have, and that nothing here computes. */
static int refuse_extras(const json_t *text, const char *label, struct vq_err *err)
{
	static const char *const keys[] = {"use_resampler", "qk_layer_norms", "rope_interleaved"};
	size_t i;

	for (i = 0; i < COUNT(keys); i++)
		if (json_is_true(json_object_get(text, keys[i])))
			return vq_field_refuse(label, keys[i], "false",
					       json_object_get(text, keys[i]), err);
	return VQ_OK;
}

int vq_config_idefics3(struct vq_config *c, const struct vq_side *s, const char *template_name,
		       struct vq_err *err)
{
	char label[512], text_label[528], vision_label[528];
	const json_t *text = NULL, *vision = NULL, *top = s->config;
	int rc;

	snprintf(label, sizeof(label), "%s/config.json", vq_ckpt_path(s->k));
	snprintf(text_label, sizeof(text_label), "%s: text_config", label);
	snprintf(vision_label, sizeof(vision_label), "%s: vision_config", label);
	rc = vq_parts_dtype(top, label, err);
	if (rc == VQ_OK)
		rc = nested(&text, top, "text_config", "llama", "", label, err);
	if (rc == VQ_OK)
		rc = nested(&vision, top, "vision_config", "idefics3", "smolvlm", label, err);
	if (rc == VQ_OK)
		rc = refuse_extras(text, text_label, err);
	if (rc == VQ_OK)
		rc = vq_parts_decoder(c, text, text_label, err);
	if (rc == VQ_OK)
		rc = vision_from(c, vision, vision_label, err);
	if (rc == VQ_OK)
		rc = connector_from(c, top, label, err);
	if (rc == VQ_OK)
		rc = vq_side_preproc(c, s->k, NULL, err);
	if (rc == VQ_OK && !c->preproc.tiled)
		rc = vq_fail(err, VQ_E_DATA,
			     "%s/preprocessor_config.json: want an Idefics3 or SmolVLM image "
			     "processor for this model",
			     vq_ckpt_path(s->k));
	if (rc == VQ_OK)
		rc = vq_parts_tied(c, s, text, text_label, err);
	if (rc == VQ_OK)
		rc = vq_side_token(s, text, "bos", -1, &c->bos, err);
	if (rc == VQ_OK)
		rc = vq_side_token(s, text, "eos", -1, &c->eos, err);
	if (rc == VQ_OK)
		rc = vq_side_token(s, text, "pad", -1, &c->pad, err);
	if (rc == VQ_OK)
		rc = vq_side_chat(c, s, template_name, "smolvlm", err);
	return rc < 0 ? rc : vq_config_check(c, label, err);
}
