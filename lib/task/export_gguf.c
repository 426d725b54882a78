/* Exporting: GGUF, the language model in one file, vision tower and projector in another.  Keys and names:
 * https://github.com/ggml-org/ggml, docs/gguf.md, and the loaders of llama.cpp. */
#include "task/export_gguf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "format/gguf_vocab.h"
#include "format/gguf_write.h"

#define ROWS 64u /* made at a time */

/* --- names --- */

struct pair {
	const char *ours, *theirs;
};

static const struct pair tops[] = {
	{"decoder.embed", "token_embd"},
	{"decoder.norm", "output_norm"},
	{"decoder.head", "output"},
	{"vision.class_embed", "v.class_embd"},
	{"vision.patch_embed", "v.patch_embd"},
	{"vision.position_embed", "v.position_embd.weight"},
	{"vision.pre_norm", "v.pre_ln"},
	{"projector.0", "mm.0"},
	{"projector.1", "mm.2"},
};
static const struct pair leaves[] = {
	{"norm1", "attn_norm"}, {"norm2", "ffn_norm"},     {"q_proj", "attn_q"},
	{"k_proj", "attn_k"},   {"v_proj", "attn_v"},      {"o_proj", "attn_output"},
	{"up_proj", "ffn_up"},  {"gate_proj", "ffn_gate"}, {"down_proj", "ffn_down"},
};
static const struct pair vision_leaves[] = {
	{"norm1", "ln1"},
	{"norm2", "ln2"},
	{"o_proj", "attn_out"},
};

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static const char *look_up(const struct pair *p, size_t n, const char *s, size_t len)
{
	size_t i;

	for (i = 0; i < n; i++)
		if (strlen(p[i].ours) == len && strncmp(p[i].ours, s, len) == 0)
			return p[i].theirs;
	return NULL;
}

/* PART.layers.N.LEAF.what */
static int name_layer(const char *canonical, int vision, char *buf, size_t room)
{
	const char *number = strstr(canonical, ".layers."), *leaf, *what, *theirs;
	size_t digits;

	if (!number)
		return 0;
	number += strlen(".layers.");
	digits = strspn(number, "0123456789");
	leaf = number + digits + 1;
	what = strrchr(canonical, '.');
	if (what <= leaf)
		return 0;
	theirs = vision ? look_up(vision_leaves, COUNT(vision_leaves), leaf, (size_t)(what - leaf))
			: NULL;
	if (!theirs)
		theirs = look_up(leaves, COUNT(leaves), leaf, (size_t)(what - leaf));
	if (!theirs)
		return 0;
	snprintf(buf, room, "%sblk.%.*s.%s%s", vision ? "v." : "", (int)digits, number, theirs,
		 what);
	return 1;
}

int vq_export_gguf_name(const struct vq_export *x, const char *canonical, char *buf, size_t room,
			int *vision, uint32_t *heads)
{
	const struct vq_layer_config *l = &x->config.decoder.layer;
	const char *dot = strrchr(canonical, '.'), *top;

	*vision = strncmp(canonical, "decoder.", 8) != 0;
	*heads = *vision                         ? 0
		 : strstr(canonical, ".q_proj.") ? l->n_heads
		 : strstr(canonical, ".k_proj.") ? l->n_kv_heads
						 : 0;
	if (name_layer(canonical, strncmp(canonical, "vision.", 7) == 0, buf, room))
		return VQ_OK;
	top = look_up(tops, COUNT(tops), canonical, strlen(canonical));
	if (top) {
		snprintf(buf, room, "%s", top);
		return VQ_OK;
	}
	top = look_up(tops, COUNT(tops), canonical, (size_t)(dot - canonical));
	snprintf(buf, room, "%s%s", top ? top : "", dot);
	return top ? VQ_OK : VQ_E_DATA;
}

/* --- keys --- */

/* What the language model mostly is, by llama.cpp's numbers. */
static uint32_t file_type(const struct vq_export *x, int vision)
{
	size_t i;

	for (i = 0; i < x->n; i++) {
		const struct vq_export_item *it = &x->items[i];

		if (it->as == VQ_AS_CODES && it->name->linear &&
		    (strncmp(it->name->name, "decoder.", 8) != 0) == vision)
			return it->block == VQ_GGML_Q4_0 ? 2 : it->block == VQ_GGML_Q4_1 ? 3 : 7;
	}
	return 1; /* F16 */
}

