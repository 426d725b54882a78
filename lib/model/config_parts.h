/* What the layouts of checkpoints have in common: config_hf.c, config_flat.c,
 * config_idefics3.c.
 */
#ifndef VQ_MODEL_CONFIG_PARTS_H
#define VQ_MODEL_CONFIG_PARTS_H

#include "model/config_side.h"
#include "model/field.h"

/* Refuses a type that is not computed with, and a quantization. */
VQ_MUST_CHECK int vq_parts_dtype(const json_t *o, const char *label, struct vq_err *err);

/* Heads of keys and values, as many as of queries where none are said, and a head's size, the hidden size's share. */
VQ_MUST_CHECK int vq_parts_heads(struct vq_layer_config *l, const char *label, struct vq_err *err);

/* The words of activation functions. */
extern const struct vq_word vq_parts_acts[];

/* Refuses rotary embeddings that are scaled: "rope_scaling", "rope_parameters". */
VQ_MUST_CHECK int vq_parts_rope(const json_t *o, const char *label, struct vq_err *err);

/* c->decoder by the configuration of c->family: LlamaConfig, or those of config_family.c. */
VQ_MUST_CHECK int vq_parts_decoder(struct vq_config *c, const json_t *o, const char *label,
				   struct vq_err *err);
VQ_MUST_CHECK int vq_family_decoder(struct vq_config *c, const json_t *o, const char *label,
				    struct vq_err *err);

/* How a layout says which of the tower's hidden states are the features. */
struct vq_feature_keys {
	const char *layer, *select;
	const struct vq_word *words; /* of select: 1 keeps the class token */
};

/* CLIPVisionConfig o, and the features by the keys in top. */
VQ_MUST_CHECK int vq_parts_vision(struct vq_config *c, const struct vq_feature_keys *keys,
				  const json_t *top, const json_t *o, const char *label,
				  const char *top_label, struct vq_err *err);

/* c->decoder.tied. */
VQ_MUST_CHECK int vq_parts_tied(struct vq_config *c, const struct vq_side *s, const json_t *text,
				const char *label, struct vq_err *err);

/* The key that names the tower: LLaVA's, or MoE-LLaVA's where that is there alone. */
const char *vq_flat_tower_key(const json_t *config);

/* The layout of the LLaVA authors; c has arch and has_vision. */
VQ_MUST_CHECK int vq_config_flat(struct vq_config *c, const struct vq_side *s,
				 const char *template_name, struct vq_err *err);

/* Idefics3's and SmolVLM's layout. */
VQ_MUST_CHECK int vq_config_idefics3(struct vq_config *c, const struct vq_side *s,
				     const char *template_name, struct vq_err *err);

#endif
