/* Input of the reader: a small buffer for headers, and payloads that bypass it. */
#ifndef VQ_STREAM_SOURCE_H
#define VQ_STREAM_SOURCE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/err.h"

struct vq_source {
	int fd;
	const char *label; /* borrowed */
	uint8_t *buf;
	size_t at, n; /* unread bytes are buf[at..n) */
	int seekable; /* a plain file: skipping is a seek */
	int stop; /* a descriptor: once it can be read, waiting for input ends with VQ_E_STOP; -1: none */
};

/* head: the first n bytes of the input when the caller has read them already.  A pipe is made as large as
 * an unprivileged process may (1 MiB), so that both ends are woken seldom. */
VQ_MUST_CHECK int vq_source_open(struct vq_source *s, int fd, const char *label, const void *head,
				 size_t n, struct vq_err *err);
void vq_source_close(struct vq_source *s);

/* All of these: 1 = done, 0 = the input ended first, < 0 error. */
VQ_MUST_CHECK int vq_source_read(struct vq_source *s, void *dst, size_t n, struct vq_err *err);
VQ_MUST_CHECK int vq_source_skip(struct vq_source *s, uint64_t n, struct vq_err *err);
/* Fills the pieces in order; iov is used up. */
VQ_MUST_CHECK int vq_source_scatter(struct vq_source *s, struct iovec *iov, int n_iov,
				    struct vq_err *err);
/* *p gets whatever bytes are there, at least one and at most most; they count as read. */
VQ_MUST_CHECK int vq_source_some(struct vq_source *s, uint64_t most, const uint8_t **p, size_t *n,
				 struct vq_err *err);

/* 1 when nothing is left, 0 when something is, < 0 error. */
VQ_MUST_CHECK int vq_source_at_end(struct vq_source *s, struct vq_err *err);

/* Asks for the largest pipe; does nothing for other descriptors. */
void vq_pipe_widen(int fd);

#endif
