/* The TENSOR records of a model stream, straight from the mapped checkpoint. */
#ifndef VQ_TASK_CALIB_WEIGHTS_H
#define VQ_TASK_CALIB_WEIGHTS_H

#include "format/checkpoint.h"
#include "model/names.h"
#include "stream/writer.h"

/* All tensors of the model in stream order, attributes {"linear", "unit"}.  Each is looked through for NaN and
 * infinity first: VQ_E_DATA naming it. */
VQ_MUST_CHECK int vq_calib_weights(struct vq_writer *w, const struct vq_config *c,
				   const struct vq_ckpt *k, struct vq_err *err);

/* Bytes of all of them. */
VQ_MUST_CHECK int vq_calib_weight_bytes(const struct vq_config *c, const struct vq_ckpt *k,
					uint64_t *bytes, struct vq_err *err);

#endif
