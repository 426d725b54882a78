/* Memory of large pages (2 MiB where the system has them), for weights: read once a token, they would spend a tenth to
 * a third of the time on address translation in pages of 4 KiB. */
#ifndef VQ_BASE_PAGES_H
#define VQ_BASE_PAGES_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define VQ_LARGE_PAGE ((size_t)2 << 20)

struct vq_pages {
	uint8_t *data; /* at a multiple of VQ_LARGE_PAGE, where it stays; NULL: none */
	size_t n;      /* usable bytes */
	size_t room;   /* addresses reserved from data on */
	void *at;      /* what the system gave */
	size_t at_n;
};

/* Addresses for up to `most` bytes, none usable yet.  With `less` set, half as many, or a quarter, ... where the system
 * refuses (ulimit -v); room says.  VQ_E_SYS. */
VQ_MUST_CHECK int vq_pages_reserve(struct vq_pages *p, size_t most, int less, struct vq_err *err);

/* The first n bytes can be used from now on, and read as zero until they are written.  VQ_E_SYS when there is no
 * memory, or no room: what was usable stays so. */
VQ_MUST_CHECK int vq_pages_grow(struct vq_pages *p, size_t n, struct vq_err *err);

void vq_pages_free(struct vq_pages *p); /* fine on zeroes */

/* Fills p, which is free, with the first n bytes of a plain file; all threads read.  Fewer bytes: VQ_E_DATA. */
VQ_MUST_CHECK int vq_pages_load(struct vq_pages *p, int fd, size_t n, const char *label,
				struct vq_err *err);

/* Keeps bytes, in pages of any kind, from leaving memory; a mapped file is read for that.  VQ_E_SYS names the limit
 * that forbids it. */
VQ_MUST_CHECK int vq_pages_lock(const void *data, size_t n, struct vq_err *err);

/* Bytes of a mapped file that will be wanted soon: the system begins to read them and does not wait.  Elsewhere nothing. */
void vq_pages_want(const void *data, size_t n);

#endif
