/* A model from a packed file (format/vqm.h, vqlm-model(5)): its weights stay where they are in the map.
 *
 * A tensor X is two members: X.json says what X holds:
 *   {"layout": "plain", "dtype": "f16", "shape": [...], "attrs": {...}}
 *   {"layout": "r32k4", "shape": [n_out, n_in], "attrs": {"grid": {...}, "act": {...}, ...},
 *    "parts": {"planes": [offset, bytes], "scale": [offset, bytes], "zero": [offset, bytes]}}
 * In NF4 (grid "type": "nf") the parts are planes, absmax, absmax_scale and absmax_offset (quant/nf4.h).
 * Where "act" says that its ranges are stored they are a plain member Y.range, f32 [2, n], X being
 * Y.weight.  Transforms of inputs are plain members too (quant/transform_attr.h). */
#ifndef VQ_MODEL_PACKED_H
#define VQ_MODEL_PACKED_H

#include "format/tokenizer.h"
#include "format/vqm.h"
#include "model/model.h"

#define VQ_LAYOUT "r32k4" /* of kernel/qgemm.h */

/* Where the parts of a packed linear lie in its member, each at a multiple of VQ_ALIGN. */
struct vq_packed_parts {
	size_t planes, scale, zero;                   /* offsets */
	size_t planes_bytes, scale_bytes, zero_bytes; /* zero_bytes 0 when symmetric */
	size_t bytes;                                 /* of the member */
};

/* VQ_E_DATA when the sizes do not fit. */
VQ_MUST_CHECK int vq_packed_place(struct vq_packed_parts *p, uint32_t bits, uint32_t n_out,
				  uint32_t n_in, uint32_t n_groups, int sym);

/* The same of an NF weight: u8 [n_blocks], f32 [n_scales], f32 [1]. */
struct vq_packed_nf_parts {
	size_t planes, absmax, scale, offset;
	size_t planes_bytes, absmax_bytes, scale_bytes, offset_bytes;
	size_t bytes;
};

VQ_MUST_CHECK int vq_packed_place_nf(struct vq_packed_nf_parts *p, uint32_t bits, uint32_t n_out,
				     uint32_t n_in);

/* What model.json says.  _json is given; config is what vq_config_parse makes of it. */
json_t *vq_vqm_model_json(const struct vq_vqm *v, struct vq_err *err);
VQ_MUST_CHECK int vq_vqm_config(struct vq_config *c, const struct vq_vqm *v, struct vq_err *err);

/* The tokenizer among the members. */
VQ_MUST_CHECK int vq_vqm_tokenizer(struct vq_tokenizer **t, const struct vq_vqm *v,
				   struct vq_err *err);

/* The whole model.  v must outlive it: codes, scales, zero points, ranges, transforms, plain weights and the embedding
 * point into v.
 * Quantized linears have packed and act set, others w (and act where search gave them one).  Errors name the file
 * and the member. */
VQ_MUST_CHECK int vq_model_from_vqm(struct vq_model *m, const struct vq_vqm *v, struct vq_err *err);

/* Bytes of the weights' members (codes, grids and plain tensors): what a decoded token has to read, but for the
 * embedding. */
uint64_t vq_vqm_weight_bytes(const struct vq_vqm *v);

#endif
