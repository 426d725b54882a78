/* The shape of a model: one set of switches covers CLIP towers and LLaMA decoders. */
#ifndef VQ_MODEL_CONFIG_H
#define VQ_MODEL_CONFIG_H

#include "base/json.h"
#include "format/chat.h"
#include "format/image.h"
#include "kernel/ops.h"
#include "model/config_limits.h"

enum vq_norm { VQ_NORM_LAYER, VQ_NORM_RMS };

/* A transformer layer: x += o(attention(norm1 x)); x += down(act(...norm2 x)).  A parallel one has no norm2:
 * x += o(attention(y)) + down(act(...y)), y = norm1 x. */
struct vq_layer_config {
	uint32_t hidden, inter;
	uint32_t n_heads, n_kv_heads, head_dim;
	enum vq_norm norm;
	float eps;
	enum vq_act_fn act;
	int gated; /* down(act(gate x) * up x); else down(act(up x)) */
	int causal;
	int qkv_bias, o_bias, mlp_bias;
	float rope_theta;    /* 0: no rotary embedding */
	uint32_t rotary_dim; /* so many numbers of a head turn, the rest pass; 0: all of head_dim */
	int parallel;
};

struct vq_vision_config {
	struct vq_layer_config layer;
	uint32_t
		n_layers; /* layers that run: those up to the feature layer; the rest is not loaded */
	uint32_t image_size, patch_size;
	int has_class, pre_norm;
	int keep_class; /* features include the class token (select strategy "full") */
	int patch_bias; /* of the product that embeds a patch (SigLIP) */
	int post_norm;  /* a norm behind the last layer, before the features (Idefics3) */
};

struct vq_projector_config {
	uint32_t n_linears; /* 1 linear, 2 mlp2x */
	uint32_t in, out;
	enum vq_act_fn act; /* between the two */
	int bias;
	uint32_t
		shuffle; /* 0, or the side of the squares of patches that become one row each (pixel shuffle) */
};

/* Which decoder layers have experts in the place of one MLP, and how rows choose among them (MoE-LLaVA). */
struct vq_moe_config {
	uint32_t top_k; /* experts that a row goes to, 1 or 2; 0: no layer has experts */
	/* The authors' limit on the rows that an expert takes of a sequence, kept only where it is asked for */
	float capacity_factor;
	uint32_t min_capacity;
	uint8_t n_experts[VQ_LIMIT_LAYERS]; /* of each layer; 0: dense */
};

/* Whose names a checkpoint's decoder has; what it computes is in the switches. */
enum vq_family { VQ_FAMILY_LLAMA, VQ_FAMILY_STABLELM, VQ_FAMILY_PHI, VQ_FAMILY_QWEN };

struct vq_decoder_config {
	struct vq_layer_config layer;
	struct vq_moe_config moe;
	uint32_t n_layers, vocab, max_position;
	int tied; /* lm_head is the embedding */
	int head_bias;
};

struct vq_config {
	char arch
		[32]; /* "llama", "stablelm", "phi", "qwen"; with a tower "llava", "llava_stablelm", ..., "idefics3" */
	enum vq_family family;
	int has_vision;
	struct vq_vision_config vision;
	struct vq_projector_config projector;
	struct vq_decoder_config decoder;
	int32_t image_token, bos, eos, pad; /* -1: none */
	uint32_t
		n_image_tokens; /* rows that one picture, or one tile of a picture, gives the decoder */
	int image_marks;        /* "<im_start>" and "<im_end>" stand around "<image>" in prompts */
	struct vq_preproc preproc;
	const struct vq_chat *chat;
};

/* Numbers of a head that turn with the position. */
static inline uint32_t vq_rotary_dim(const struct vq_layer_config *c)
{
	return c->rotary_dim ? c->rotary_dim : c->head_dim;
}

/* Sets arch, family and has_vision by the name of an architecture; an unknown name: VQ_E_DATA. */
VQ_MUST_CHECK int vq_config_arch(struct vq_config *c, const char *arch);

/* Units: vision layers 0..V-1, the projector V, decoder layers V+1...  A model without vision has only
 * decoder layers, from 0. */
uint32_t vq_config_n_units(const struct vq_config *c);
uint32_t vq_config_projector_unit(const struct vq_config *c); /* V */
uint32_t vq_config_decoder_unit(const struct vq_config *c);   /* unit of decoder layer 0 */
uint32_t vq_config_shuffled(
	const struct vq_config *c); /* patches that become one row: shuffle^2, or 1 */

struct vq_ckpt;

/* The configuration with the n decoder layers of kept alone, ascending. */
struct vq_config vq_config_cut(const struct vq_config *c, const uint32_t *kept, uint32_t n);

/* From a folder in the layout of llava-hf, of the LLaVA authors (flat, with the tower's folder joined: vq_ckpt_join), or
 * of plain LLaMA: config.json with absent keys defaulted, preprocessor_config.json,
 * generation and tokenizer config; from a model stream, its configuration.  template: --template NAME or NULL. */
VQ_MUST_CHECK int vq_config_from_ckpt(struct vq_config *c, const struct vq_ckpt *k,
				      const char *template_name, struct vq_err *err);

/* What must hold between the sizes: heads divide, patches tile the picture, the projector fits.  Both ways of
 * making a configuration end with it. */
VQ_MUST_CHECK int vq_config_check(const struct vq_config *c, const char *label, struct vq_err *err);

/* The canonical form that rides in streams and packed models, and back. */
json_t *vq_config_json(const struct vq_config *c, struct vq_err *err); /* given */
VQ_MUST_CHECK int vq_config_parse(struct vq_config *c, const json_t *j, const char *label,
				  struct vq_err *err);

#endif
