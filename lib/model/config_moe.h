/* Which layers of a decoder have experts: MoE-LLaVA's `moe` in config.json, and our own form of it. */
#ifndef VQ_MODEL_CONFIG_MOE_H
#define VQ_MODEL_CONFIG_MOE_H

#include "model/config.h"

struct vq_ckpt;

/* d->moe from `moe` of config.json (absent, or moe_enable false: no layer has experts), held against the tensors of k:
 * a layer with another number of experts, or with experts where there should be none, is VQ_E_DATA. */
VQ_MUST_CHECK int vq_moe_from(struct vq_decoder_config *d, enum vq_family family,
			      const struct vq_ckpt *k, const json_t *config, const char *label,
			      struct vq_err *err);

/* `moe` of the canonical decoder: {top_k, capacity_factor, min_capacity, n_experts: [a number a layer]}; absent where
 * no layer has experts. */
VQ_MUST_CHECK int vq_moe_write(const struct vq_decoder_config *d, json_t *decoder,
			       struct vq_err *err);
VQ_MUST_CHECK int vq_moe_parse(struct vq_decoder_config *d, const json_t *decoder,
			       const char *label, struct vq_err *err);

#endif
