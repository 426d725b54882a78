/* GGUF files of the architecture clip: a CLIP tower and LLaVA's projector ("mmproj"), in the words of the LLaVA authors'
 * layout.  The language model's file has the rest. */
#include <dirent.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/num.h"
#include "format/ckpt_gguf.h"

#define MAX_DIM    (1u << 20)
#define MAX_LAYERS 1024u
#define MAX_HEADS  4096u
#define MAX_IMAGE  8192u

/* CLIP-L, the tower of every LLaVA: published files have all of its layers, or one fewer. */
#define CLIP_L_WIDTH  1024u
#define CLIP_L_LAYERS 24u

static const struct vq_gguf_pair tops[] = {
	{"v.class_embd", "vision_model.embeddings.class_embedding"},
	{"v.patch_embd", "vision_model.embeddings.patch_embedding"},
	{"v.position_embd", "vision_model.embeddings.position_embedding"},
	{"v.pre_ln", "vision_model.pre_layrnorm"}, /* sic */
	{0},
};
static const struct vq_gguf_pair leaves[] = {
	{"attn_q", "self_attn.q_proj"},
	{"attn_k", "self_attn.k_proj"},
	{"attn_v", "self_attn.v_proj"},
	{"attn_out", "self_attn.out_proj"},
	{"ln1", "layer_norm1"},
	{"ln2", "layer_norm2"},
	{"ffn_up", "mlp.fc1"},
	{"ffn_down", "mlp.fc2"},
	{0},
};
static const struct vq_gguf_pair two[] = {
	{"mm.0", "model.mm_projector.0"}, {"mm.2", "model.mm_projector.2"}, {0}};
static const struct vq_gguf_pair one[] = {{"mm.0", "model.mm_projector"}, {0}};

static int has_two(const struct vq_gguf_model *m)
{
	return vq_gguf_model_find(m, "mm.2.weight") != NULL;
}

/* --- keys --- */

/* Mean or deviation of the pictures; none where it is CLIP's, whose decimals float32 has cut. */
static int put_colours(json_t *o, const char *ours, const struct vq_gguf_file *g, const char *name,
		       const double *clip, struct vq_err *err)
{
	const struct vq_gguf_key *k = NULL;
	json_t *list;
	float v[3];
	int i, same = 1, rc = vq_gguf_get_array(g, name, VQ_GGUF_F32, &k, err);

	if (rc <= 0)
		return rc;
	if (k->n != 3)
		return vq_fail(err, VQ_E_DATA, "%s: key '%s': want 3 numbers, got %llu", g->path,
			       name, (unsigned long long)k->n);
	memcpy(v, k->p, sizeof(v));
	for (i = 0; i < 3; i++)
		same &= v[i] == (float)clip[i];
	if (same)
		return VQ_OK;
	list = json_pack("[f, f, f]", (double)v[0], (double)v[1], (double)v[2]);
	if (!list || json_object_set_new(o, ours, list) < 0)
		return vq_fail(err, VQ_E_DATA, "%s: key '%s': want finite numbers", g->path, name);
	return VQ_OK;
}

static int pictures(json_t **out, const struct vq_gguf_model *m, struct vq_err *err)
{
	static const double mean[3] = {0.48145466, 0.4578275, 0.40821073};
	static const double std[3] = {0.26862954, 0.26130258, 0.27577711};
	const struct vq_gguf_file *g = &m->shards[0].file;
	uint32_t s = 0;
	int rc = vq_gguf_need_u32(g, "clip.vision.image_size", 1, MAX_IMAGE, &s, err);

	if (rc < 0)
		return rc;
	*out = json_pack("{s:s, s:b, s:b, s:{s:I}, s:{s:I, s:I}}", "image_processor_type",
			 "CLIPImageProcessor", "do_resize", 1, "do_center_crop", 1, "size",
			 "shortest_edge", (json_int_t)s, "crop_size", "height", (json_int_t)s,
			 "width", (json_int_t)s);
	if (!*out)
		return vq_fail(err, VQ_E_SYS, "memory: cannot have a configuration");
	rc = put_colours(*out, "image_mean", g, "clip.vision.image_mean", mean, err);
	if (rc >= 0)
		rc = put_colours(*out, "image_std", g, "clip.vision.image_std", std, err);
	return rc < 0 ? rc : VQ_OK;
}

