/* The packed model: an uncompressed POSIX pax tar through libarchive (vqlm-model(5)). */
#ifndef VQ_FORMAT_VQM_H
#define VQ_FORMAT_VQM_H

#include "base/json.h"
#include "base/sha256.h"

#define VQ_VQM_MAJOR 1
#define VQ_VQM_MINOR 0

/* --- writing: members one after the other, never seeking, manifest last --- */
struct vq_vqm_writer;

VQ_MUST_CHECK int vq_vqm_create(struct vq_vqm_writer **out, int fd, const char *label,
				struct vq_err *err);
VQ_MUST_CHECK int vq_vqm_add(struct vq_vqm_writer *w, const char *name, const void *data, size_t n,
			     struct vq_err *err);
/* A member in parts: begin with its whole size, then data that add up to it. */
VQ_MUST_CHECK int vq_vqm_begin(struct vq_vqm_writer *w, const char *name, size_t n,
			       struct vq_err *err);
VQ_MUST_CHECK int vq_vqm_data(struct vq_vqm_writer *w, const void *data, size_t n,
			      struct vq_err *err);
VQ_MUST_CHECK int vq_vqm_add_json(struct vq_vqm_writer *w, const char *name, const json_t *j,
				  struct vq_err *err);
/* manifest.json: {"members": [{"name", "size", "offset", "sha256"}...], ...extra}; then the end of the tar. */
VQ_MUST_CHECK int vq_vqm_finish(struct vq_vqm_writer *w, json_t *extra, struct vq_err *err);
void vq_vqm_abort(struct vq_vqm_writer *w); /* frees, after finish too; NULL is fine */

/* --- reading --- */
struct vq_vqm_member {
	char *name;
	const uint8_t *
		data; /* mapped, or in memory when it came from a pipe; at a multiple of 64 bytes */
	size_t n;
	size_t offset; /* in the file */
	char sha256[VQ_SHA256_HEX];
};

struct vq_vqm {
	char *label;
	struct vq_vqm_member *members; /* in file order */
	size_t n;
	int whole; /* every byte has been read: loaded, from a pipe, or for its hash */
	json_t *manifest;
	struct vq_vqm_priv *priv;
};

/* How a model is opened. */
enum {
	VQ_VQM_VERIFY = 1, /* the SHA-256 of weights is checked too */
	VQ_VQM_LOAD = 2,   /* the file is copied to memory of large pages instead of being mapped */
};

/* path "-" reads standard input into such memory, unless it is a plain file.  No manifest, an index that differs from
 * the members, a member outside the file: VQ_E_DATA.  The SHA-256 of everything but weights is checked, that of weights
 * with VQ_VQM_VERIFY, for a pipe, and for files below 256 MiB.  Memory that cannot be had for a copy: VQ_E_SYS. */
VQ_MUST_CHECK int vq_vqm_open(struct vq_vqm *v, const char *path, unsigned how, struct vq_err *err);
/* The same from a descriptor; head: its first n bytes when they have been read already (a pipe). */
VQ_MUST_CHECK int vq_vqm_open_fd(struct vq_vqm *v, int fd, const char *label, const void *head,
				 size_t n, unsigned how, struct vq_err *err);
void vq_vqm_close(struct vq_vqm *v);
/* Opening touches a little of everything, so the system reads nothing ahead in a large mapped file.  From now on it
 * does, but for the member of that name (NULL: none), of which only parts are wanted. */
void vq_vqm_read_ahead(const struct vq_vqm *v, const char *but);
/* The bytes of the file, where they are. */
const uint8_t *vq_vqm_bytes(const struct vq_vqm *v, size_t *n);
const struct vq_vqm_member *vq_vqm_find(const struct vq_vqm *v,
					const char *name); /* NULL when absent */

/* 1 when these first bytes of a file are those of a tar; wants 512 of them. */
int vq_vqm_is_tar(const void *head, size_t n);

#endif
