/* The forward run of a calibration: all samples, layer by layer, in full precision. */
#ifndef VQ_TASK_CALIB_RUN_H
#define VQ_TASK_CALIB_RUN_H

#include "format/checkpoint.h"
#include "model/prompt.h"
#include "stream/writer.h"
#include "task/calib.h"
#include "task/plan.h"

/* Rows of hidden states that go through a layer at once. */
#define VQ_CALIB_CHUNK_ROWS 2048u
/* Elements (rows times channels) of a pair of layers that the joint matrices look at, at most. */
#define VQ_CALIB_JOINT_ELEMENTS (1u << 20)

struct vq_calib_run {
	const struct vq_config *cfg;
	const struct vq_ckpt *ckpt;
	const struct vq_calib_meta *meta; /* checkpoints */
	struct vq_prompt *prompts; /* [n]; their pixels are freed once they are in the tower */
	uint32_t n;
	uint64_t seed;
	uint32_t bits[VQ_CALIB_MAX_BITS], n_bits;
	int error_stats;
	uint32_t influence_samples;
};

/* INPUT input/I/tokens and input/I/pixels. */
VQ_MUST_CHECK int vq_calib_put_inputs(const struct vq_calib_run *r, struct vq_writer *w,
				      struct vq_err *err);

/* Runs, and writes INPUT input/checkpoint/U as they are reached and the STAT records at the end. */
VQ_MUST_CHECK int vq_calib_run_all(const struct vq_calib_run *r, struct vq_writer *w,
				   struct vq_err *err);

#endif
