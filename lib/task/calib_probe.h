/* Influence of units on the final hidden state, and the sketch of the vision features, by adjoints.
 *
 * For a sample, F is the final hidden state (after the last norm) at its last prompt token.  Sign vectors u_k are pulled
 * back through the decoder, the projector and the vision tower; g_k is what arrives at a unit's output h.  A small
 * change of h with independent entries of the size of their row's rms moves F by, in mean square,
 *
 *     influence^2 = mean over samples of  1/K sum_k sum_rows rms(h_row)^2 ||g_k,row||^2 / ||F||^2
 *
 * since E||J e||^2 = ||J||_F^2 and 1/K sum_k ||J^T u_k||^2 estimates it (Hutchinson).  One backward pass of K
 * vectors gives all units and the sketch (quant/sketch.h); perturbing every unit's output forward would take half a
 * forward a unit.  Vision units are 0 when no sample with a picture was probed.
 *
 * Of a sample with m pictures (the tiles of one) each picture takes ceil(K / m) of the vectors through the tower, the next
 * one those that follow, and its mean is over them: as many go through the tower as of one picture (or one each), all
 * pictures and all vectors have their part, and the sum over pictures is without bias too.  Where the pictures count alike
 * its variance is that of all K vectors for each; where one stands for all of the influence, that of ceil(K / m). */
#ifndef VQ_TASK_CALIB_PROBE_H
#define VQ_TASK_CALIB_PROBE_H

#include "model/model.h"
#include "stream/writer.h"
#include "task/calib_joint.h"
#include "task/calib_run.h"

struct vq_calib_probe {
	const struct vq_calib_run *r;
	uint32_t n, n_k;   /* probed samples; sign vectors of each */
	uint32_t *samples; /* [n] ascending indices of prompts */
	struct {
		float *in,
			*out; /* hidden states [images * positions, C] that enter and leave the tower */
	} * vision;           /* [n] */
	float **decoder; /* [n, L + 1] hidden states [tokens, d] before layer l; after the last */
	float *levels;   /* [L, 2, d] least and most of each channel of a decoder layer's output */
};

/* How many samples and sign vectors a run affords: the work is about that of its forward, and where samples have many
 * pictures (tiles) a sketch is of the size of 64 of them, or of 4 vectors. */
void vq_calib_probe_size(const struct vq_calib_run *r, uint32_t *n, uint32_t *n_k);

VQ_MUST_CHECK int vq_calib_probe_new(struct vq_calib_probe *p, const struct vq_calib_run *r,
				     struct vq_err *err);
void vq_calib_probe_free(struct vq_calib_probe *p);

/* Keeps a copy of sample i's hidden states before layer l (or after the last) of a tower: h [rows, width].  Those between
 * the vision tower's ends are made again on the way back, a picture at a time, and not kept. */
VQ_MUST_CHECK int vq_calib_probe_keep(struct vq_calib_probe *p, int is_vision, uint32_t layer,
				      uint32_t sample, const float *h, size_t rows,
				      struct vq_err *err);

/* Keeps the ranges [d] that the joint matrices have for the output of decoder layer l. */
void vq_calib_probe_levels(struct vq_calib_probe *p, uint32_t layer, const float *min,
			   const float *max);

/* The rows of pictures of sample prompts[i] among n_stack times the decoder's: from [n_stack, tokens, d], in order, as
 * vq_decoder_embed places them; to [n_stack, rows, d]. */
void vq_calib_probe_pictures(const struct vq_config *c, const struct vq_prompt *p,
			     const float *from, uint32_t n_stack, float *to);

/* The backward passes; writes stat/sketch/I, stat/influence, stat/vision_weight (task/calib_vision_weight.h) and, with
 * the joint matrices, stat/entropy_sketch/I (task/calib_entropy.h). */
VQ_MUST_CHECK int vq_calib_probe_run(struct vq_calib_probe *p, const struct vq_model *m,
				     const struct vq_calib_joint *joint, struct vq_writer *w,
				     struct vq_err *err);

#endif
