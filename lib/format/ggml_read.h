/* Weights of GGUF files as numbers.  ggml-common.h has the blocks; d, m, dmin are float16.
 *
 *   Q4_0, Q4_1, Q8_0   format/ggml_block.h
 *   Q5_0  d, u32 h, 16 bytes           as Q4_0 with bit j of h above the code of element j;   x = (u - 16) d
 *   Q5_1  d, m, u32 h, 16 bytes        alike;                                                 x = u d + m
 *
 * and super-blocks of 256, in parts of 16 or 32 with a scale s and a minimum m in 4 or 6 bits each:
 *
 *   Q2_K  16 bytes (s low, m high), 64 bytes of codes, d, dmin                                x = d s u - dmin m
 *   Q3_K  32 bytes of high bits, 64 of low, 12 of scales, d                                   x = d (s - 32) (u - 4)
 *   Q4_K  d, dmin, 12 bytes of s and m, 128 of codes                                          x = d s u - dmin m
 *   Q5_K  d, dmin, 12 bytes of s and m, 32 of high bits, 128 of low                           x = d s u - dmin m
 *   Q6_K  128 bytes of low bits, 64 of high, 16 signed scales, d                              x = d s (u - 32) */
#ifndef VQ_FORMAT_GGML_READ_H
#define VQ_FORMAT_GGML_READ_H

#include <stddef.h>
#include <stdint.h>

#define VQ_GGML_SUPER 256u /* weights of a super-block: the largest block there is */

/* 1 for a type in blocks whose values vq_ggml_values gives. */
int vq_ggml_has_values(uint32_t type);

/* The values of one block, as many as vq_ggml_layout says, in float32: exact but for the last operation, as the engine's
 * own. */
void vq_ggml_values(uint32_t type, const uint8_t *block, float *x);

/* All values of n blocks in float16, rounded to nearest: 1, or 0 where one is beyond float16. */
int vq_ggml_halves(uint32_t type, const uint8_t *blocks, size_t n, uint16_t *h);

#endif
