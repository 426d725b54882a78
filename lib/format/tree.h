/* The files of a model: a folder, or an archive of one (tar or ZIP; tar also compressed with zstd, gzip, xz or bzip2).
 * What lies uncompressed in a plain file is mapped where it is; the rest is unpacked into a spool (base/spool.h). */
#ifndef VQ_FORMAT_TREE_H
#define VQ_FORMAT_TREE_H

#include "base/spool.h"
#include "format/members.h"

#define VQ_TREE_HEAD 512u /* bytes of a file that tell whether it is an archive: a tar's header */

struct vq_tree {
	char *path; /* of the folder or archive, as in messages */
	char *root; /* of an archive: what stands before its names, "llava-7b/" or "" */
	int is_archive;
	struct vq_members members;
	struct vq_map map;     /* of the archive, or */
	struct vq_spool spool; /* of what was in it; fd is -1 when there is none */
	const uint8_t *data;   /* of whichever it is */
};

/* 1 when the first bytes of a file are those of an archive that may be a model's: a packed model's are not. */
int vq_tree_is_archive(const uint8_t *head, size_t n);

/* A folder, which is not looked into yet. */
VQ_MUST_CHECK int vq_tree_open_folder(struct vq_tree *t, const char *path, struct vq_err *err);
/* An archive from a descriptor of which n bytes were read already, head; fd is borrowed.  Its names are those below the
 * folder in it that has a config.json; none, or several: VQ_E_DATA. */
VQ_MUST_CHECK int vq_tree_open_archive(struct vq_tree *t, int fd, const void *head, size_t n,
				       const char *path, struct vq_err *err);
void vq_tree_close(struct vq_tree *t); /* fine on zeroes, and after a failed open */

int vq_tree_has(const struct vq_tree *t, const char *name);                        /* 1 or 0 */
char *vq_tree_path(const struct vq_tree *t, const char *name, struct vq_err *err); /* given */

/* A whole small file: 1 and its bytes with a zero byte after them (given), 0 when there is none, < 0 error. */
VQ_MUST_CHECK int vq_tree_read(const struct vq_tree *t, const char *name, size_t limit, char **data,
			       size_t *n, struct vq_err *err);

/* A large file, mapped.  Its bytes move in vq_piece_load. */
struct vq_piece {
	char *path; /* for messages */
	const uint8_t *data;
	size_t n;
	struct vq_map own; /* of a folder's file */
	size_t at;         /* of an archive's, in its data */
};

VQ_MUST_CHECK int vq_piece_open(struct vq_piece *p, const struct vq_tree *t, const char *name,
				struct vq_err *err);
/* Copies it to memory of large pages; of an archive all, once.  A file that is no longer as large: VQ_E_DATA. */
VQ_MUST_CHECK int vq_piece_load(struct vq_piece *p, struct vq_tree *t, struct vq_err *err);
void vq_piece_close(struct vq_piece *p);

#endif
