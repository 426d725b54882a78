/* Activation grids: dynamic, per token, per group of inputs (or the whole token), 2..8 bits, with a clip
 * ratio that search finds.
 *
 *   asymmetric: lo, hi = clip * min(0, min x), clip * max(0, max x) over the group
 *               s = (hi - lo) / (2^b - 1),  z = rint(-lo / s),  q = clamp(rint(x / s) + z, 0, 2^b - 1)
 *   symmetric:  s = clip * max|x| / (2^(b-1) - 1),  q = clamp(rint(x / s), -2^(b-1), 2^(b-1) - 1),  z = 0
 *
 * A group whose range is 0 gets s = 0 and codes equal to z.  Codes are kept as signed bytes: asymmetric q
 * and z are stored less 2^(b-1).  The value that computation sees is s * (q - z). */
#ifndef VQ_KERNEL_QACT_H
#define VQ_KERNEL_QACT_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct vq_agrid {
	uint32_t bits;  /* 2..8; 16 = activations stay float */
	uint32_t group; /* inputs a group; 0 = the whole token; the last group may be short */
	int sym;
	float clip; /* (0, 1] */
};

uint32_t vq_agrid_n_groups(const struct vq_agrid *g, uint32_t n);

/* Quantized activations of n_rows tokens, as the products want them. */
struct vq_qact {
	uint32_t n_rows, n, n_groups;
	uint32_t stride; /* bytes between rows of q: n rounded up to 64, the rest is 0 */
	int8_t *q;       /* [n_rows, stride] */
	float *scale;    /* [n_rows, n_groups] */
	int32_t *zero;   /* [n_rows, n_groups] */
};

VQ_MUST_CHECK int vq_qact_alloc(struct vq_qact *a, size_t n_rows, uint32_t n,
				const struct vq_agrid *g, struct vq_err *err);
void vq_qact_free(struct vq_qact *a);
void vq_act_quantize(const struct vq_agrid *g, const float *x,
		     struct vq_qact *a); /* fills all rows */

/* x [n_rows, n] -> s * (q - z) in float, the same values that the integer path computes with; out = x is
 * fine.  bits = 16 copies. */
void vq_act_fake(const struct vq_agrid *g, const float *x, size_t n_rows, uint32_t n, float *out);

#endif
