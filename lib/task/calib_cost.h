/* What a calibration needs, from shapes alone. */
#ifndef VQ_TASK_CALIB_COST_H
#define VQ_TASK_CALIB_COST_H

#include "task/calib_run.h"

struct vq_calib_cost {
	uint64_t memory; /* bytes of own memory at the peak; the mapped checkpoint does not count */
	uint64_t stream; /* bytes of the uncompressed output */
	uint64_t
		spool; /* bytes of the file in TMPDIR that a checkpoint's blocks are made rows of floats in */
	double flop;  /* of all products */
	double joint; /* elements times joint matrices */
};

/* level: zstd level of the output. */
VQ_MUST_CHECK int vq_calib_cost(struct vq_calib_cost *c, const struct vq_calib_run *r, int level,
				struct vq_err *err);

/* Prints it on standard output, with the room on the disk of `output` (NULL: not looked at).
 * level -1: as vq_writer_open chooses. */
VQ_MUST_CHECK int vq_calib_dry_run(const struct vq_calib_run *r, const char *output, int level,
				   struct vq_err *err);

#endif
