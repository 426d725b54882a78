/* The names of a segment, to refuse one that comes twice. */
#ifndef VQ_STREAM_NAMESET_H
#define VQ_STREAM_NAMESET_H

#include <stddef.h>

#include "base/err.h"

/* Zero-initialise. */
struct vq_nameset {
	char **slots; /* room of them, a power of two; NULL where free */
	size_t n, room;
};

/* 1 = added, 0 = it was there already, < 0 no memory. */
VQ_MUST_CHECK int vq_nameset_add(struct vq_nameset *s, const char *name, struct vq_err *err);
void vq_nameset_clear(struct vq_nameset *s); /* frees; may be used again */

#endif
