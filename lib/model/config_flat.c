/* The layout of the LLaVA authors (LlavaLlamaForCausalLM, versions 1.0 to 1.5):
 * a flat config.json of the decoder's keys and mm_ keys, and a vision tower that comes
 * from a CLIP folder of its own, or lies in the checkpoint.  MoE-LLaVA's is the same with other names for tower and
 * projector (mm_image_tower, image_projector_type). */
#include <stdio.h>
#include <string.h>

#include "model/config_limits.h"
#include "model/config_moe.h"
#include "model/config_parts.h"
#include "model/names.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static const struct vq_word features[] = {{"patch", 0}, {"cls_patch", 1}, {0}};
static const struct vq_feature_keys feature_keys = {"mm_vision_select_layer",
						    "mm_vision_select_feature", features};

/* Version 1.6 cuts a picture into tiles, which nothing here does. */
static int refuse_tiles(const struct vq_side *s, const char *label, struct vq_err *err)
{
	static const char image_newline[] = "model.image_newline";
	static const struct {
		const char *key, *fine, *also;
	} keys[] = {{"image_aspect_ratio", "pad", "square"},
		    {"mm_patch_merge_type", "flat", NULL},
		    {"image_grid_pinpoints", NULL, NULL}};
	const char *where;
	size_t i;

	for (i = 0; i < COUNT(keys); i++) {
		const json_t *v = json_object_get(s->config, keys[i].key);
		const char *text = json_string_value(v);

		if (!v || json_is_null(v) ||
		    (text && keys[i].fine && strcmp(text, keys[i].fine) == 0) ||
		    (text && keys[i].also && strcmp(text, keys[i].also) == 0))
			continue;
		return vq_field_refuse(label, keys[i].key,
				       i == 0 ? "pad, square or nothing (LLaVA 1.6's tiles are not "
						"supported; a LLaVA 1.5 is)"
					      : "nothing (LLaVA 1.6's tiles are not supported; a "
						"LLaVA 1.5 is)",
				       v, err);
	}
	if (vq_ckpt_find(s->k, image_newline, &where))
		return vq_fail(
			err, VQ_E_DATA,
			"%s: tensor '%s': LLaVA 1.6's tiles are not supported; a LLaVA 1.5 is",
			where, image_newline);
	return VQ_OK;
}

/* --- the tower --- */

const char *vq_flat_tower_key(const json_t *config)
{
	static const char llava[] = "mm_vision_tower", moe_llava[] = "mm_image_tower";
	const json_t *v = json_object_get(config, llava);

	return (!v || json_is_null(v)) && json_object_get(config, moe_llava) ? moe_llava : llava;
}

/* Of a tensor of the tower that lies in the checkpoint; NULL when it does not.
 */
static const struct vq_tensor *inside(const struct vq_ckpt *k, const char *name, uint32_t n_dims)
{
	static const char *const towers[] = {"model.vision_tower.vision_tower.",
					     "model.image_tower.image_tower.",
					     "transformer.image_tower.image_tower."};
	char full[160];
	size_t i;

	for (i = 0; i < COUNT(towers); i++) {
		const struct vq_tensor *t;

		snprintf(full, sizeof(full), "%svision_model.%s", towers[i], name);
		t = vq_ckpt_find(k, full, NULL);
		if (t && t->n_dims == n_dims)
			return t;
	}
	return NULL;
}

/* A tower without a configuration: its shape is that of its tensors, and heads
 * are 64 wide, as in every CLIP of OpenAI's. */
static json_t *shape_of_tower(const struct vq_ckpt *k)
{
	const struct vq_tensor *patch = inside(k, "embeddings.patch_embedding.weight", 4);
	const struct vq_tensor *place = inside(k, "embeddings.position_embedding.weight", 2);
	const struct vq_tensor *fc1 = inside(k, "encoder.layers.0.mlp.fc1.weight", 2);
	uint64_t side = 1, layers = 0, rows;
	char name[64];

	if (!patch || !place || !fc1)
		return NULL;
	do
		snprintf(name, sizeof(name), "encoder.layers.%llu.mlp.fc1.weight",
			 (unsigned long long)layers++);
	while (layers <= VQ_LIMIT_LAYERS && inside(k, name, 2));
	rows = place->dims[0] < VQ_LIMIT_PATCHES ? place->dims[0] : VQ_LIMIT_PATCHES;
	while ((side + 1) * (side + 1) < rows)
		side++;
	return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I}", "hidden_size",
			 (json_int_t)patch->dims[0], "intermediate_size", (json_int_t)fc1->dims[0],
			 "num_hidden_layers", (json_int_t)(layers - 1), "num_attention_heads",
			 (json_int_t)(patch->dims[0] / 64), "image_size",
			 (json_int_t)(side * patch->dims[2]), "patch_size",
			 (json_int_t)patch->dims[2]);
}

