/* The criterion "ppl": perplexity of the model without one block, after Kim et al. (arXiv 2402.02834), section 3.2.
 *
 * Without block i, the blocks before it do what they do in the whole model: their output is kept, and only those behind
 * run again.  The hidden states of several such models go through a block together, so that its weights are read once for
 * all of them: half the products of running every model whole, and the checkpoint is gone through once for as many models
 * as STATE_BYTES hold. */
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "task/prune_run.h"
#include "task/prune_score.h"

#define STATE_BYTES ((size_t)1 << 30)

struct sweep {
	const struct vq_prune_run *run;
	const struct vq_blocks *alive;
	size_t n_state; /* floats of the hidden states of all samples */
	float *whole;   /* of the model that has every block */
	float *without; /* [group] of those that lack one each */
	uint32_t group;
	struct vq_progress bar;
	uint64_t done;
};

/* Models without alive blocks first..first+n-1; s->whole stands before block `first`, and after the last of them. */
static int one_group(struct sweep *s, uint32_t first, uint32_t n, double *score, struct vq_err *err)
{
	uint32_t at, open = 0, i;
	int rc = VQ_OK;

	for (at = first; rc == VQ_OK && at < s->alive->n; at++) {
		uint32_t b = s->alive->v[at];

		if (open)
			rc = vq_prune_run_block(s->run, b, s->without, open, err);
		if (rc == VQ_OK && at < first + n) {
			memcpy(s->without + open++ * s->n_state, s->whole,
			       s->n_state * sizeof(float));
			if (at + 1 < s->alive->n)
				rc = vq_prune_run_block(s->run, b, s->whole, 1, err);
		}
		s->done += open;
		vq_progress_step(&s->bar, s->done);
	}
	for (i = 0; rc == VQ_OK && i < n; i++)
		rc = vq_prune_run_ppl(s->run, s->without + i * s->n_state, &score[first + i], err);
	return rc;
}

int vq_prune_ppl(const struct vq_prune_run *run, const struct vq_blocks *alive, size_t state_bytes,
		 double *score, struct vq_err *err)
{
	struct sweep s = {.run = run, .alive = alive};
	size_t bytes;
	uint32_t i, n;
	int rc = VQ_OK;

	s.n_state = (size_t)run->rows * run->width;
	bytes = s.n_state * sizeof(float);
	s.group = bytes < state_bytes ? (uint32_t)(state_bytes / bytes) : 1;
	if (s.group > alive->n)
		s.group = alive->n;
	s.whole = vq_alloc_f32(s.n_state, err);
	s.without = vq_alloc(s.group, bytes, err);
	if (!s.whole || !s.without)
		rc = VQ_E_SYS;
	else
		memcpy(s.whole, run->h0, bytes);
	vq_progress_start(&s.bar, "blocks", (uint64_t)alive->n * (alive->n + 1) / 2);
	for (i = 0; rc == VQ_OK && i < alive->n; i += n) {
		n = alive->n - i < s.group ? alive->n - i : s.group;
		rc = one_group(&s, i, n, score, err);
	}
	vq_progress_end(&s.bar);
	vq_free(s.without);
	vq_free(s.whole);
	return rc;
}

int vq_score_ppl(const struct vq_prune_job *j, const struct vq_blocks *alive, double *score,
		 struct vq_err *err)
{
	return vq_prune_ppl(j->run, alive, STATE_BYTES, score, err);
}
