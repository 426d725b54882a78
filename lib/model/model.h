/* A whole model: vision tower, projector, decoder, with weights from a checkpoint or a packed model. */
#ifndef VQ_MODEL_MODEL_H
#define VQ_MODEL_MODEL_H

#include "model/layer.h"

struct vq_ckpt;

struct vq_vision {
	const float *class_embed;   /* [C] or NULL */
	const float *patch_w;       /* [C, 3*P*P] */
	const float *position;      /* [n_positions, C] */
	const float *pre_w, *pre_b; /* [C] or NULL */
	struct vq_layer *layers;    /* [n_layers] */
};

struct vq_projector {
	struct vq_linear fc[2];
};

struct vq_decoder {
	enum vq_dtype embed_type;
	const void *embed;     /* [vocab, d] */
	const float *norm;     /* [d] */
	struct vq_linear head; /* [vocab, d] */
	struct vq_layer *layers;
};

struct vq_model {
	struct vq_config cfg;
	struct vq_vision vision;
	struct vq_projector projector;
	struct vq_decoder decoder;
	struct vq_model_priv *priv; /* what it owns: norms as float32, maps */
};

/* k must outlive the model. Weights stay mapped, in the checkpoint's type. */
VQ_MUST_CHECK int vq_model_from_ckpt(struct vq_model *m, const struct vq_config *c,
				     const struct vq_ckpt *k, struct vq_err *err);
void vq_model_free(struct vq_model *m);

/* Vision: pixels [n_images, 3, S, S] -> hidden states [n_images * n_positions, C] before the first layer.
 * Layers run with vq_layer_forward over a batch of n_images sequences. */
uint32_t vq_vision_positions(const struct vq_config *c); /* patches, and the class token */
VQ_MUST_CHECK int vq_vision_embed(const struct vq_model *m, const float *pixels, uint32_t n_images,
				  float *h, struct vq_err *err);
/* Hidden states after the last layer -> features [n_images * n_image_tokens, C] (class token dropped). */
void vq_vision_features(const struct vq_config *c, const float *h, uint32_t n_images,
			float *features);
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

/* Runs all layers over h in place; kv may be NULL. */
VQ_MUST_CHECK int vq_decoder_layers(const struct vq_model *m, float *h, const struct vq_batch *b,
				    struct vq_kv *kv, struct vq_err *err);

/* Final norm and head for the given rows of h: logits [n_rows, vocab]. */
VQ_MUST_CHECK int vq_decoder_logits(const struct vq_model *m, const float *h, const uint32_t *rows,
				    uint32_t n_rows, float *logits, struct vq_err *err);

#endif
