/* A checkpoint as its owner has it: named tensors (mapped, never copied whole) and side files.
 * It is a folder with config.json and safetensors or PyTorch files, single or sharded; one of these PyTorch files, for the
 * folder around it; an archive of such a folder (format/tree.h); a model stream; a GGUF file; or a
 * checkpoint of llama2.c.  "-" is an archive or a stream on
 * standard input.  What is compressed is unpacked into a file without a name (base/spool.h).  It knows no model: which
 * names mean what is model/names.h. */
#ifndef VQ_FORMAT_CHECKPOINT_H
#define VQ_FORMAT_CHECKPOINT_H

#include "base/json.h"
#include "stream/tensor.h"

struct vq_ckpt;

/* Whose words the configuration and the tensors' names are in. */
enum vq_ckpt_form {
	VQ_CKPT_HF,    /* config.json and names of Hugging Face's folders */
	VQ_CKPT_MODEL, /* vq_config_json and the canonical names, as in a model stream */
};

VQ_MUST_CHECK int vq_ckpt_open(struct vq_ckpt **out, const char *path, struct vq_err *err);
/* 1 when path is a plain file that vq_ckpt_open would take for a checkpoint, by its first bytes. */
int vq_ckpt_takes(const char *path);
/* Makes what c's format keeps otherwise than as rows of floats (GGUF's blocks) such rows, in a spool; part too.  Until then
 * such tensors have their shape and type, and no data: what a model lacks is found out without the work. */
VQ_MUST_CHECK int vq_ckpt_ready(struct vq_ckpt *c, struct vq_err *err);
/* Bytes of the spool that it would fill. */
uint64_t vq_ckpt_unready(const struct vq_ckpt *c);
/* Copies the weights to memory of large pages ; before the first tensor is found. */
VQ_MUST_CHECK int vq_ckpt_load(struct vq_ckpt *c, struct vq_err *err);
/* Keeps the weights in memory (vq_pages_lock). */
VQ_MUST_CHECK int vq_ckpt_lock(const struct vq_ckpt *c, struct vq_err *err);
void vq_ckpt_close(struct vq_ckpt *c); /* NULL is fine */

const char *vq_ckpt_path(const struct vq_ckpt *c); /* "stdin" for "-" */
enum vq_ckpt_form vq_ckpt_form(const struct vq_ckpt *c);

/* 1 when c's format keeps vision towers in files of their own (GGUF), which vq_ckpt_join makes part of c; *path, when path is
 * not NULL, is then the one beside c, given, or stays NULL.  Several beside it, or c a tower alone: VQ_E_DATA. */
VQ_MUST_CHECK int vq_ckpt_tower(const struct vq_ckpt *c, char **path, struct vq_err *err);

/* From now on tensors that c lacks are those of part, which c keeps, after a failure too: loaded, locked and closed with
 * it.  Side files stay those of c.  Once.  A tower that is not c's: VQ_E_DATA. */
VQ_MUST_CHECK int vq_ckpt_join(struct vq_ckpt *c, struct vq_ckpt *part, struct vq_err *err);
const struct vq_ckpt *vq_ckpt_part(const struct vq_ckpt *c); /* NULL when there is none */

/* NULL when there is none of that name.  *where, when not NULL, gets the file
 * that holds it (borrowed). */
const struct vq_tensor *vq_ckpt_find(const struct vq_ckpt *c, const char *name, const char **where);
size_t vq_ckpt_count(const struct vq_ckpt *c);               /* without those of a part */
const char *vq_ckpt_name(const struct vq_ckpt *c, size_t i); /* in sorted order */

/* config.json, or what stands for it, parsed.  Borrowed. */
const json_t *vq_ckpt_config(const struct vq_ckpt *c);

/* The header of the stream that the checkpoint came as, which says who made it from what; NULL otherwise.  Borrowed. */
const json_t *vq_ckpt_header(const struct vq_ckpt *c);

/* A side file ("tokenizer.model"): 1 and its bytes (given), 0 when there is none, < 0 error.  "tokenizer.json" is made of
 * other tokenizers' files where a folder has none (token_files.h). */
VQ_MUST_CHECK int vq_ckpt_file(const struct vq_ckpt *c, const char *name, char **data, size_t *n,
			       struct vq_err *err);

/* SHA-256 over the sorted names, dtypes, shapes and the SHA-256 of config.json; of the weights over the hashes that a
 * stream has, and nothing where they would have to be read whole for it.  hex of VQ_SHA256_HEX. */
VQ_MUST_CHECK int vq_ckpt_identity(const struct vq_ckpt *c, char *hex, struct vq_err *err);

#endif
