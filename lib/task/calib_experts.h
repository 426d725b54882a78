/* How many of the calibration rows each expert of the decoder got. */
#ifndef VQ_TASK_CALIB_EXPERTS_H
#define VQ_TASK_CALIB_EXPERTS_H

#include "model/model.h"
#include "stream/writer.h"

struct vq_calib_experts {
	struct vq_layer *layers; /* the model's */
	uint32_t n_layers;
	uint64_t *
		counts; /* of the experts of all layers, in order; owned; NULL: no layer has some */
};

/* From now on m counts the rows that go through its decoder ... */
VQ_MUST_CHECK int vq_calib_experts_begin(struct vq_calib_experts *e, struct vq_model *m,
					 struct vq_err *err);
/* ... and no longer. */
void vq_calib_experts_end(struct vq_calib_experts *e);

/* STAT stat/experts, JSON {"rows": N, "layers": [[rows of each expert], ...]}, an empty list for a dense layer: of N rows
 * each goes to top_k experts.  Nothing where no layer has experts. */
VQ_MUST_CHECK int vq_calib_experts_put(const struct vq_calib_experts *e, uint64_t n_rows,
				       struct vq_writer *w, struct vq_err *err);
void vq_calib_experts_free(struct vq_calib_experts *e); /* fine on zeroes */

#endif
