/* What a linear's input goes through before it is quantized, local to the linear: its weight is stored transformed the
 * other way, so that the product stays (W T^-T, see quant/smooth.h).
 *
 *   x'_b = (x_b * scale_b) T_b    for each block b of inputs;  T_b is a matrix, or Hadamard / sqrt(block), Sylvester's
 *
 * scale holds the smoothing (SmoothQuant, Xiao et al. 2023) and the random signs (QuaRot, Ashkboos et al. 2024) in
 * one number each.  All instruction sets give the same bits: every operation is rounded by itself, but for the sums of
 * a matrix, which begin at 0 and take one term after the other with fmaf, i ascending: a term costs one instruction
 * where there is one. */
#ifndef VQ_KERNEL_TRANSFORM_H
#define VQ_KERNEL_TRANSFORM_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "kernel/qact.h"

#define VQ_TRANSFORM_BLOCK 256u /* inputs of the largest block */

struct vq_transform {
	uint32_t n;         /* inputs */
	uint32_t block;     /* inputs a block, divides n, at most 256; 0: scale alone */
	const float *scale; /* [n]; NULL: 1; borrowed */
	const float *
		matrix; /* [n / block, block, block]: x'_j = sum_i x_i m[i][j]; NULL: Hadamard, block a power
			      * of two; borrowed */
};

/* x [n_rows, n] -> out [n_rows, n]; out = x is fine. */
void vq_transform_rows(const struct vq_transform *t, const float *x, size_t n_rows, float *out);

/* x [n_rows, n] transformed and then quantized as vq_act_quantize does, without x' in memory. */
VQ_MUST_CHECK int vq_transform_quantize(const struct vq_transform *t, const struct vq_agrid *g,
					const float *x, struct vq_qact *a, struct vq_err *err);

/* The Hadamard transform of one block without the division: x [n], n a power of two. */
void vq_fwht(float *x, uint32_t n);

#endif