/* How many layers run.  Without a key the last that is there gives the features, but for a whole CLIP-L: LLaVA takes
 * its last but one. */
static int feature_layer(const struct vq_gguf_file *g, uint32_t width, uint32_t layers,
			 uint32_t *out, struct vq_err *err)
{
	static const char name[] = "clip.vision.feature_layer";
	const struct vq_gguf_key *k = vq_gguf_find(g, name);
	uint32_t item = k && k->item == VQ_GGUF_U32 ? VQ_GGUF_U32 : VQ_GGUF_I32;
	int32_t v = 0;
	int rc = vq_gguf_get_array(g, name, item, &k, err);

	*out = layers - (width == CLIP_L_WIDTH && layers == CLIP_L_LAYERS);
	if (rc <= 0)
		return rc;
	if (k->n == 1)
		memcpy(&v, k->p, sizeof(v));
	if (v < 1 || (uint32_t)v > layers)
		return vq_fail(err, VQ_E_DATA, "%s: key '%s': want one layer of 1..%u, got %s",
			       g->path, name, layers, k->n == 1 ? "another number" : "several");
	*out = (uint32_t)v;
	return VQ_OK;
}

/* What makes it another model than LLaVA 1.0 to 1.5. */
static int refuse_others(const struct vq_gguf_file *g, struct vq_err *err)
{
	static const struct {
		const char *key, *fine, *also, *why;
	} texts[] = {
		{"clip.projector_type", "mlp", "mlp", "want mlp (LLaVA 1.5)"},
		{"clip.vision.projector_type", "mlp", "mlp", "want mlp (LLaVA 1.5)"},
		{"clip.vision.mm_patch_merge_type", "flat", "flat",
		 "want flat (LLaVA 1.6's tiles are not supported)"},
		{"clip.vision.image_aspect_ratio", "pad", "square",
		 "want pad or square (LLaVA 1.6's tiles are not supported)"},
	};
	static const char grid[] = "clip.vision.image_grid_pinpoints",
			  eyes[] = "clip.has_vision_encoder";
	const struct vq_gguf_key *k = vq_gguf_find(g, grid);
	char *text;
	size_t i;
	int sees = 1, rc = vq_gguf_get_bool(g, eyes, &sees, err);

	if (rc >= 0 && !sees)
		rc = vq_fail(err, VQ_E_DATA, "%s: key '%s': want true", g->path, eyes);
	if (rc >= 0 && k && !(k->type == VQ_GGUF_ARRAY && k->n == 0))
		rc = vq_fail(err, VQ_E_DATA,
			     "%s: key '%s': LLaVA 1.6's tiles are not supported; a LLaVA 1.5 is",
			     g->path, grid);
	for (i = 0; rc >= 0 && i < sizeof(texts) / sizeof(texts[0]); i++) {
		text = NULL;
		rc = vq_gguf_get_text(g, texts[i].key, &text, err);
		if (rc > 0 && strcmp(text, texts[i].fine) != 0 && strcmp(text, texts[i].also) != 0)
			rc = vq_fail(err, VQ_E_DATA, "%s: key '%s': %s, got '%.32s'", g->path,
				     texts[i].key, texts[i].why, text);
		vq_free(text);
	}
	return rc < 0 ? rc : VQ_OK;
}

static const char *act(const struct vq_gguf_file *g, int *rc, struct vq_err *err)
{
	int gelu = 0, silu = 0;

	*rc = vq_gguf_get_bool(g, "clip.use_gelu", &gelu, err);
	if (*rc >= 0)
		*rc = vq_gguf_get_bool(g, "clip.use_silu", &silu, err);
	return gelu ? "gelu" : silu ? "silu" : "quick_gelu";
}

