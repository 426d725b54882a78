/* Byte planes: the first bytes of all elements, then the second bytes, and so on.  The exponent bytes of
 * floating-point weights repeat, their mantissa bytes do not; apart, the former compress well.  The split
 * is done in groups of VQ_PLANE_GROUP elements, so that every plane of a group is one zstd block with
 * statistics of its own and the reader needs no second copy of a payload. */
#ifndef VQ_STREAM_PLANES_H
#define VQ_STREAM_PLANES_H

#include <stddef.h>
#include <stdint.h>

#include "stream/tensor.h"

#define VQ_PLANE_GROUP 131072u /* elements */

/* Bytes an element for types that are split (16 and 32 bits), else 0. */
size_t vq_planes_width(enum vq_dtype t);

/* n elements of width 2 or 4, at most a group; dst and src do not overlap. */
void vq_planes_split(uint8_t *dst, const uint8_t *src, size_t n, size_t width);
void vq_planes_merge(uint8_t *dst, const uint8_t *src, size_t n, size_t width);

#endif
