/* Softmax attention of some queries over the keys and values of one head; float32 arithmetic.
 *
 * The keys are read in tiles of VQ_ATTEND_KEYS, which begin at multiples of that.  For each row, with q' = q * c,
 * c = log2(e) / sqrt(dim), from m = -infinity, l = 0, o = 0, each tile does
 *   s[u] = sum_i q'[i] k[u][i]     fused, i ascending from 0; for I8 of codes, then s[u] *= k_scale[u]
 *   n = max(m, s[u] ...);  a = exp2(m - n);  m = n
 *   p[u] = exp2(s[u] - m);  l = fma(l, a, sum of p in 16 lanes that are added by halves)
 *   o[i] = fma(p[u], v[u][i], ...), u ascending from a * o[i]; for I8 v is the code, p[u] * v_scale[u] its factor
 * and out = o * (1 / l).  exp2 is vq_attend_exp2 (attend_rows.h), within 1.5 units in the last place of the true value down
 * to 2^-100, which is the least that it gives.  So a row's result depends on nothing but the row and its keys, and every
 * kernel set gives the same bits.  Milakov and Gimelshein, 2018, is where the running maximum is from. */
#ifndef VQ_KERNEL_ATTEND_H
#define VQ_KERNEL_ATTEND_H

#include "kernel/keys.h"

#define VQ_ATTEND_KEYS 128u /* of a tile */
#define VQ_ATTEND_ROWS 192u /* in a call, if there are as many: they share what is done to a tile */

/* Row r is head r % group of query r / group; a query's heads follow each other, `dim` floats each. */
struct vq_attend {
	const struct vq_keys *keys;
	uint32_t n_rows, group;
	uint32_t seen; /* keys that the first query reads: 1 or more */
	uint32_t more; /* how many more each next query reads: 1 when causal, else 0 */
	const float *q;
	float *out;
	size_t stride; /* of q and out: floats between queries */
	float *room;   /* vq_attend_room() floats, aligned to 64 bytes */
};

/* Floats that n_rows rows want as room. */
size_t vq_attend_room(uint32_t dim, uint32_t n_rows);

/* On the calling thread. */
void vq_attend(const struct vq_attend *a);

#endif
