/* Random signs and a block Hadamard transform on rows: spreads an outlier over its block, so that a group
 * quantizes better.  y = x S H with S = diag(+-1) and H block-diagonal, each block a Sylvester Hadamard matrix of
 * order B divided by sqrt(B): orthogonal, symmetric, its own inverse.  A weight [out, in] transformed in
 * the same way along `in` leaves the product unchanged. */
#ifndef VQ_QUANT_HADAMARD_H
#define VQ_QUANT_HADAMARD_H

#include <stddef.h>
#include <stdint.h>

/* Largest power of two up to 128 that divides n; 0 when that is below 16: no transform then. */
uint32_t vq_hadamard_block(uint32_t n);

/* sign [n]: +1 or -1 from (seed, "sign"); a prefix of it is the same for every n. */
void vq_sign_fill(float *sign, uint32_t n, uint64_t seed);

/* x [rows, n] in place.  sign NULL: none.  Rows of a width without a block stay as they are, signs too. */
void vq_hadamard_apply(float *x, size_t rows, uint32_t n, const float *sign);

#endif
