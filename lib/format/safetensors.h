/* safetensors files: 8 bytes of length, a JSON header, the data.  All rules of the reference reader are
 * enforced: https://github.com/huggingface/safetensors (README and tensor.rs). */
#ifndef VQ_FORMAT_SAFETENSORS_H
#define VQ_FORMAT_SAFETENSORS_H

#include "base/io.h"
#include "base/json.h"
#include "stream/tensor.h"

struct vq_st_entry {
	char *name;
	struct vq_tensor t; /* data points into the file */
};

struct vq_st {
	char *path;
	struct vq_map map;           /* of vq_st_open */
	struct vq_st_entry *entries; /* sorted by name */
	size_t n;
	json_t *metadata; /* "__metadata__": string to string; NULL when absent */
};

/* status: code for a file that cannot be opened (see vq_file_read). */
VQ_MUST_CHECK int vq_st_open(struct vq_st *st, const char *path, int status, struct vq_err *err);
/* The same of a file that lies in memory; data are kept, path is for messages. */
VQ_MUST_CHECK int vq_st_parse(struct vq_st *st, const uint8_t *data, size_t n, const char *path,
			      struct vq_err *err);
void vq_st_close(struct vq_st *st);
/* In entries that are sorted by name. */
const struct vq_st_entry *vq_st_lookup(const struct vq_st_entry *entries, size_t n,
				       const char *name);
const struct vq_tensor *vq_st_find(const struct vq_st *st, const char *name); /* NULL when absent */

const char *vq_st_dtype(enum vq_dtype t); /* "F16"; NULL for a type that the format lacks */

/* The head of a file to fd: length and header for n tensors, whose data are not looked at.  Their bytes must follow in
 * *order, which is given: [n], sorted as vq_st_write says. */
VQ_MUST_CHECK int vq_st_write_head(int fd, const char *label, const struct vq_st_entry *entries,
				   size_t n, const json_t *metadata,
				   const struct vq_st_entry ***order, struct vq_err *err);
/* Bytes of a tensor; VQ_E_DATA when they do not fit a size_t. */
VQ_MUST_CHECK int vq_st_bytes(const struct vq_tensor *t, size_t *bytes);

/* Writes a file: tensors sorted by dtype size (largest first), then name; header padded to 8 bytes.
 * Through path.part and rename. */
VQ_MUST_CHECK int vq_st_write(const char *path, const struct vq_st_entry *entries, size_t n,
			      const json_t *metadata, struct vq_err *err);

#endif