/* Where the file comes from; general.* has nothing for most of it. */
static int put_provenance(struct vq_gguf *g, const struct vq_export *x, struct vq_err *err)
{
	const json_t *calib = json_object_get(x->model, "calib");
	const json_t *model = json_object_get(x->model, "model");
	const char *name = json_string_value(json_object_get(model, "name"));
	const char *digest = json_string_value(json_object_get(calib, "data_sha256"));
	const char *own = json_string_value(json_object_get(x->v->manifest, "sha256"));
	char *text = vq_json_text(json_object_get(x->model, "history"), err);

	if (!text)
		return VQ_E_SYS;
	vq_gguf_text(g, "general.name", name ? name : "unknown");
	vq_gguf_text(g, "general.quantized_by", "vqlm");
	vq_gguf_u32(g, "general.quantization_version", 2);
	vq_gguf_text(g, "vqlm.version", VQ_VERSION);
	vq_gguf_text(g, "vqlm.model_sha256", own ? own : "");
	vq_gguf_text(g, "vqlm.calib_sha256", digest ? digest : "");
	vq_gguf_text(g, "vqlm.history", text);
	vq_free(text);
	return VQ_OK;
}

/* Of tokenizer.model, which has scores, or tokenizer.json. */
static int put_vocab(struct vq_gguf *g, const struct vq_export *x, struct vq_err *err)
{
	const struct vq_vqm_member *m = vq_vqm_find(x->v, "tokenizer.model");
	const struct vq_vqm_member *added = vq_vqm_find(x->v, "tokenizer_config.json");
	const struct vq_config *c = &x->config;
	struct vq_tokenizer *t = NULL;
	int rc;

	if (!added)
		added = vq_vqm_find(x->v, "added_tokens.json");
	if (m)
		rc = vq_tokenizer_new(&t, (const char *)m->data, m->n, x->v->label,
				      added ? (const char *)added->data : NULL,
				      added ? added->n : 0, err);
	else
		rc = vq_vqm_tokenizer(&t, x->v, err);
	if (rc == VQ_OK)
		rc = vq_gguf_vocab(g, t, c->decoder.vocab, c->bos, c->eos, c->pad, x->v->label,
				   err);
	vq_tokenizer_free(t);
	return rc;
}

static int put_template(struct vq_gguf *g, const struct vq_export *x, struct vq_err *err)
{
	const char *text = x->config.chat->tmpl;
	json_t *j = NULL;

	if (vq_vqm_find(x->v, "tokenizer_config.json")) {
		j = vq_packed_json(x->v, "tokenizer_config.json", err);
		if (!j)
			return VQ_E_DATA;
		if (json_is_string(json_object_get(j, "chat_template")))
			text = json_string_value(json_object_get(j, "chat_template"));
	}
	if (text)
		vq_gguf_text(g, "tokenizer.chat_template", text);
	json_decref(j);
	return VQ_OK;
}

static int put_text_keys(struct vq_gguf *g, const struct vq_export *x, struct vq_err *err)
{
	const struct vq_decoder_config *d = &x->config.decoder;
	const struct vq_layer_config *l = &d->layer;
	int rc;

	vq_gguf_text(g, "general.architecture", "llama");
	vq_gguf_text(g, "general.type", "model");
	vq_gguf_u32(g, "general.file_type", file_type(x, 0));
	vq_gguf_u32(g, "llama.vocab_size", d->vocab);
	vq_gguf_u32(g, "llama.context_length", d->max_position);
	vq_gguf_u32(g, "llama.embedding_length", l->hidden);
	vq_gguf_u32(g, "llama.block_count", d->n_layers);
	vq_gguf_u32(g, "llama.feed_forward_length", l->inter);
	vq_gguf_u32(g, "llama.attention.head_count", l->n_heads);
	vq_gguf_u32(g, "llama.attention.head_count_kv", l->n_kv_heads);
	vq_gguf_u32(g, "llama.attention.key_length", l->head_dim);
	vq_gguf_u32(g, "llama.attention.value_length", l->head_dim);
	vq_gguf_f32(g, "llama.attention.layer_norm_rms_epsilon", l->eps);
	vq_gguf_u32(g, "llama.rope.dimension_count", l->head_dim);
	vq_gguf_f32(g, "llama.rope.freq_base", l->rope_theta);
	rc = put_provenance(g, x, err);
	if (rc == VQ_OK)
		rc = put_vocab(g, x, err);
	return rc < 0 ? rc : put_template(g, x, err);
}

