/* Transforms of inputs (kernel/transform.h) as the attribute of a linear and records beside it:
 *
 *   "transform": {"block": 128, "from": "decoder.layers.0.q_proj", "kind": "hadamard"}
 *
 * kind is hadamard, matrix or scale (block 0).  Linears that share an input share its transform; the records of the one
 * called `from` hold the numbers, once: FROM.transform_scale f32 [n_in] and, for kind matrix, FROM.transform_matrix f32
 * [n_in / block, block, block]. */
#ifndef VQ_QUANT_TRANSFORM_ATTR_H
#define VQ_QUANT_TRANSFORM_ATTR_H

#include "base/json.h"
#include "kernel/transform.h"
#include "stream/tensor.h"

enum vq_transform_kind {
	VQ_TRANSFORM_SCALE,
	VQ_TRANSFORM_HADAMARD,
	VQ_TRANSFORM_MATRIX,
	VQ_TRANSFORM_N_KINDS
};

/* The records, in this order; the first, or both for a matrix. */
enum vq_transform_part { VQ_TRANSFORM_PART_SCALE, VQ_TRANSFORM_PART_MATRIX };

struct vq_transform_attr {
	enum vq_transform_kind kind;
	uint32_t n, block; /* inputs; inputs a block */
	const char *from;  /* the linear without ".weight"; borrowed from the JSON */
	uint32_t n_parts;  /* 1 or 2 records */
};

/* Attribute 'transform' of a linear of n_in inputs; label is for messages. */
VQ_MUST_CHECK int vq_transform_attr_parse(struct vq_transform_attr *a, const json_t *j,
					  uint32_t n_in, const char *label, struct vq_err *err);
/* Given; NULL on no memory. */
json_t *vq_transform_attr_json(const struct vq_transform *t, const char *from);

const char *vq_transform_suffix(enum vq_transform_part p); /* ".transform_scale" */

/* 1 when weight is FROM.weight. */
int vq_transform_is_own(const struct vq_transform_attr *a, const char *weight);

/* Sets a part of t from what a record holds: type, shape and numbers (finite, no scale 0) are checked; the data are
 * borrowed.  t->n and t->block are set too. */
VQ_MUST_CHECK int vq_transform_set(struct vq_transform *t, const struct vq_transform_attr *a,
				   enum vq_transform_part p, const struct vq_tensor *v,
				   const char *label, struct vq_err *err);

#endif
