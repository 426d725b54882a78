/* Criteria: how much a block of the decoder matters.  Each is a row of vq_criteria and a function in a file of its own. */
#ifndef VQ_TASK_PRUNE_SCORE_H
#define VQ_TASK_PRUNE_SCORE_H

#include "base/str.h"
#include "format/checkpoint.h"
#include "task/prune.h"

/* What a criterion looks at. */
struct vq_prune_job {
	const struct vq_prune_opts *o;
	const struct vq_ckpt *ckpt;
	const struct vq_config *cfg;
};

struct vq_criterion {
	const char *name; /* as --criterion has it */
	/* score [alive->n]: of each block that is there yet, what its absence costs; low goes first. */
	int (*score)(const struct vq_prune_job *j, const struct vq_blocks *alive, double *score,
		     struct vq_err *err);
};

extern const struct vq_criterion vq_criteria[];
extern const size_t vq_n_criteria;
#define VQ_CRITERIA "magnitude" /* their names, for the option table */

const struct vq_criterion *vq_criterion_by_name(const char *name); /* NULL: unknown */

/* The table of scores in the words of the published files (github.com/Nota-NetsPresso/shortened-llm):
 * "block_name,block_score", blocks in ascending order. */
VQ_MUST_CHECK int vq_prune_table(const struct vq_prune_job *j, const struct vq_blocks *alive,
				 const double *score, struct vq_str *out, struct vq_err *err);

/* --- the criteria --- */

/* Sum of |w| over the nine tensors of a block: seven linears, two norms. */
VQ_MUST_CHECK int vq_score_magnitude(const struct vq_prune_job *j, const struct vq_blocks *alive,
				     double *score, struct vq_err *err);

#endif