static int put_vision_keys(struct vq_gguf *g, const struct vq_export *x, struct vq_err *err)
{
	const struct vq_vision_config *v = &x->config.vision;
	const struct vq_layer_config *l = &v->layer;
	const int32_t last = (int32_t)v->n_layers;

	vq_gguf_text(g, "general.architecture", "clip");
	vq_gguf_text(g, "general.type", "mmproj");
	vq_gguf_u32(g, "general.file_type", file_type(x, 1));
	vq_gguf_bool(g, "clip.has_vision_encoder", 1);
	vq_gguf_bool(g, "clip.has_llava_projector", 1);
	vq_gguf_text(g, "clip.projector_type", "mlp");
	vq_gguf_bool(g, "clip.use_gelu", l->act == VQ_ACT_GELU_TANH || l->act == VQ_ACT_GELU_ERF);
	vq_gguf_bool(g, "clip.use_silu", l->act == VQ_ACT_SILU);
	vq_gguf_u32(g, "clip.vision.image_size", v->image_size);
	vq_gguf_u32(g, "clip.vision.patch_size", v->patch_size);
	vq_gguf_u32(g, "clip.vision.embedding_length", l->hidden);
	vq_gguf_u32(g, "clip.vision.feed_forward_length", l->inter);
	vq_gguf_u32(g, "clip.vision.projection_dim", x->config.projector.out);
	vq_gguf_u32(g, "clip.vision.block_count", v->n_layers);
	/* Without it the engine leaves out the last of the layers that there are, and the model has none too many. */
	vq_gguf_i32s(g, "clip.vision.feature_layer", &last, 1);
	vq_gguf_u32(g, "clip.vision.attention.head_count", l->n_heads);
	vq_gguf_f32(g, "clip.vision.attention.layer_norm_epsilon", l->eps);
	vq_gguf_f32s(g, "clip.vision.image_mean", x->config.preproc.mean, 3);
	vq_gguf_f32s(g, "clip.vision.image_std", x->config.preproc.std, 3);
	/* The engine pads. */
	vq_gguf_text(g, "vqlm.aspect", vq_aspect_name(x->config.preproc.aspect));
	return put_provenance(g, x, err);
}

/* --- a file --- */

struct entry {
	const struct vq_export_item *item;
	char name[96];
	uint32_t heads;
};

static int make_list(const struct vq_export *x, int vision, struct entry *list, size_t *n,
		     struct vq_gguf *g, struct vq_err *err)
{
	struct vq_export_tensor t;
	size_t i;
	int rc = VQ_OK, where;

	for (i = 0, *n = 0; rc == VQ_OK && i < x->n; i++) {
		const struct vq_export_item *it = &x->items[i];
		struct entry *e = &list[*n];

		rc = vq_export_gguf_name(x, it->name->name, e->name, sizeof(e->name), &where,
					 &e->heads);
		if (rc < 0)
			return vq_fail(err, VQ_E_DATA, "%s: '%s': has no name in GGUF", x->v->label,
				       it->name->name);
		if (where != vision)
			continue;
		rc = vq_export_open_item(&t, x, it, err);
		if (rc < 0)
			return rc;
		e->item = it;
		vq_gguf_tensor(g, e->name, vq_export_rows_type(it, t.t.dtype), it->name->n_dims,
			       it->name->dims);
		vq_export_close(&t);
		++*n;
	}
	return rc;
}

static int write_rows(struct vq_gguf *g, const struct vq_export_rows *r, uint8_t *buf, float *tmp,
		      struct vq_err *err)
{
	size_t bytes = vq_ggml_bytes(r->type, r->n_cols);
	uint32_t o, k, n;
	int rc = VQ_OK;

