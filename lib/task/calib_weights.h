/* The TENSOR records of a model stream, straight from the mapped checkpoint. */
#ifndef VQ_TASK_CALIB_WEIGHTS_H
#define VQ_TASK_CALIB_WEIGHTS_H

#include "format/checkpoint.h"
#include "model/names.h"
#include "stream/writer.h"

/* Other numbers for tensors: *out, given, for the tensor of that name; NULL where it stays. */
struct vq_weight_edit {
	int (*tensor)(void *ctx, const char *name, float **out, struct vq_err *err);
	void *ctx;
};

/* All tensors of the model in stream order, attributes {"linear", "unit"}.  kept: decoder layer i of c is layer kept[i]
 * of the checkpoint; NULL: layer i.  check: each is looked through for NaN and infinity first, VQ_E_DATA naming it.
 * edit (or NULL) gives other numbers, which go out in the checkpoint's type.  The system reads the next one while one is
 * written. */
VQ_MUST_CHECK int vq_calib_weights(struct vq_writer *w, const struct vq_config *c,
				   const struct vq_ckpt *k, const uint32_t *kept, int check,
				   const struct vq_weight_edit *edit, struct vq_err *err);

/* Looks through the tensors of one unit; a run does so before it uses them.  From then on the system reads those of the next
 * unit, which the run will come to. */
VQ_MUST_CHECK int vq_calib_weights_check(const struct vq_config *c, const struct vq_ckpt *k,
					 uint32_t unit, struct vq_err *err);

/* Bytes of all of them, and of the largest. */
VQ_MUST_CHECK int vq_calib_weight_bytes(const struct vq_config *c, const struct vq_ckpt *k,
					uint64_t *bytes, uint64_t *largest, struct vq_err *err);

#endif
