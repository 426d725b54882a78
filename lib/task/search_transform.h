/* The transforms that search gives the input of a place: random signs, smoothing, and a rotation block by block
 * (quant/hadamard.h, quant/smooth.h, quant/wush.h). */
#ifndef VQ_TASK_SEARCH_TRANSFORM_H
#define VQ_TASK_SEARCH_TRANSFORM_H

#include "task/search.h"
#include "task/search_place.h"

/* The exponents that --smooth search tries, for the values of the weights; 0: no smoothing. */
extern const float vq_smooth_exponents[VQ_QVLM_VALUES];

/* Gives p the transforms that o asks for, once: none, one, or (--smooth search) one for each exponent.  x [n_rows,
 * n_in] is its input from quantized predecessors; it is read for smoothing and WUSH alone, and without
 * rows there is neither: signs and Hadamard then. */
VQ_MUST_CHECK int vq_place_prepare(struct vq_place *p, const struct vq_search_opts *o,
				   const float *x, size_t n_rows, struct vq_err *err);

#endif