/* CLIPConfig has the tower's inside, CLIPVisionConfig is it.  Given. */
static int tower_config(json_t **out, const struct vq_side *s, char *label, size_t room,
			struct vq_err *err)
{
	const struct vq_ckpt *part = vq_ckpt_part(s->k);
	const json_t *top = part ? vq_ckpt_config(part) : NULL;
	const char *type = top ? vq_side_str(top, "model_type") : NULL;

	if (!part) {
		snprintf(label, room, "%s/config.json: %s", vq_ckpt_path(s->k),
			 vq_flat_tower_key(s->config));
		*out = shape_of_tower(s->k);
		return *out ? VQ_OK
			    : vq_fail(err, VQ_E_DATA,
				      "%s: want a CLIP tower in the checkpoint, or its folder: "
				      "--vision DIR",
				      label);
	}
	snprintf(label, room, "%s/config.json", vq_ckpt_path(part));
	if (type && strcmp(type, "clip") == 0) {
		top = json_object_get(top, "vision_config");
		snprintf(label, room, "%s/config.json: vision_config", vq_ckpt_path(part));
	} else if (!type || strcmp(type, "clip_vision_model") != 0) {
		return vq_field_refuse(label, "model_type", "clip or clip_vision_model",
				       json_object_get(top, "model_type"), err);
	}
	if (!json_is_object(top))
		return vq_fail(err, VQ_E_DATA, "%s: want an object", label);
	*out = json_incref((json_t *)(uintptr_t)top);
	return VQ_OK;
}

static int vision(struct vq_config *c, const struct vq_side *s, const char *label,
		  struct vq_err *err)
{
	const char *name = vq_side_str(s->config, vq_flat_tower_key(s->config));
	char tower_label[512];
	json_t *tower = NULL;
	uint32_t side, width;
	int rc = tower_config(&tower, s, tower_label, sizeof(tower_label), err);

	if (rc == VQ_OK)
		rc = vq_parts_vision(c, &feature_keys, s->config, tower, tower_label, label, err);
	json_decref(tower);
	if (rc == VQ_OK)
		rc = vq_json_u32(s->config, "mm_hidden_size", c->vision.layer.hidden, &width, label,
				 err);
	if (rc < 0)
		return rc;
	if (width != c->vision.layer.hidden)
		return vq_fail(
			err, VQ_E_DATA,
			"%s: 'mm_hidden_size': want a tower of width %u, got %u (%s); give the "
			"folder of '%s' with --vision",
			label, width, c->vision.layer.hidden, tower_label,
			name ? name : "the model's tower");
	side = c->vision.image_size / c->vision.patch_size;
	c->n_image_tokens = side * side + (c->vision.keep_class ? 1 : 0);
	return VQ_OK;
}

/* --- the rest --- */

static int projector(struct vq_config *c, const struct vq_side *s, const char *label,
		     struct vq_err *err)
{
	static const struct vq_word words[] = {{"linear", 1}, {"mlp2x_gelu", 2}, {0}};
	struct vq_field type = {"mm_projector_type", VQ_FIELD_WORD, 0, 0, 0, 1, words};
	int n;

	if (!json_object_get(s->config, type.key) &&
	    json_object_get(s->config, "image_projector_type"))
		type.key = "image_projector_type";

	if (vq_fields_read(&type, 1, &n, s->config, label, err) < 0)
		return VQ_E_DATA;
	if (n == 1 && vq_names_has(s->k, "projector.1.weight"))
		return vq_fail(err, VQ_E_DATA,
			       "%s: '%s': want mlp2x_gelu, since the checkpoint has a projector of "
			       "two linears, got linear or nothing",
			       label, type.key);
	c->projector = (struct vq_projector_config){.n_linears = (uint32_t)n,
						    .in = c->vision.layer.hidden,
						    .out = c->decoder.layer.hidden,
						    .act = VQ_ACT_GELU_ERF,
						    .bias = 1};
	return VQ_OK;
}

