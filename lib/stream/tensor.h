/* Element types and tensor views. */
#ifndef VQ_STREAM_TENSOR_H
#define VQ_STREAM_TENSOR_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define VQ_MAX_DIMS 8

/* Values are on the wire (vqlm-stream.5): never renumber. */
enum vq_dtype {
	VQ_BYTES = 0, /* no tensor: text or a file; n_dims = 1, dims[0] = bytes */
	VQ_F32 = 1,
	VQ_F16 = 2,
	VQ_BF16 = 3,
	VQ_F64 = 4,
	VQ_I8 = 5,
	VQ_U8 = 6,
	VQ_I16 = 7,
	VQ_U16 = 8,
	VQ_I32 = 9,
	VQ_U32 = 10,
	VQ_I64 = 11,
	VQ_U64 = 12,
	VQ_BOOL = 13,
	VQ_N_DTYPES
};

size_t vq_dtype_size(enum vq_dtype t);      /* bytes an element; 0 for an unknown type */
const char *vq_dtype_name(enum vq_dtype t); /* "f16"; "?" for an unknown type */

/* A view: row-major, little-endian, the data borrowed and perhaps not aligned. */
struct vq_tensor {
	enum vq_dtype dtype;
	uint32_t n_dims;
	uint64_t dims[VQ_MAX_DIMS];
	const void *data;
};

/* Number of elements (1 for a scalar); VQ_E_DATA when the product does not fit. */
VQ_MUST_CHECK int vq_tensor_count(const struct vq_tensor *t, size_t *n);

/* "[4096, 11008]" into buf; returns buf. */
const char *vq_shape_text(uint32_t n_dims, const uint64_t *dims, char *buf, size_t room);

/* Converts elements [first, first + n) of an F32, F16 or BF16 tensor to float.  VQ_E_DATA for other types. */
VQ_MUST_CHECK int vq_tensor_to_f32(const struct vq_tensor *t, size_t first, size_t n, float *dst,
				   struct vq_err *err);

#endif
