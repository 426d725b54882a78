/* A checkpoint as its owner has it: named tensors (mapped, never copied whole) and side files.
 * Today: a folder with config.json and safetensors, single or sharded.  It knows no model: which names
 * mean what is model/names.h. */
#ifndef VQ_FORMAT_CHECKPOINT_H
#define VQ_FORMAT_CHECKPOINT_H

#include "base/json.h"
#include "stream/tensor.h"

struct vq_ckpt;

VQ_MUST_CHECK int vq_ckpt_open(struct vq_ckpt **out, const char *path, struct vq_err *err);
/* Copies the weights to memory of large pages (vq_st_load); before the first tensor is found. */
VQ_MUST_CHECK int vq_ckpt_load(struct vq_ckpt *c, struct vq_err *err);
/* Keeps the weights in memory (vq_pages_lock). */
VQ_MUST_CHECK int vq_ckpt_lock(const struct vq_ckpt *c, struct vq_err *err);
void vq_ckpt_close(struct vq_ckpt *c); /* NULL is fine */

const char *vq_ckpt_path(const struct vq_ckpt *c);

/* NULL when there is none of that name.  *where, when not NULL, gets the file that holds it (borrowed). */
const struct vq_tensor *vq_ckpt_find(const struct vq_ckpt *c, const char *name, const char **where);
size_t vq_ckpt_count(const struct vq_ckpt *c);
const char *vq_ckpt_name(const struct vq_ckpt *c, size_t i); /* in sorted order */

/* config.json, parsed.  Borrowed. */
const json_t *vq_ckpt_config(const struct vq_ckpt *c);

/* A side file ("tokenizer.model"): 1 and its bytes (given), 0 when there is none, < 0 error. */
VQ_MUST_CHECK int vq_ckpt_file(const struct vq_ckpt *c, const char *name, char **data, size_t *n,
			       struct vq_err *err);

/* SHA-256 over the sorted names, dtypes, shapes and the SHA-256 of config.json; not over the weights,
 * which would have to be read whole.  hex of VQ_SHA256_HEX. */
VQ_MUST_CHECK int vq_ckpt_identity(const struct vq_ckpt *c, char *hex, struct vq_err *err);

#endif