/* The tower's preprocessing, after padding where the model wants it: without
 * the key LLaVA leaves padding out. */
static int pictures(struct vq_config *c, const struct vq_side *s, struct vq_err *err)
{
	const struct vq_ckpt *part = vq_ckpt_part(s->k);
	const char *aspect = vq_side_str(s->config, "image_aspect_ratio");

	return vq_side_preproc(c, part ? part : s->k, aspect ? aspect : "square", err);
}

/* MoE-LLaVA ends answers with the token that its tokenizer ends texts with, whatever config.json says of end tokens.  A
 * tokenizer of one file of ranks has no configuration that says which. */
static int end_token(struct vq_config *c, const struct vq_side *s, struct vq_err *err)
{
	static const int32_t known[] = {
		[VQ_FAMILY_STABLELM] = 100257, [VQ_FAMILY_PHI] = 50256, [VQ_FAMILY_QWEN] = 151643};
	int32_t id = c->family == VQ_FAMILY_LLAMA ? -1 : vq_side_named_token(s, "eos_token");

	if (id < 0 && c->family != VQ_FAMILY_LLAMA && (uint32_t)known[c->family] < c->decoder.vocab)
		id = known[c->family];
	c->eos = id;
	return id >= 0 ? VQ_OK : vq_side_token(s, s->config, "eos", 2, &c->eos, err);
}

/* "<image>" is no token of the vocabulary: its id is the first behind it. */
static int tokens(struct vq_config *c, const struct vq_side *s, const char *label,
		  struct vq_err *err)
{
	int rc = vq_json_bool(s->config, "mm_use_im_start_end", 0, &c->image_marks, label, err);

	c->image_token = (int32_t)c->decoder.vocab;
	if (rc == VQ_OK)
		rc = vq_side_token(s, s->config, "bos", 1, &c->bos, err);
	if (rc == VQ_OK)
		rc = end_token(c, s, err);
	if (rc == VQ_OK)
		rc = vq_side_token(s, s->config, "pad", -1, &c->pad, err);
	return rc;
}

/* What their evaluation scripts use: LLaVA's version 1.5 has two linears, those before it one. */
static const char *template_of(const struct vq_config *c)
{
	switch (c->family) {
	case VQ_FAMILY_STABLELM: return "stablelm";
	case VQ_FAMILY_PHI: return "phi";
	case VQ_FAMILY_QWEN: return "qwen";
	case VQ_FAMILY_LLAMA: break;
	}
	return c->projector.n_linears == 2 ? "vicuna_v1" : "llava_v1";
}

int vq_config_flat(struct vq_config *c, const struct vq_side *s, const char *template_name,
		   struct vq_err *err)
{
	char label[512];
	int rc;

	snprintf(label, sizeof(label), "%s/config.json", vq_ckpt_path(s->k));
	rc = refuse_tiles(s, label, err);
	if (rc == VQ_OK)
		rc = vq_parts_dtype(s->config, label, err);
	if (rc == VQ_OK)
		rc = vq_parts_decoder(c, s->config, label, err);
	/* Phi's head lost its bias behind MoE-LLaVA's tower. */
	if (rc == VQ_OK && c->decoder.head_bias)
		c->decoder.head_bias = vq_names_has(s->k, "decoder.head.bias");
	if (rc == VQ_OK)
		rc = vq_moe_from(&c->decoder, c->family, s->k, s->config, label, err);
	if (rc == VQ_OK)
		rc = vision(c, s, label, err);
	if (rc == VQ_OK)
		rc = projector(c, s, label, err);
	if (rc == VQ_OK)
		rc = pictures(c, s, err);
	if (rc == VQ_OK)
		rc = vq_parts_tied(c, s, s->config, label, err);
	if (rc == VQ_OK)
		rc = tokens(c, s, label, err);
	if (rc == VQ_OK)
		rc = vq_side_chat(c, s, template_name, template_of(c), err);
	return rc < 0 ? rc : vq_config_check(c, label, err);
}
