/* A layer's rounding error: how far its output moves when its weights are rounded and its inputs quantized. */
#ifndef VQ_TASK_CALIB_ERROR_H
#define VQ_TASK_CALIB_ERROR_H

#include "model/model.h"

/* Relative squared error of the output, ||out_q - out||^2 / ||out||^2, with weights rounded to nearest (group 128,
 * asymmetric) and the input of every linear quantized alike at `bits`.  in: hidden states before the layer, out:
 * after it, both [rows, hidden] of the batch.  One slot's weights are held as float at a time. */
VQ_MUST_CHECK int vq_calib_layer_error(const struct vq_layer *l, const float *in, const float *out,
				       const struct vq_batch *b, uint32_t bits, float *error,
				       struct vq_err *err);

/* The same for the projector: features [n, C] and its output [n, d]. */
VQ_MUST_CHECK int vq_calib_projector_error(const struct vq_config *c, const struct vq_projector *p,
					   const float *features, const float *out, size_t n,
					   uint32_t bits, float *error, struct vq_err *err);

#endif