/* The engine pads pictures; vqlm-export says where a model does otherwise. */
static int aspect(const struct vq_gguf_file *g, const char **out, struct vq_err *err)
{
	char *text = NULL;
	int rc = vq_gguf_get_text(g, "vqlm.aspect", &text, err);

	*out = rc > 0 && strcmp(text, "crop") == 0 ? "square" : "pad";
	vq_free(text);
	return rc < 0 ? rc : VQ_OK;
}

/* CLIPVisionConfig, with what the language model's configuration says of it under "llava". */
static int config(json_t **out, const struct vq_gguf_model *m, struct vq_err *err)
{
	const struct vq_gguf_file *g = &m->shards[0].file;
	uint32_t width = 0, inter = 0, heads = 0, layers = 0, size = 0, patch = 0, run = 0;
	const char *fn, *shape = "pad";
	double eps = 0;
	int rc = refuse_others(g, err);

	if (rc >= 0)
		rc = vq_gguf_need_u32(g, "clip.vision.embedding_length", 1, MAX_DIM, &width, err);
	if (rc >= 0)
		rc = vq_gguf_need_u32(g, "clip.vision.feed_forward_length", 1, MAX_DIM, &inter,
				      err);
	if (rc >= 0)
		rc = vq_gguf_need_u32(g, "clip.vision.attention.head_count", 1, MAX_HEADS, &heads,
				      err);
	if (rc >= 0)
		rc = vq_gguf_need_u32(g, "clip.vision.block_count", 1, MAX_LAYERS, &layers, err);
	if (rc >= 0)
		rc = vq_gguf_need_u32(g, "clip.vision.image_size", 1, MAX_IMAGE, &size, err);
	if (rc >= 0)
		rc = vq_gguf_need_u32(g, "clip.vision.patch_size", 1, MAX_IMAGE, &patch, err);
	if (rc >= 0)
		rc = vq_gguf_need_f64(g, "clip.vision.attention.layer_norm_epsilon", &eps, err);
	if (rc >= 0)
		rc = feature_layer(g, width, layers, &run, err);
	if (rc >= 0)
		rc = aspect(g, &shape, err);
	if (rc < 0)
		return rc;
	fn = act(g, &rc, err);
	if (rc < 0)
		return rc;
	*out = json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:s, s:{s:s, s:[s], s:s, s:I, "
			 "s:s, s:s, s:I, s:s}}",
			 "model_type", "clip_vision_model", "hidden_size", (json_int_t)width,
			 "intermediate_size", (json_int_t)inter, "num_attention_heads",
			 (json_int_t)heads, "num_hidden_layers", (json_int_t)layers, "image_size",
			 (json_int_t)size, "patch_size", (json_int_t)patch, "layer_norm_eps", eps,
			 "hidden_act", fn, "llava", "model_type", "llava", "architectures",
			 "LlavaLlamaForCausalLM", "mm_vision_tower", g->path, "mm_hidden_size",
			 (json_int_t)width, "mm_projector_type",
			 has_two(m) ? "mlp2x_gelu" : "linear", "mm_vision_select_feature", "patch",
			 "mm_vision_select_layer", (json_int_t)run, "image_aspect_ratio", shape);
	return *out ? VQ_OK : vq_fail(err, VQ_E_SYS, "memory: cannot have a configuration");
}

/* --- tensors --- */

/* The first converters took fc1 for "ffn_down" and fc2 for "ffn_up"; shapes tell. */
static int is_swapped(const struct vq_gguf_model *m, uint32_t layer)
{
	const struct vq_gguf_tensor_info *up, *down;
	char buf[64];

	snprintf(buf, sizeof(buf), "v.blk.%u.ffn_up.weight", layer);
	up = vq_gguf_model_find(m, buf);
	snprintf(buf, sizeof(buf), "v.blk.%u.ffn_down.weight", layer);
	down = vq_gguf_model_find(m, buf);
	return up && down && up->n_dims == 2 && down->n_dims == 2 && up->dims[0] < up->dims[1] &&
	       down->dims[0] > down->dims[1];
}

