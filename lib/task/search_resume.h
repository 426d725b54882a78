/* An interrupted output of search, read again: its finished blocks are copied and not searched a second time. */
#ifndef VQ_TASK_SEARCH_RESUME_H
#define VQ_TASK_SEARCH_RESUME_H

#include "task/search_held.h"

struct vq_resume;

/* Opens the file and compares its header with the one that this run writes.  VQ_E_SYS when it cannot be opened,
 * VQ_E_DATA when other parameters or another input made it. */
VQ_MUST_CHECK int vq_resume_open(struct vq_resume **out, const char *path, const json_t *header,
				 struct vq_err *err);
void vq_resume_close(struct vq_resume *r); /* NULL is fine */

/* Goes to the first weight.  mark is the META `search` of this run: another one is VQ_E_DATA. */
VQ_MUST_CHECK int vq_resume_start(struct vq_resume *r, const json_t *mark, struct vq_err *err);

/* The records that stand for in[0..n) of the input, and the STAT record stat (NULL: none) after them, appended to
 * out: 1; or 0 when the file does not hold all of them any more (out is then as before, and every later call gives 0).
 * VQ_E_DATA when it holds something else. */
VQ_MUST_CHECK int vq_resume_block(struct vq_resume *r, const struct vq_held *in, size_t n,
				  const char *stat, struct vq_held_list *out, struct vq_err *err);

#endif
