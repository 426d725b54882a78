/* Criteria: how much a block of the decoder matters.  Each is a row of vq_criteria and a function in a file of its own. */
#ifndef VQ_TASK_PRUNE_SCORE_H
#define VQ_TASK_PRUNE_SCORE_H

#include "base/str.h"
#include "format/checkpoint.h"
#include "task/prune.h"

struct vq_prune_run;

/* A block's q, k, v, o, gate, up, down, norm1, norm2. */
#define VQ_PRUNE_TENSORS 9u

/* What a criterion looks at. */
struct vq_prune_job {
	const struct vq_prune_opts *o;
	const struct vq_ckpt *ckpt;
	const struct vq_config *cfg;
	const struct vq_prune_run
		*run;   /* the model and its samples; NULL for a criterion without */
	double *detail; /* [alive->n, VQ_PRUNE_TENSORS]: of a criterion that scores tensors */
};

struct vq_criterion {
	const char *name;  /* as --criterion has it */
	int needs_samples; /* --data or --text */
	int of_tensors;    /* it fills detail: a block's score is the sum */
	int is_removal; /* the score is measured with the block removed: --table has the columns of that */
	/* score [alive->n]: of each block that is there yet, what its absence costs; low goes first. */
	int (*score)(const struct vq_prune_job *j, const struct vq_blocks *alive, double *score,
		     struct vq_err *err);
};

extern const struct vq_criterion vq_criteria[];
extern const size_t vq_n_criteria;
#define VQ_CRITERIA "ppl|taylor|magnitude|cosine|angular" /* their names, for messages */

/* The one that o asks for, by name, or by what there is to look at; NULL: unknown. */
const struct vq_criterion *vq_prune_criterion(const struct vq_prune_opts *o);

/* The table of scores, blocks in ascending order, in the columns of the published files
 * (github.com/Nota-NetsPresso/shortened-llm): "removed_block,ppl_NAME,num_calib_data,params" for perplexities, NAME that
 * of the data's file up to its first dot; "block_name,all_weight_scores" and nine columns for taylor; else
 * "block_name,block_score".  c NULL: scores from a file. */
VQ_MUST_CHECK int vq_prune_table(const struct vq_prune_job *j, const struct vq_criterion *c,
				 const struct vq_blocks *alive, const double *score,
				 struct vq_str *out, struct vq_err *err);

/* --- the criteria --- */

/* Sum of |w| over the nine tensors of a block: seven linears, two norms. */
VQ_MUST_CHECK int vq_score_magnitude(const struct vq_prune_job *j, const struct vq_blocks *alive,
				     double *score, struct vq_err *err);
/* Perplexity without the block. */
VQ_MUST_CHECK int vq_score_ppl(const struct vq_prune_job *j, const struct vq_blocks *alive,
			       double *score, struct vq_err *err);
/* Sum of |w dL/dw| over the nine tensors (task/prune_taylor.c). */
VQ_MUST_CHECK int vq_score_taylor(const struct vq_prune_job *j, const struct vq_blocks *alive,
				  double *score, struct vq_err *err);
/* 1 - mean cosine between the hidden states before and after the block; mean angle at the last tokens, in half turns. */
VQ_MUST_CHECK int vq_score_cosine(const struct vq_prune_job *j, const struct vq_blocks *alive,
				  double *score, struct vq_err *err);
VQ_MUST_CHECK int vq_score_angular(const struct vq_prune_job *j, const struct vq_blocks *alive,
				   double *score, struct vq_err *err);

#endif
