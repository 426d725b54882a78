/* Types of tensors in GGUF files, and blocks of 32 weights as vqlm-export writes them (ggml-common.h): a float16 scale d and
 *
 *   Q4_0  18 bytes  d, 16 bytes: byte j has code j low and code j + 16 high     x = (u - 8) d
 *   Q4_1  20 bytes  d, float16 m, the same 16 bytes                             x = u d + m
 *   Q8_0  34 bytes  d, 32 signed bytes                                          x = q d
 *
 * format/ggml_read.h has the values of these and of the other types. */
#ifndef VQ_FORMAT_GGML_BLOCK_H
#define VQ_FORMAT_GGML_BLOCK_H

#include <stddef.h>
#include <stdint.h>

#define VQ_GGML_BLOCK 32u /* weights */

/* Types by their numbers in files: those that are read or written. */
enum vq_ggml_type {
	VQ_GGML_F32 = 0,
	VQ_GGML_F16 = 1,
	VQ_GGML_Q4_0 = 2,
	VQ_GGML_Q4_1 = 3,
	VQ_GGML_Q5_0 = 6,
	VQ_GGML_Q5_1 = 7,
	VQ_GGML_Q8_0 = 8,
	VQ_GGML_Q2_K = 10,
	VQ_GGML_Q3_K = 11,
	VQ_GGML_Q4_K = 12,
	VQ_GGML_Q5_K = 13,
	VQ_GGML_Q6_K = 14,
	VQ_GGML_BF16 = 30,
};

/* What ggml.h has under a number; of those too that are neither read nor written. */
struct vq_ggml_layout {
	const char *name; /* "Q4_0" */
	size_t n, bytes;  /* elements and bytes of a block */
};

const struct vq_ggml_layout *vq_ggml_layout(uint32_t type); /* NULL: no such type */

/* Bytes of n elements; n a multiple of the block where the type has blocks. */
size_t vq_ggml_bytes(enum vq_ggml_type t, size_t n);
const char *vq_ggml_name(enum vq_ggml_type t); /* "Q4_0"; "?" for others */

/* One block of 32 codes u, 0..15, or values q; d, m float16. */
void vq_ggml_q4_0(const uint8_t *u, uint16_t d, uint8_t *out);
void vq_ggml_q4_1(const uint8_t *u, uint16_t d, uint16_t m, uint8_t *out);
void vq_ggml_q8_0(const int8_t *q, uint16_t d, uint8_t *out);

#endif
