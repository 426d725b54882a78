/* What a candidate of a block is judged by: the relative squared error of the block's output, its rows weighted where
 * tokens are (task/search_tokens.h), or, for the last block of the vision tower under visual-encoder optimisation,
 *
 *     ||dV||^2 / ||V||^2  +  eta * mean over sketched samples of sum_k <G_k, dV>^2        (quant/sketch.h)
 *                         +  lambda * mean over them of <E, dV>                           (task/calib_entropy.h)
 *
 * with V the features that the projector reads.  The last term, the first-order change of the decoder's entropies, may
 * be negative, and so may the score. */
#ifndef VQ_TASK_SEARCH_SCORE_H
#define VQ_TASK_SEARCH_SCORE_H

#include "task/search.h"
#include "task/search_acts.h"

struct vq_score {
	const struct vq_model *m; /* in full precision */
	const struct vq_config *cfg;
	const struct vq_acts *acts;
	int veo;
	double eta, lambda;
	uint32_t *seqs, n_seqs; /* rows measured: sequences of acts */
	size_t n_rows, width;   /* of the target */
	float *target;          /* output or features in full precision */
	float *features;        /* work space under veo */
	const float *r;         /* [n_rows] weights of the rows; NULL: all 1; borrowed */
	double ref;             /* square of the target */
};

/* Decides what is measured for units first..last. */
void vq_score_begin(struct vq_score *s, const struct vq_search_opts *o, const struct vq_acts *acts,
		    const struct vq_model *m, uint32_t first, uint32_t last);
/* The sequences to measure on, ascending: about n_rows rows, and all that are sketched.  Given. */
uint32_t *vq_score_rows(struct vq_score *s, const struct vq_acts *acts, size_t n_rows, uint32_t *n,
			struct vq_err *err);
/* The block's output in full precision, for the rows of those sequences. */
VQ_MUST_CHECK int vq_score_target(struct vq_score *s, const float *out, struct vq_err *err);
VQ_MUST_CHECK int vq_score_of(struct vq_score *s, const float *out, double *score,
			      struct vq_err *err);
void vq_score_free(struct vq_score *s); /* fine on zeroes */

#endif
