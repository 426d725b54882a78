/* Slopes of the decoder's entropies in the vision features: what visual-encoder optimisation needs to know of Q-VLM's
 * entropy loss (its Eq 8, with the sign that its text wants: entropy is to fall),
 *
 *   L_ent = sum over neighbouring decoder layers of influence(k) D(k, k+1)
 *
 * where search scores vision clips before any weight of the decoder has come.  For a probed sample with pictures, D's
 * slopes in the layers' outputs (quant/dependency_slope.h, levels as in stat/joint/raw at the smallest of --bits) are
 * pulled back through the decoder and the projector, added up layer by layer, to
 *
 *   STAT stat/entropy_sketch/I   f32 [rows, n_in] of sample I, attribute "bits":   L_ent(V + dV) - L_ent(V) ~ <sketch, dV>
 *
 * in the mean over samples, as if all samples moved alike.  Levels' ranges and influences stay as they are. */
#ifndef VQ_TASK_CALIB_ENTROPY_H
#define VQ_TASK_CALIB_ENTROPY_H

#include "task/calib_probe.h"

/* influence [n_units]. */
VQ_MUST_CHECK int vq_calib_entropy(const struct vq_calib_probe *p, const struct vq_model *m,
				   const struct vq_calib_joint *joint, const float *influence,
				   struct vq_writer *w, struct vq_err *err);

#endif
