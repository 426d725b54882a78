/* Where the members of an archive that lies in memory are: tar and ZIP (ZIP64 too), whose files are kept as they are.
 * libarchive reads the directory; nothing is copied, and no data are read. */
#ifndef VQ_FORMAT_MEMBERS_H
#define VQ_FORMAT_MEMBERS_H

#include <stddef.h>
#include <stdint.h>

#include "base/spool.h"

struct vq_member {
	char *name; /* relative, without ".." */
	size_t at;  /* of its data in the archive */
	size_t n;   /* bytes */
	int packed; /* compressed: at is of no use */
};

struct vq_members {
	struct vq_member *v; /* by name; no two overlap */
	size_t n;
};

/* Folders are left out.  A name that leads outside, a link, an encrypted or sparse file, a name that is there twice, a
 * cut archive, a ZIP whose local headers do not say what its directory says: VQ_E_DATA naming label.  Given:
 * vq_members_free. */
VQ_MUST_CHECK int vq_members_read(struct vq_members *m, const uint8_t *data, size_t n,
				  const char *label, struct vq_err *err);
/* The same, and every file's data against the checksum that a ZIP has of them (a tar has none).  The others here that map
 * do not look at it: it would take a pass over all of a checkpoint, and torch.save may be told to write none. */
VQ_MUST_CHECK int vq_members_check(struct vq_members *m, const uint8_t *data, size_t n,
				   const char *label, struct vq_err *err);
/* The same of an archive that is compressed, or comes through a pipe: its files, whose checksums are looked at, go to the
 * spool, where `at` is theirs.
 * head: what was read of fd already, n bytes. */
VQ_MUST_CHECK int vq_members_unpack(struct vq_members *m, struct vq_spool *s, int fd,
				    const void *head, size_t n, const char *label,
				    struct vq_err *err);
void vq_members_free(struct vq_members *m); /* fine on zeroes */

const struct vq_member *vq_members_find(const struct vq_members *m, const char *name);

/* A name of an archive as it is used here: without "./" before it.  NULL when it is absolute, leads outside, or ends
 * nowhere.  Borrowed from name. */
const char *vq_member_name(const char *name);

#endif
