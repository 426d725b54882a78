/* vqlm-calib: from a checkpoint and samples to the model stream.
 *
 * The stream is the table of lib/README.md.  A unit is a transformer layer (or the projector); the statistics:
 *
 *   stat/joint/SPACE/BITS  f32 [n_pairs, 2^b, 2^b]  joint soft levels of the outputs of neighbouring layers (see
 *                          quant/dependency.h), pairs in ascending order, vision pairs before decoder pairs; each sums
 *                          to 1, or is all zero where no sample had a picture; attribute "elements": how many a
 *                          pair were looked at
 *   stat/influence         f32 [n_units]  relative change of the final hidden state (after the last norm, at the
 *                          last prompt token) for a small random change of the unit's output, per relative size of
 *                          the change; see task/calib_probe.h
 *   stat/experts           JSON  rows that each expert of a decoder layer got; see task/calib_experts.h
 *   stat/vision_weight     f32 [n_units]  weight of pictures' tokens beside text's in decoder layers; see
 *                          task/calib_vision_weight.h
 *   stat/sketch/I          f32 [K, rows, C] of sample I, see quant/sketch.h
 *   stat/entropy_sketch/I  f32 [rows, C] of sample I, see task/calib_entropy.h
 *   stat/error/BITS        f32 [n_units]  relative squared error of the unit's output when its weights are rounded
 *                          and the inputs of its linears quantized; see task/calib_error.h
 *
 * Everything is a function of the checkpoint, the samples and the seed; threads change nothing. */
#ifndef VQ_TASK_CALIB_H
#define VQ_TASK_CALIB_H

#include "base/err.h"
#include "model/open.h"

#define VQ_CALIB_MAX_BITS 7 /* 2..8 */

struct vq_calib_opts {
	struct vq_open from;
	const char *data, *images; /* data NULL only with n = 0 */
	uint32_t n;
	uint64_t seed;
	const char *checkpoints; /* "8,16" or NULL */
	const char *bits;        /* "4,6,8" */
	int error_stats;
	uint32_t influence_samples; /* 0: none of what backward passes give */
	int dry_run;
	const char *output; /* NULL: standard output */
	int level;
};

VQ_MUST_CHECK int vq_calib(const struct vq_calib_opts *o, struct vq_err *err);

#endif
