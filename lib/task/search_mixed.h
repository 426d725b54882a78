/* --mixed: some layers keep inputs of 8 bits, those with the highest entropy, which fewer levels hurt most. */
#ifndef VQ_TASK_SEARCH_MIXED_H
#define VQ_TASK_SEARCH_MIXED_H

#include "stream/reader.h"
#include "stream/writer.h"
#include "task/entropy_stat.h"
#include "task/search.h"

#define VQ_MIXED_BITS 8u /* of these inputs, unless all have more */

/* 1 when --mixed reads this STAT record: the joint levels at 4 bits, as they are before or after a rotation. */
int vq_mixed_wants(const struct vq_search_opts *o, const struct vq_record *rec);
/* Takes it, and passes it on to out when that is not NULL. */
VQ_MUST_CHECK int vq_mixed_record(struct vq_entropy_stat *s, const struct vq_search_opts *o,
				  const struct vq_config *c, struct vq_reader *r,
				  const struct vq_record *rec, struct vq_writer *out,
				  struct vq_err *err);

/* wide [n_units], given: 1 for round(share * n) of the n units with an entropy, the highest; of equals the first.
 * NULL stays for share 0.  VQ_E_DATA when there is no record. */
VQ_MUST_CHECK int vq_mixed_units(uint8_t **wide, const struct vq_entropy_stat *s,
				 const struct vq_search_opts *o, const char *label,
				 struct vq_err *err);

#endif
