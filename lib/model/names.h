/* Canonical tensor names, and what checkpoints call them.
 *
 *   vision.class_embed [C]            vision.patch_embed.weight [C, 3, P, P], .bias [C]
 *   vision.position_embed [n, C]      vision.pre_norm.{weight,bias} [C]
 *   vision.layers.N.{norm1,norm2}.{weight,bias}
 *   vision.layers.N.{q_proj,k_proj,v_proj,o_proj,up_proj,down_proj}.{weight,bias}     (fc1 is up, fc2 is down)
 *   vision.post_norm.{weight,bias} [C]
 *   projector.{0,1}.{weight,bias}
 *   decoder.embed.weight [vocab, d]   decoder.norm.weight [d]   decoder.head.weight [vocab, d]
 *   decoder.layers.N.{norm1,norm2}.{weight,bias}    (no norm2 in a parallel layer; biases with layer norm)
 *   decoder.layers.N.{q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj}.{weight,bias}
 *   decoder.norm.bias, decoder.head.bias
 * A layer with experts has, in the place of gate_proj, up_proj and down_proj,
 *   decoder.layers.N.router.weight [n_experts, d]     float32 in use; never quantized
 *   decoder.layers.N.experts.E.{gate_proj,up_proj,down_proj}.weight
 *
 * A weight is [out, in], row-major.  Order of execution, which is the order in a stream: vision embeddings with the
 * first vision layer, layers, the norm behind them with the last, projector, decoder embedding with the first decoder layer,
 * layers, norm and head with the last.  A tied head is not listed.  Biases are listed where the configuration has them. */
#ifndef VQ_MODEL_NAMES_H
#define VQ_MODEL_NAMES_H

#include "format/checkpoint.h"
#include "model/config.h"

struct vq_name {
	char name[64]; /* canonical */
	uint32_t unit;
	int linear; /* 1: a linear layer's weight that search may quantize */
	uint32_t n_dims;
	uint64_t dims[4]; /* the shape that the configuration asks for */
};

/* All tensors of a model in stream order.  Given: vq_free(*out). */
VQ_MUST_CHECK int vq_names_list(const struct vq_config *c, struct vq_name **out, size_t *n,
				struct vq_err *err);

/* 1 when the name is of a tensor in a layer of the decoder. */
int vq_names_in_layer(const char *canonical);

/* A tensor in decoder layer i gets the name that it has in layer kept[i]; any other keeps its own. */
void vq_names_from_layer(struct vq_name *name, const uint32_t *kept);

/* The checkpoint's tensor for a canonical name, or its rows of a fused one, shape and type checked: VQ_E_DATA when it is missing
 * (all spellings tried are named) or has another shape.  Tied heads resolve to the embedding. */
VQ_MUST_CHECK int vq_names_find(const struct vq_config *c, const struct vq_ckpt *k,
				const struct vq_name *want, struct vq_tensor *out,
				struct vq_err *err);

/* Spelling i of a canonical name in checkpoints: 0 llava-hf, 1 since
 * transformers 4.52, 2 plain LLaMA (the head has two: 1 is for both of the
 * latter) and the LLaVA authors', 3 their second where they have two, the last Idefics3.  Returns
 * 0 and leaves buf when there is none. */
int vq_names_spell(const char *canonical, unsigned i, char *buf, size_t room);

/* 1 when the checkpoint has a tensor under some spelling of the canonical name; that spelling goes to buf unless it is
 * NULL.  Without a family: of names that all of them share, projector and head. */
int vq_names_has(const struct vq_ckpt *k, const char *canonical);
int vq_names_has_as(const struct vq_ckpt *k, enum vq_family family, const char *canonical,
		    char *buf, size_t room);

/* VQ_E_DATA naming the tensor and the index of its first NaN or infinity.  where: the file.  Reads the
 * whole tensor once, eight bytes at a time; integer types pass. */
VQ_MUST_CHECK int vq_names_check_finite(const struct vq_tensor *t, const char *name,
					const char *where, struct vq_err *err);

#endif
