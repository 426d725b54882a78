/* Keys and values of one head, in the order and the numbers that attention reads.
 *
 *   keys    [ceil(tokens / 16)][dim][16]   panels of 16 tokens, so that 16 scores are one register
 *   values  [tokens][dim rounded up to 16] the rest of a row is 0
 *
 * F32 and F16 hold the numbers, F16 those beyond its range as +-65504.  I8 holds integers of -127..127 with a
 * float32 scale for each token's key and another for its value: scale = max |x| / 127, code = rint(x * 127 /
 * max |x|).  A token whose largest number is under 1e-30 is 0; one that holds NaN or infinity has the scale
 * NaN, so that it shows. */
#ifndef VQ_KERNEL_KEYS_H
#define VQ_KERNEL_KEYS_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum vq_kv_type { VQ_KV_F32, VQ_KV_F16, VQ_KV_I8 };

#define VQ_KEY_PANEL 16u /* tokens */

struct vq_keys {
	enum vq_kv_type type;
	uint32_t dim;
	void *k, *v;              /* elements of the type; aligned to 64 bytes */
	float *k_scale, *v_scale; /* [tokens rounded up to 16]; NULL unless I8 */
};

/* 32, 16 or 8. */
int vq_kv_bits(enum vq_kv_type type);

/* Width of a row of values: dim rounded up to 16. */
uint32_t vq_keys_width(uint32_t dim);

/* Bytes that `room` tokens take, a multiple of 64; VQ_E_DATA when that is no size_t. */
VQ_MUST_CHECK int vq_keys_bytes(enum vq_kv_type type, uint32_t dim, uint32_t room, size_t *bytes);

/* The head that stands at base, which has vq_keys_bytes bytes and is aligned to 64; base is kept. */
struct vq_keys vq_keys_at(enum vq_kv_type type, uint32_t dim, uint32_t room, void *base);

/* Rows k and v [n, dim], `stride` floats apart, become tokens at.. of h.  Tokens come in order: the first of a
 * panel clears the rest of it. */
void vq_keys_store(const struct vq_keys *h, uint32_t at, uint32_t n, const float *k, const float *v,
		   size_t stride);

/* Tokens first .. first + n - 1 back as floats: k and v [n, dim]. */
void vq_keys_load(const struct vq_keys *h, uint32_t first, uint32_t n, float *k, float *v);

/* The first n tokens of one head to another of the same type and dim; what follows them in `to` is lost. */
void vq_keys_copy(const struct vq_keys *to, const struct vq_keys *from, uint32_t n);

#endif
