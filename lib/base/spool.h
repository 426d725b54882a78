/* A file without a name, in ${TMPDIR:-/tmp}: for data that come through a pipe, or must be made, and are gone over
 * several times, but are too large for memory.  It goes away with the process. */
#ifndef VQ_BASE_SPOOL_H
#define VQ_BASE_SPOOL_H

#include "base/io.h"

struct vq_spool {
	int fd;
	size_t n;        /* bytes so far */
	void *window;    /* of the piece that is being written */
	size_t window_n; /* mapped bytes of it */
	struct vq_map map;
};

/* VQ_E_SYS names the folder. */
VQ_MUST_CHECK int vq_spool_open(struct vq_spool *s, struct vq_err *err);

/* Room for n > 0 bytes at its end, mapped until the next call of this or of vq_spool_map: *p to be filled by the caller,
 * *at where the bytes begin, a multiple of VQ_ALIGN.  A full disk: VQ_E_SYS. */
VQ_MUST_CHECK int vq_spool_room(struct vq_spool *s, size_t n, void **p, size_t *at,
				struct vq_err *err);

/* s->map: all of it, to be read; with load a copy in memory of large pages.  Again: what was mapped before is given
 * back.  An empty spool has an empty map. */
VQ_MUST_CHECK int vq_spool_map(struct vq_spool *s, int load, struct vq_err *err);

void vq_spool_close(struct vq_spool *s); /* fine after a failed open */

#endif
