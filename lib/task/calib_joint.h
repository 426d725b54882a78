/* Joint matrices of soft levels of neighbouring layers' outputs, while a run goes through a tower. */
#ifndef VQ_TASK_CALIB_JOINT_H
#define VQ_TASK_CALIB_JOINT_H

#include "stream/writer.h"
#include "task/calib_run.h"

#define VQ_CALIB_SPACES 2 /* raw, hadamard */

struct vq_calib_joint {
	uint32_t bits[VQ_CALIB_MAX_BITS], n_bits;
	uint32_t n_pairs, pair;                       /* all; the next one */
	float *p[VQ_CALIB_SPACES][VQ_CALIB_MAX_BITS]; /* [n_pairs, L, L] probabilities */
	uint32_t *rows, n_rows, width;                /* of the tower: rows that are looked at */
	float *x[2][VQ_CALIB_SPACES], *min[2][VQ_CALIB_SPACES], *max[2][VQ_CALIB_SPACES];
	int now, have; /* which of the two is the newer output; how many outputs came */
	uint64_t seed;
	uint64_t n_looked; /* elements of the first pair, for the record's attributes */
};

VQ_MUST_CHECK int vq_calib_joint_new(struct vq_calib_joint *j, const struct vq_calib_run *r,
				     uint32_t n_pairs, struct vq_err *err);
void vq_calib_joint_free(struct vq_calib_joint *j); /* fine on zeroes and after a failure */

/* A tower begins: n_rows hidden states of width channels; its rows are chosen. */
VQ_MUST_CHECK int vq_calib_joint_tower(struct vq_calib_joint *j, size_t n_rows, uint32_t width,
				       struct vq_err *err);

/* The output h [n_rows, width] of the tower's next layer.  Ranges are those of the rows looked at, so that
 * every level is within 0..2^bits-1. */
VQ_MUST_CHECK int vq_calib_joint_output(struct vq_calib_joint *j, const float *h,
					struct vq_err *err);

VQ_MUST_CHECK int vq_calib_joint_write(const struct vq_calib_joint *j, struct vq_writer *w,
				       struct vq_err *err);

#endif
