/* Putting the parts of a run together: `vqlm-infer --shard I/N` says in its opening which part it is. */
#ifndef VQ_FORMAT_SHARDS_H
#define VQ_FORMAT_SHARDS_H

#include <stdint.h>

#include "base/json.h"

/* "3/8" -> 3 and 8.  VQ_E_USAGE when it is no I/N with I of 1..N; err is not filled. */
VQ_MUST_CHECK int vq_shard_parse(const char *s, uint32_t *i, uint32_t *n);

/* VQ_E_DATA naming label, line and the first member, of "params" or of the openings themselves, in which openings `was` and
 * `is` differ, other than ids, shard and `but` (NULL: no other). */
VQ_MUST_CHECK int vq_shards_same(const json_t *was, json_t *is, const char *but, const char *label,
				 uint64_t line, struct vq_err *err);

/* Runs whose openings say the same but for ids and shard are one, in N parts. */
struct vq_shards {
	struct vq_shards_run *runs;
	uint32_t n;
};

/* One more opening.  A shard that is no I/N, that came before, or is of another N than its run's: VQ_E_DATA.  label is kept
 * as it is until the close. */
VQ_MUST_CHECK int vq_shards_add(struct vq_shards *s, json_t *opening, const char *label,
				uint64_t line, struct vq_err *err);

/* VQ_E_DATA naming the shards that a run lacks, or that its ids are not as many as "n_asked" says. */
VQ_MUST_CHECK int vq_shards_whole(const struct vq_shards *s, struct vq_err *err);
void vq_shards_close(struct vq_shards *s); /* fine on zeroes */

#endif