	for (o = 0; rc == VQ_OK && o < r->n_rows; o += n) {
		n = r->n_rows - o < ROWS ? r->n_rows - o : ROWS;
		for (k = 0; rc == VQ_OK && k < n; k++)
			rc = vq_export_rows_make(r, o + k, buf + k * bytes, tmp, err);
		if (rc == VQ_OK)
			rc = vq_gguf_data(g, buf, n * bytes, err);
	}
	return rc < 0 ? rc : vq_gguf_pad(g, err);
}

static int write_tensor(struct vq_export *x, struct vq_gguf *g, const struct entry *e,
			struct vq_err *err)
{
	struct vq_export_rows r = {0};
	struct vq_export_tensor t;
	float *tmp = vq_alloc_f32(e->item->n_in, err);
	uint8_t *buf = tmp ? vq_alloc(ROWS * sizeof(float), e->item->n_in, err) : NULL;
	int rc = buf ? vq_export_go_on(x, err) : VQ_E_SYS, opened = 0;

	if (rc == VQ_OK)
		rc = vq_export_open_item(&t, x, e->item, err);
	opened = rc == VQ_OK;

	if (opened) {
		rc = vq_export_rows_open(&r, e->item, &t, e->heads, err);
		if (rc == VQ_OK)
			rc = write_rows(g, &r, buf, tmp, err);
		vq_export_rows_close(&r);
		vq_export_close(&t);
	}
	vq_free(buf);
	vq_free(tmp);
	return rc;
}

static int write_file(struct vq_export *x, int vision, struct vq_err *err)
{
	const char *name = vision ? VQ_EXPORT_GGUF_VISION : VQ_EXPORT_GGUF_TEXT;
	char *path = vq_folder_file(&x->folder, name, err);
	struct entry *list = vq_calloc(x->n, sizeof(*list), err);
	struct vq_gguf g = {0};
	struct vq_output f;
	size_t n = 0, i;
	int rc = path && list ? VQ_OK : VQ_E_SYS, opened = 0;

	if (rc == VQ_OK)
		rc = vision ? put_vision_keys(&g, x, err) : put_text_keys(&g, x, err);
	if (rc == VQ_OK)
		rc = make_list(x, vision, list, &n, &g, err);
	if (rc == VQ_OK)
		rc = vq_output_open(&f, path, err);
	opened = rc == VQ_OK;
	if (rc == VQ_OK)
		rc = vq_gguf_head(&g, f.fd, f.label, err);
	for (i = 0; rc == VQ_OK && i < n; i++)
		rc = write_tensor(x, &g, &list[i], err);
	if (rc == VQ_OK)
		rc = vq_gguf_end(&g, err);
	if (rc == VQ_OK)
		rc = vq_output_commit(&f, err);
	else if (opened)
		vq_output_abort(&f, 0);
	vq_gguf_free(&g);
	vq_free(list);
	vq_free(path);
	return rc;
}

/* What the engine computes whatever the file says. */
static int check_shape(const struct vq_export *x, struct vq_err *err)
{
	const struct vq_config *c = &x->config;
	const char *what = NULL;

	if (c->decoder.layer.act != VQ_ACT_SILU)
		what = "a decoder with another activation than SiLU";
	else if (c->has_vision && c->vision.keep_class)
		what = "features of the class token (vision_feature_select_strategy \"full\")";
	else if (c->has_vision && c->projector.n_linears == 2 &&
		 c->projector.act != VQ_ACT_GELU_ERF && c->projector.act != VQ_ACT_GELU_TANH)
		what = "a projector with another activation than GELU";
	return what ? vq_fail(err, VQ_E_DATA,
			      "%s: gguf: engines have no place for %s; want "
			      "another --to",
			      x->v->label, what)
		    : VQ_OK;
}

int vq_export_gguf(struct vq_export *x, struct vq_err *err)
{
	int rc = check_shape(x, err);

	if (rc == VQ_OK)
		rc = write_file(x, 0, err);
	return rc == VQ_OK && x->config.has_vision ? write_file(x, 1, err) : rc;
}
