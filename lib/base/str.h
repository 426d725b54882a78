/* A growing string. */
#ifndef VQ_BASE_STR_H
#define VQ_BASE_STR_H

#include <stddef.h>

#include "base/err.h"

/* Zero-initialise.  After a failed append `failed` is set and further appends do nothing, so a caller
 * may append many times and look once. */
struct vq_str {
	char *s; /* NULL while empty; always ends in a zero byte otherwise */
	size_t n, room;
	int failed;
};

void vq_str_add(struct vq_str *b, const char *s, size_t n);
void vq_str_puts(struct vq_str *b, const char *s);
void vq_str_printf(struct vq_str *b, const char *fmt, ...) VQ_PRINTF(2, 3);
void vq_str_free(struct vq_str *b);

#endif
