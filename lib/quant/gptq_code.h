/* How a weight becomes a code on a grid of GPTQ: for its own files. */
#ifndef VQ_QUANT_GPTQ_CODE_H
#define VQ_QUANT_GPTQ_CODE_H

#include <math.h>

#include "quant/gptq.h"

/* The nearest code, ties to even; an empty grid's is z. */
static inline uint8_t vq_gptq_code(const struct vq_wgrid *grid, struct vq_gptq_step p, double w)
{
	double top = (double)((1u << grid->bits) - 1), u;

	if (p.s == 0)
		return (uint8_t)p.z;
	u = rint(w / p.s) + p.z;
	u = u > 0 ? u : 0;
	return (uint8_t)(u < top ? u : top);
}

#endif
