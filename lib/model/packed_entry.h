/* A tensor of a packed file as its two members have it (packed.h): shared by the files that load it. */
#ifndef VQ_MODEL_PACKED_ENTRY_H
#define VQ_MODEL_PACKED_ENTRY_H

#include "format/vqm.h"
#include "kernel/qgemm.h"
#include "model/names.h"
#include "stream/record.h"
#include "stream/tensor.h"

struct vq_packed_entry {
	const struct vq_vqm *v;
	const struct vq_name *name; /* NULL for what stands beside a linear */
	const struct vq_vqm_member *data;
	json_t *j;       /* what its JSON says; the caller's to drop */
	char label[384]; /* for messages: file and member */
};

/* A member that is JSON, parsed; given. */
json_t *vq_packed_json(const struct vq_vqm *v, const char *name, struct vq_err *err);

/* Makes e the tensor of that name, e->v being set. */
VQ_MUST_CHECK int vq_packed_open(struct vq_packed_entry *e, const char *name, const char **layout,
				 struct vq_err *err);

/* dims [VQ_MAX_DIMS]. */
VQ_MUST_CHECK int vq_packed_shape(const struct vq_packed_entry *e, uint32_t *n_dims, uint64_t *dims,
				  struct vq_err *err);

/* A tensor of layout plain, its elements borrowed. */
VQ_MUST_CHECK int vq_packed_plain(const struct vq_packed_entry *e, struct vq_tensor *t,
				  struct vq_err *err);

/* Opens the plain tensor NAME SUFFIX that stands beside a linear; its elements are borrowed from the file. */
VQ_MUST_CHECK int vq_packed_beside(struct vq_packed_entry *e, const char *name, const char *suffix,
				   struct vq_tensor *t, struct vq_err *err);

/* The weight [n_out, n_in] of layout r32k4 in e.  Its parts are borrowed, but for *own: what was made for it (NULL:
 * nothing), given.  What a uniform grid holds is not looked at (vq_packed_check). */
VQ_MUST_CHECK int vq_packed_linear(const struct vq_packed_entry *e, uint32_t n_out, uint32_t n_in,
				   struct vq_packed *p, void **own, struct vq_err *err);

#endif
