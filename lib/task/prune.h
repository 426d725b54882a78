/* vqlm-prune: a model without some blocks (layers) of its decoder, as a model stream.
 *
 * Blocks are scored (task/prune_score.h), those with the lowest scores go, the rest is renumbered 0..n-1; embedding, final
 * norm, head, vision tower and projector stay.  After "Shortened LLaMA" (Kim et al., arXiv 2402.02834), section 3.  The
 * stream's line of history has, under params:
 *
 *   n_blocks   blocks of the checkpoint that pruning began with
 *   kept       which of those are left, ascending: block i of this model is block kept[i] of that one
 *   params     weights of this model
 *   criterion  name, "scores" (a file) or "hand"
 *   scores_sha256   of the table of scores, one after the other where it is iterative; not by hand
 *   iterative, no_keep   true where that was asked
 *   heal {way, samples, data_sha256, seed}, of lora also rank, steps, rate
 *   samples, tokens, seed, data_sha256   where there are samples; tokens where they are of a text */
#ifndef VQ_TASK_PRUNE_H
#define VQ_TASK_PRUNE_H

#include "model/open.h"
#include "stream/writer.h"

struct vq_ckpt;

struct vq_prune_opts {
	struct vq_open from;
	const char *
		criterion; /* a name of vq_criteria; NULL: ppl where there are samples, magnitude without */
	const char *scores; /* a file of them instead (task/prune_file.h) */
	/* Samples (task/prune_samples.h): of a data set, or of a text; both NULL: none. */
	const char *data, *images, *text;
	uint32_t samples, tokens;
	int answers;           /* of a data set, ask for the tokens of the answers alone */
	uint32_t taylor_batch; /* samples whose mean loss is taken at a time */
	/* Healing (task/heal.h) on heal_samples of the same data: a name of vq_healings, or NULL. */
	const char *heal;
	uint32_t heal_samples, lora_rank, lora_steps;
	double lora_rate;
	const char *lora_state; /* file that a stopped training goes on from; NULL: none */
	/* How many go, one of these; n 0, ratio 0, params 0 and blocks NULL where it is not asked so. */
	uint32_t n;
	double ratio;
	uint64_t params;
	const char *blocks; /* "20,24-26": those */
	int no_keep;        /* the first four and the last two may go too */
	int iterative;      /* one at a time, the rest scored anew */
	int table;          /* print the scores instead */
	uint64_t seed;
	const char *output; /* NULL: standard output */
	int level;
};

VQ_MUST_CHECK int vq_prune(const struct vq_prune_opts *o, struct vq_err *err);

/* Blocks of the decoder, chosen or there: ascending numbers. */
struct vq_blocks {
	uint32_t *v;
	uint32_t n;
};

void vq_blocks_free(struct vq_blocks *b);

/* Weights of the model with the n decoder blocks of kept; kept NULL: with n blocks, of the mean size of all (blocks with
 * experts are larger than others). */
VQ_MUST_CHECK int vq_prune_params(const struct vq_config *c, const uint32_t *kept, uint32_t n,
				  uint64_t *params, struct vq_err *err);

/* Positions of score [n] in order of removal: lowest first, among equals the lower position; what is no number last. */
void vq_prune_order(const double *score, uint32_t n, uint32_t *order);

/* 1 when the rule "+" of the paper keeps block i of n: the first four and the last two. */
int vq_prune_keeps(uint32_t i, uint32_t n);

/* How many of c's blocks o asks to remove.  A number that cannot be had: VQ_E_USAGE. */
VQ_MUST_CHECK int vq_prune_count(const struct vq_prune_opts *o, const struct vq_config *c,
				 uint32_t *n, struct vq_err *err);

/* What is left of the blocks of `alive` when the first n go that may; order: positions in alive.  kept is given. */
VQ_MUST_CHECK int vq_prune_choose(const struct vq_prune_opts *o, const struct vq_blocks *alive,
				  const uint32_t *order, uint32_t n_blocks, uint32_t n,
				  struct vq_blocks *kept, struct vq_err *err);

/* What is left of n_blocks without those of o->blocks.  kept is given. */
VQ_MUST_CHECK int vq_prune_by_hand(const struct vq_prune_opts *o, uint32_t n_blocks,
				   struct vq_blocks *kept, struct vq_err *err);

#endif
