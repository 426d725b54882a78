/* How probable given tokens are after those before them, for many sequences: perplexity and choices. */
#ifndef VQ_TASK_INFER_SCORE_H
#define VQ_TASK_INFER_SCORE_H

#include "task/infer_parts.h"

struct vq_scored {
	const int32_t *tokens; /* [n], n > 1; borrowed */
	uint32_t n, from;      /* tokens from..n - 1 are scored; 0 < from < n */
	double log_prob;       /* out: their sum of natural log softmax over the head's rows */
};

/* Logits [n_rows, vocab] that follow the tokens before those scored first..first + n_rows - 1, as they come. */
typedef int (*vq_on_logits)(void *ctx, const struct vq_scored *v, uint32_t first, uint32_t n_rows,
			    const float *logits, struct vq_err *err);

struct vq_scorer {
	const struct vq_infer *o;
	const struct vq_loaded *l;
	uint32_t workers;       /* batches at a time; results do not depend on their number */
	int small;              /* a model whose batches run on one thread each */
	struct vq_kv *kv;       /* [workers] of one layer, kept from batch to batch */
	vq_on_logits on_logits; /* NULL; with it vq_score_run takes one sequence */
	void *ctx;
};

VQ_MUST_CHECK int vq_scorer_open(struct vq_scorer *s, const struct vq_infer *o,
				 const struct vq_loaded *l, struct vq_err *err);
void vq_scorer_close(struct vq_scorer *s); /* fine on zeroes */

/* Rows that a round should bring. */
uint32_t vq_scorer_rows(const struct vq_scorer *s);

/* Scores v[0..n).  What they begin with alike goes through the model once; only some hundred rows of logits are held.
 * Logits that are no numbers: VQ_E_DATA naming the weight behind them, where it can be found. */
VQ_MUST_CHECK int vq_score_run(struct vq_scorer *s, struct vq_scored *v, uint32_t n,
			       struct vq_err *err);

#endif
