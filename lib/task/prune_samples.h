/* The samples that a criterion looks at: questions of a data set with their pictures, or crops of a text. */
#ifndef VQ_TASK_PRUNE_SAMPLES_H
#define VQ_TASK_PRUNE_SAMPLES_H

#include "base/sha256.h"
#include "format/checkpoint.h"
#include "model/loss.h"
#include "model/prompt.h"
#include "task/prune.h"

struct vq_prune_samples {
	struct vq_prompt *prompts; /* [n] */
	uint32_t n;
	uint32_t *start; /* [n + 1] first row of each in the hidden states of all; start[0] = 0 */
	uint32_t *
		target; /* [n] the first token that the model is asked for, and after it every one of text */
	char sha256[VQ_SHA256_HEX]; /* of the file they come from */
};

/* o->data: o->samples of its questions, a seeded choice as vqlm-calib makes it, each with its answer and the end token
 * where the file has one.  o->text: lines of at least o->tokens
 * tokens, in a seeded order, the first o->samples of them, of each a seeded crop of o->tokens; the beginning token counts
 * as one of the line's.  Too few of either, or none that has two tokens: VQ_E_DATA. */
VQ_MUST_CHECK int vq_prune_samples_open(struct vq_prune_samples *s, const struct vq_prune_opts *o,
					const struct vq_ckpt *k, const struct vq_config *c,
					struct vq_err *err);
void vq_prune_samples_close(struct vq_prune_samples *s); /* fine on zeroes */

/* 1 when the model is asked for token t of sample i: it is text, something stands before it, and with o->answers it is of
 * the answer. */
int vq_prune_target(const struct vq_prune_samples *s, const struct vq_config *c, uint32_t i,
		    uint32_t t);

/* targets [n_tokens]: what each row of sample i is asked for, the token after it, or VQ_NO_TARGET (model/loss.h).  Returns
 * how many are asked. */
uint32_t vq_prune_targets(const struct vq_prune_samples *s, const struct vq_config *c, uint32_t i,
			  int32_t *targets);

#endif
