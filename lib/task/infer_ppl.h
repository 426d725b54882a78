/* Perplexity's windows: which tokens are read together and which of them are scored. */
#ifndef VQ_TASK_INFER_PPL_H
#define VQ_TASK_INFER_PPL_H

#include "task/infer.h"

struct vq_ppl_spec {
	const char *protocol, *bos; /* names; bos "replace" in place of a window's first token */
	uint32_t window;            /* tokens of the text, a BOS that only comes first among them */
	int bos_first, bos_each, bos_replace; /* one of them, or none */
	uint32_t n,
		from; /* tokens of a sequence through the model; the first of it that is scored */
};

/* What o asks for.  A window or a BOS that the named protocol does not have: VQ_E_USAGE. */
VQ_MUST_CHECK int vq_ppl_resolve(struct vq_ppl_spec *s, const struct vq_infer *o,
				 struct vq_err *err);

/* Window i of the text's tokens (with BOS first where the protocol has it) as a sequence [s->n]. */
void vq_ppl_window(const struct vq_ppl_spec *s, const int32_t *tokens, uint32_t i, int32_t bos,
		   int32_t *out);

#endif
