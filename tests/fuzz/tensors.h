/* A file as a checkpoint: every byte of every tensor that is accepted can be read. */
#ifndef FUZZ_TENSORS_H
#define FUZZ_TENSORS_H

#include "format/checkpoint.h"
#include "fuzz.h"

static inline void fuzz_touch(const void *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		(void)((const volatile uint8_t *)p)[i]; /* a fault shows */
}

/* 1 when a promise was broken.  more: what else is asked of a checkpoint that is accepted, or NULL. */
static inline int fuzz_tensors(const uint8_t *data, size_t n,
			       int (*more)(const struct vq_ckpt *c, struct vq_err *err))
{
	struct vq_ckpt *c = NULL;
	struct vq_err err = {0};
	char path[64];
	size_t i, count;
	int fd = fuzz_file(data, n, path, sizeof(path)), rc, bad;

	if (fd < 0)
		return 1;
	rc = vq_ckpt_open(&c, path, &err);
	if (rc == VQ_OK)
		rc = vq_ckpt_ready(c, &err);
	bad = fuzz_outcome(rc, &err);
	for (i = 0; rc == VQ_OK && i < vq_ckpt_count(c); i++) {
		const struct vq_tensor *t = vq_ckpt_find(c, vq_ckpt_name(c, i), NULL);

		bad |= !t || vq_tensor_count(t, &count) < 0;
		if (!bad)
			fuzz_touch(t->data, count * vq_dtype_size(t->dtype));
	}
	if (rc == VQ_OK && more)
		bad |= more(c, &err);
	vq_ckpt_close(c);
	close(fd);
	return bad;
}

#endif
