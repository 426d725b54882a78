/* Integer codes as the 32-bit words of other people's formats.
 *
 *   GPTQ                 AutoGPTQ's qlinear_cuda_old.pack, GPTQModel: a bit string down the inputs
 *   compressed-tensors   pack_to_int32: a bit string along the inputs
 *   AWQ                  AutoAWQ's packing_utils.py: 8 outputs a word, in an order of their own
 *
 * Words are little-endian in files, as everything here. */
#ifndef VQ_FORMAT_WORDS_H
#define VQ_FORMAT_WORDS_H

#include <stddef.h>
#include <stdint.h>

/* Words that n codes take as one bit string. */
static inline size_t vq_words_count(uint32_t bits, size_t n)
{
	return (n * bits + 31) / 32;
}

/* n codes v[0], v[stride], ... of 1..8 bits as one bit string, the first in the least significant bits of the first word:
 * w[0], w[w_stride], ...; the last word is filled with 0. */
void vq_words_pack(uint32_t bits, const uint8_t *v, size_t n, size_t stride, uint32_t *w,
		   size_t w_stride);

/* v [n_out, n] of 4 bits -> w [n, n_out / 8]: bits 4i..4i+3 of word c hold row 8c + {0,2,4,6,1,3,5,7}[i].  n_out must be
 * a multiple of 8. */
void vq_words_awq(const uint8_t *v, size_t n_out, size_t n, uint32_t *w);

#endif
