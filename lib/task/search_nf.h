/* NF weights between what quantizes them and their records (quant/nf4.h, task/search_held.h). */
#ifndef VQ_TASK_SEARCH_NF_H
#define VQ_TASK_SEARCH_NF_H

#include "task/search_held.h"

/* The NF codes of a weight, with their errors. */
VQ_MUST_CHECK int vq_searched_nf(struct vq_searched *q, uint32_t bits, const struct vq_tensor *w,
				 struct vq_err *err);

/* X.absmax and what it is made of, after the codes; the arrays of a are taken over. */
VQ_MUST_CHECK int vq_held_put_absmax(struct vq_held_list *l, const struct vq_held *in,
				     struct vq_nf_absmax *a, struct vq_err *err);
/* The weight of record h, codes of so many bits; f borrows from l.  Everything is checked. */
VQ_MUST_CHECK int vq_held_find_nf(const struct vq_held_list *l, const struct vq_held *h,
				  uint32_t bits, struct vq_nf *f, struct vq_err *err);

#endif