static int name(struct vq_gguf_entry *e, const struct vq_gguf_model *m, struct vq_err *err)
{
	const char *from = e->from->name, *leaf;
	uint32_t layer = 0, n = 0;
	char ours[64], other[64];
	int rc;

	if (vq_gguf_translate(tops, from, e->name, sizeof(e->name)) ||
	    vq_gguf_translate(has_two(m) ? two : one, from, e->name, sizeof(e->name)))
		return 1;
	leaf = vq_gguf_layer(from, "v.blk.", &layer);
	if (leaf && strncmp(leaf, "ffn_", 4) == 0 && is_swapped(m, layer)) {
		const char *dot = strrchr(leaf, '.');

		snprintf(other, sizeof(other), "%s%s",
			 strncmp(leaf, "ffn_up", 6) == 0 ? "ffn_down" : "ffn_up", dot ? dot : "");
		leaf = other;
	}
	if (!leaf || !vq_gguf_translate(leaves, leaf, ours, sizeof(ours)))
		return vq_gguf_refuse_tensor(
			e, "no part of LLaVA 1.5's tower or projector; its kind is not supported",
			err);
	rc = vq_gguf_need_u32(&m->shards[0].file, "clip.vision.block_count", 1, MAX_LAYERS, &n,
			      err);
	if (rc == VQ_OK && layer >= n)
		return vq_gguf_refuse_tensor(e, "a layer beyond 'clip.vision.block_count'", err);
	if (rc < 0)
		return rc;
	snprintf(e->name, sizeof(e->name), "vision_model.encoder.layers.%u.%s", layer, ours);
	return 1;
}

static int file(const struct vq_gguf_model *m, const char *wanted, char **data, size_t *n,
		struct vq_err *err)
{
	struct vq_str text = {0};
	json_t *o = NULL;
	int rc;

	if (strcmp(wanted, "preprocessor_config.json") != 0)
		return 0;
	rc = pictures(&o, m, err);
	if (rc == VQ_OK)
		rc = vq_json_puts(&text, o, err);
	else
		json_decref(o);
	if (rc < 0) {
		vq_str_free(&text);
		return rc;
	}
	return vq_gguf_give(&text, data, n, err);
}

const struct vq_gguf_arch vq_gguf_clip = {"clip", config, name, file};

/* --- beside the language model --- */

static int is_mmproj(const char *s)
{
	size_t n = strlen(s);

	return n > 5 && strncmp(s, "mmproj", 6) == 0 && strcmp(s + n - 5, ".gguf") == 0;
}

int vq_gguf_beside(const char *path, char **found, struct vq_err *err)
{
	char *folder = vq_path_dir(path, err), *first = NULL;
	DIR *dir = folder ? opendir(folder) : NULL;
	struct dirent *d;
	int rc = folder ? 0 : VQ_E_SYS;

	while (rc >= 0 && dir && (d = readdir(dir))) {
		if (!is_mmproj(d->d_name))
			continue;
		if (first)
			rc = vq_fail(
				err, VQ_E_DATA,
				"%s: two vision towers lie beside it, %s and %s; --vision FILE "
				"chooses one, --vision none leaves it without",
				path, strcmp(first, d->d_name) < 0 ? first : d->d_name,
				strcmp(first, d->d_name) < 0 ? d->d_name : first);
		else
			first = vq_strdup(d->d_name, err);
		if (!first)
			rc = VQ_E_SYS;
	}
	if (dir)
		closedir(dir);
	if (rc == 0 && first) {
		*found = vq_path_join(folder, first, err);
		rc = *found ? 1 : VQ_E_SYS;
	}
	vq_free(first);
	vq_free(folder);
	return rc;
}
