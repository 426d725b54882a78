/* Exporting: the keys of GGUF files: https://github.com/ggml-org/ggml, docs/gguf.md, and the loaders of llama.cpp. */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "format/gguf_vocab.h"
#include "task/export_gguf.h"

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

/* A key of the decoder's: "llama.block_count". */
struct key {
	char s[64];
};

static struct key key_of(const char *arch, const char *what)
{
	struct key k;

	snprintf(k.s, sizeof(k.s), "%s.%s", arch, what);
	return k;
}

static void put_u32(struct vq_gguf *g, const char *arch, const char *what, uint32_t v)
{
	vq_gguf_u32(g, key_of(arch, what).s, v);
}

int vq_export_gguf_text(struct vq_gguf *g, const struct vq_export *x, struct vq_err *err)
{
	static const char *const archs[] = {"llama", "stablelm", "phi2",
					    "qwen2"}; /* enum vq_family */
	const struct vq_decoder_config *d = &x->config.decoder;
	const struct vq_layer_config *l = &d->layer;
	const char *arch = archs[x->config.family];
	int rc;

	vq_gguf_text(g, "general.architecture", arch);
	vq_gguf_text(g, "general.type", "model");
	vq_gguf_u32(g, "general.file_type", file_type(x, 0));
	put_u32(g, arch, "vocab_size", d->vocab);
	put_u32(g, arch, "context_length", d->max_position);
	put_u32(g, arch, "embedding_length", l->hidden);
	put_u32(g, arch, "block_count", d->n_layers);
	put_u32(g, arch, "feed_forward_length", l->inter);
	put_u32(g, arch, "attention.head_count", l->n_heads);
	put_u32(g, arch, "attention.head_count_kv", l->n_kv_heads);
	put_u32(g, arch, "attention.key_length", l->head_dim);
	put_u32(g, arch, "attention.value_length", l->head_dim);
	vq_gguf_f32(g,
		    key_of(arch, l->norm == VQ_NORM_RMS ? "attention.layer_norm_rms_epsilon"
							: "attention.layer_norm_epsilon")
			    .s,
		    l->eps);
	put_u32(g, arch, "rope.dimension_count", vq_rotary_dim(l));
	vq_gguf_f32(g, key_of(arch, "rope.freq_base").s, l->rope_theta);
	if (x->config.family == VQ_FAMILY_STABLELM)
		vq_gguf_bool(g, key_of(arch, "use_parallel_residual").s, l->parallel);
	rc = put_provenance(g, x, err);
	if (rc == VQ_OK)
		rc = put_vocab(g, x, err);
	return rc < 0 ? rc : put_template(g, x, err);
}

/* What SmolVLM's projector wants beside the tower's keys.  The engine cuts pictures into tiles whatever the model says. */
static void put_idefics3(struct vq_gguf *g, const struct vq_config *c)
{
	vq_gguf_text(g, "clip.projector_type", "idefics3");
	vq_gguf_u32(g, "clip.vision.projector.scale_factor", c->projector.shuffle);
	if (c->preproc.longest)
		vq_gguf_u32(g, "clip.vision.preproc_image_size", c->preproc.longest);
	vq_gguf_bool(g, "vqlm.image_splitting", c->preproc.split);
}

static void put_llava(struct vq_gguf *g, const struct vq_config *c)
{
	const int32_t last = (int32_t)c->vision.n_layers;

	vq_gguf_bool(g, "clip.has_llava_projector", 1);
	vq_gguf_text(g, "clip.projector_type", "mlp");
	/* Without it the engine leaves out the last of the layers that there are, and the model has none too many. */
	vq_gguf_i32s(g, "clip.vision.feature_layer", &last, 1);
	/* The engine pads. */
	vq_gguf_text(g, "vqlm.aspect", vq_aspect_name(c->preproc.aspect));
}

int vq_export_gguf_vision(struct vq_gguf *g, const struct vq_export *x, struct vq_err *err)
{
	const struct vq_vision_config *v = &x->config.vision;
	const struct vq_layer_config *l = &v->layer;

	vq_gguf_text(g, "general.architecture", "clip");
	vq_gguf_text(g, "general.type", "mmproj");
	vq_gguf_u32(g, "general.file_type", file_type(x, 1));
	vq_gguf_bool(g, "clip.has_vision_encoder", 1);
	if (vq_export_is_idefics3(x))
		put_idefics3(g, &x->config);
	else
		put_llava(g, &x->config);
	vq_gguf_bool(g, "clip.use_gelu", l->act == VQ_ACT_GELU_TANH || l->act == VQ_ACT_GELU_ERF);
	vq_gguf_bool(g, "clip.use_silu", l->act == VQ_ACT_SILU);
	vq_gguf_u32(g, "clip.vision.image_size", v->image_size);
	vq_gguf_u32(g, "clip.vision.patch_size", v->patch_size);
	vq_gguf_u32(g, "clip.vision.embedding_length", l->hidden);
	vq_gguf_u32(g, "clip.vision.feed_forward_length", l->inter);
	vq_gguf_u32(g, "clip.vision.projection_dim", x->config.projector.out);
	vq_gguf_u32(g, "clip.vision.block_count", v->n_layers);
	vq_gguf_u32(g, "clip.vision.attention.head_count", l->n_heads);
	vq_gguf_f32(g, "clip.vision.attention.layer_norm_epsilon", l->eps);
	vq_gguf_f32s(g, "clip.vision.image_mean", x->config.preproc.mean, 3);
	vq_gguf_f32s(g, "clip.vision.image_std", x->config.preproc.std, 3);
	return put_provenance(g, x, err);
}
