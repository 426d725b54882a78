/* A whole model: vision tower, projector, decoder, with weights from a checkpoint or a packed model. */
#ifndef VQ_MODEL_MODEL_H
#define VQ_MODEL_MODEL_H

#include "model/layer.h"

struct vq_ckpt;

struct vq_vision {
	const float *class_embed;     /* [C] or NULL */
	const float *patch_w;         /* [C, 3*P*P] */
	const float *patch_b;         /* [C] or NULL */
	const float *position;        /* [n_positions, C] */
	const float *pre_w, *pre_b;   /* [C] or NULL */
	const float *post_w, *post_b; /* [C] or NULL */
	struct vq_layer *layers;      /* [n_layers] */
};

struct vq_projector {
	struct vq_linear fc[2];
};

struct vq_decoder {
	enum vq_dtype embed_type;
	const void *embed;                    /* [vocab, d]; NULL when embed_packed is set */
	const struct vq_packed *embed_packed; /* [vocab, d] borrowed; NULL for floating point */
	const float *norm, *norm_b;           /* [d]; _b NULL for RMSNorm */
	struct vq_linear head;                /* [vocab, d] */
	struct vq_layer *layers;
	struct vq_linear *experts; /* of all sparse layers, in order; owned */
	struct vq_gating gating; /* as the configuration says, without noise and without dropping */
};

struct vq_model {
	struct vq_config cfg; /* layers point into it: a model stays where it was made */
	struct vq_vision vision;
	struct vq_projector projector;
	struct vq_decoder decoder;
	struct vq_model_priv *priv; /* what it owns: norms, biases and embeddings as float32 */
};

/* --- weights: from a checkpoint, a stream or a packed model, by canonical name (names.h) --- */

/* A model without weights: every dimension is set. */
VQ_MUST_CHECK int vq_model_new(struct vq_model *m, const struct vq_config *c, struct vq_err *err);

/* Gives it one tensor.  Weights of linears and the decoder's embedding are borrowed and keep their type (F32,
 * F16, BF16); the data must live until vq_model_unbind of the unit or vq_model_free.  Norms, biases, class,
 * patch and position embeddings become float32 copies that the model owns.  Binding again replaces.  With
 * tied embeddings the head is the embedding until one is bound.  Unknown name, other shape or type, NaN or
 * infinity in what is copied: VQ_E_DATA. */
VQ_MUST_CHECK int vq_model_bind(struct vq_model *m, const char *name, const struct vq_tensor *t,
				struct vq_err *err);

/* The linear that "X.weight" (or "X.bias") belongs to, for callers that set packed, act, or a weight of their
 * own making; NULL when the name is of no linear. */
struct vq_linear *vq_model_linear(struct vq_model *m, const char *name);

/* The model takes over a block from vq_alloc that a unit's tensors point to, also on failure: freed by
 * vq_model_unbind of the unit or vq_model_free. */
VQ_MUST_CHECK int vq_model_keep(struct vq_model *m, uint32_t unit, void *block, struct vq_err *err);

/* The layer of a unit; NULL for the projector's unit and beyond the last. */
struct vq_layer *vq_model_layer(struct vq_model *m, uint32_t unit);

/* VQ_E_DATA naming the first tensor of a unit that is not there yet. */
VQ_MUST_CHECK int vq_model_check(const struct vq_model *m, uint32_t unit, struct vq_err *err);

/* Forgets the tensors of a unit (embeddings, final norm and head go with the first and last as names.h says)
 * and frees its float32 copies. */
void vq_model_unbind(struct vq_model *m, uint32_t unit);

/* All of the above for a checkpoint; k must outlive the model, its weights stay mapped. */
VQ_MUST_CHECK int vq_model_from_ckpt(struct vq_model *m, const struct vq_config *c,
				     const struct vq_ckpt *k, struct vq_err *err);
void vq_model_free(struct vq_model *m); /* fine on zeroes and after a failure */

/* --- running --- */

/* Vision: pixels [n_images, 3, S, S] -> hidden states [n_images * n_positions, C] before the first layer.
 * Layers run with vq_layer_forward over a batch of n_images sequences. */
uint32_t vq_vision_positions(const struct vq_config *c); /* patches, and the class token */
VQ_MUST_CHECK int vq_vision_embed(const struct vq_model *m, const float *pixels, uint32_t n_images,
				  float *h, struct vq_err *err);
/* Hidden states after the last layer -> features [n_images * n_image_tokens, projector.in]: the class token dropped, and
 * where the model has them the norm behind the last layer (the unit of that layer must be bound) and the pixel shuffle: row
 * (y, x) of a feature holds patches (s y + i, s x + j), i and j of 0..s - 1 one after the other. */
void vq_vision_features(const struct vq_model *m, const float *h, uint32_t n_images,
			float *features);
/* Its adjoint at h: g [k, n_images * n_image_tokens, projector.in] -> out [k, n_positions, C] for picture `image`. */
void vq_vision_features_adjoint(const struct vq_model *m, const float *h, uint32_t n_images,
				uint32_t image, const float *g, uint32_t k, float *out);
/* features [n, C] -> [n, d]. */
VQ_MUST_CHECK int vq_projector_apply(const struct vq_config *c, const struct vq_projector *p,
				     const float *features, size_t n, float *out,
				     struct vq_err *err);
/* All three: pixels -> image tokens [n_images * n_image_tokens, d]. */
VQ_MUST_CHECK int vq_vision_encode(const struct vq_model *m, const float *pixels, uint32_t n_images,
				   float *out, struct vq_err *err);

/* Embeds tokens [n] into h [n, d]; rows whose token is cfg.image_token take the next row of image
 * [n_image_rows, d] instead.  VQ_E_DATA when the counts differ or a token is out of the vocabulary. */
VQ_MUST_CHECK int vq_decoder_embed(const struct vq_model *m, const int32_t *tokens, size_t n,
				   const float *image, size_t n_image_rows, float *h,
				   struct vq_err *err);

/* Runs all layers over h in place; kv may be NULL.  A cache of fewer layers than the decoder's serves each layer
 * in turn and is empty afterwards: for prompts that share tokens (vq_kv_share) and that nothing follows. */
VQ_MUST_CHECK int vq_decoder_layers(const struct vq_model *m, float *h, const struct vq_batch *b,
				    struct vq_kv *kv, struct vq_err *err);

/* The same as far as the last row of each sequence needs it: last [n_seqs, d] is what vq_decoder_layers would
 * leave in those rows; h is changed.  A sequence without rows: VQ_E_DATA. */
VQ_MUST_CHECK int vq_decoder_last(const struct vq_model *m, float *h, const struct vq_batch *b,
				  struct vq_kv *kv, float *last, struct vq_err *err);

/* Final norm and head for the given rows of h: logits [n_rows, vocab]. */
VQ_MUST_CHECK int vq_decoder_logits(const struct vq_model *m, const float *h, const uint32_t *rows,
				    uint32_t n_rows, float *logits, struct vq_err *err);

#endif
