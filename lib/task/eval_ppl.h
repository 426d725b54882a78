/* Perplexity out of what vqlm-infer --ppl wrote. */
#ifndef VQ_TASK_EVAL_PPL_H
#define VQ_TASK_EVAL_PPL_H

#include "base/str.h"
#include "format/scores.h"
#include "task/eval.h"

/* Every window scores as many tokens, so the mean of the windows' means is the mean of the tokens. */
struct vq_eval_ppl {
	uint32_t n;      /* windows */
	uint64_t tokens; /* scored */
	double nll,
		nll_se; /* nats a token; its standard error over windows, NaN for a single one */
	double ppl, ppl_se; /* exp of the mean; to first order ppl * nll_se */
};

/* Against another run, window by window. */
struct vq_eval_ppl_pair {
	uint32_t n;           /* windows that both have */
	double diff, diff_se; /* nats a token more than the baseline */
	double base_ppl;      /* of the baseline on these windows */
};

VQ_MUST_CHECK int vq_eval_ppl(struct vq_eval_ppl *e, const struct vq_scores *run,
			      struct vq_err *err);

/* Other windows, protocol or text: VQ_E_DATA. */
VQ_MUST_CHECK int vq_eval_ppl_compare(struct vq_eval_ppl_pair *p, const struct vq_scores *run,
				      const struct vq_scores *base, struct vq_err *err);

/* pair NULL: no baseline. */
VQ_MUST_CHECK int vq_eval_ppl_print(struct vq_str *out, const struct vq_eval_ppl *e,
				    const struct vq_scores *run,
				    const struct vq_eval_ppl_pair *pair,
				    const struct vq_scores *base, enum vq_eval_format format,
				    struct vq_err *err);

#endif
