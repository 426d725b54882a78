/* Zero-shot accuracies out of what vqlm-infer --choices wrote, as lm-evaluation-harness defines them. */
#ifndef VQ_TASK_EVAL_ZEROSHOT_H
#define VQ_TASK_EVAL_ZEROSHOT_H

#include "base/str.h"
#include "format/choices.h"
#include "format/scores.h"
#include "task/eval.h"

/* acc: the choice with the largest ln p is the right one; acc_norm: that with the largest ln p a character.  The first of
 * equals is taken. */
struct vq_eval_task {
	uint32_t n, right, right_norm;
	uint32_t shared, lost, gained; /* against a baseline, by the task's metric in the average */
};

struct vq_eval_zeroshot {
	struct vq_eval_task tasks[VQ_N_CHOICE_TASKS]; /* as vq_choice_tasks; n 0: not asked */
	uint32_t n_of_seven;                          /* of them, that were */
	double average, average_se;                   /* percent; of all seven only */
};

/* base NULL: no baseline; other BOS or no question in common: VQ_E_DATA. */
VQ_MUST_CHECK int vq_eval_zeroshot(struct vq_eval_zeroshot *e, const struct vq_scores *run,
				   const struct vq_scores *base, struct vq_err *err);

VQ_MUST_CHECK int vq_eval_zeroshot_print(struct vq_str *out, const struct vq_eval_zeroshot *e,
					 const struct vq_scores *run, const struct vq_scores *base,
					 enum vq_eval_format format, struct vq_err *err);

/* Of scores [n] and characters [n] of the choices: the position of the best, by characters when norm is set. */
uint32_t vq_best_choice(const double *scores, const double *chars, uint32_t n, int norm);

#endif
