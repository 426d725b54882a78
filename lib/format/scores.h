/* What vqlm-infer writes of scored tokens: runs in JSON Lines of windows (perplexity) or of questions (choices). */
#ifndef VQ_FORMAT_SCORES_H
#define VQ_FORMAT_SCORES_H

#include <stdint.h>

#include "base/json.h"
#include "format/shards.h"

/* One or several whole runs, one after the other, as shards are: an opening {"vqlm": KIND, "ids", ...}, an object with
 * "question_id" for each of the ids, totals. */
struct vq_scores {
	json_t *opening; /* the first; the others say the same but for ids, shard and the data of choices */
	json_t *totals; /* the last */
	json_t **lines; /* [n] objects of all ids, as they came */
	uint64_t *at;   /* [n] their line numbers */
	uint32_t n, room;
	json_t *place;     /* id -> position in lines; -1: asked and not there yet */
	uint64_t open;     /* line of the opening that waits for its totals, 0 = none */
	uint64_t last;     /* line read last */
	const char *label; /* borrowed path, or "stdin" */
	const char *kind;
	struct vq_shards shards;
};

/* kind: "perplexity" or "choices".  path "-": standard input.  Another kind of file, openings that differ (another model,
 * protocol, text), shards that are not all there, ids that come twice or have no line, a run that was cut: VQ_E_DATA naming the line. */
VQ_MUST_CHECK int vq_scores_open(struct vq_scores *s, const char *path, const char *kind,
				 struct vq_err *err);
void vq_scores_close(struct vq_scores *s); /* fine on zeroes */

/* A finite number of line i; VQ_E_DATA naming the line when there is none. */
VQ_MUST_CHECK int vq_scores_number(const struct vq_scores *s, uint32_t i, const char *key,
				   double *out, struct vq_err *err);

/* VQ_E_DATA naming the first difference between two openings' members of the given names (at most one dot deep:
 * "params.window"), NULL-terminated. */
VQ_MUST_CHECK int vq_scores_agree(const struct vq_scores *a, const struct vq_scores *b,
				  const char *const *keys, struct vq_err *err);

#endif
