/* Files in memory, for what reads and writes descriptors. */
#ifndef MEMFILE_H
#define MEMFILE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/io.h"
#include "base/mem.h"

struct bytes {
	uint8_t *p; /* vq_free */
	size_t n;
};

/* An empty file. */
static inline int file_new(void)
{
	int fd = memfd_create("test", MFD_CLOEXEC);

	assert_true(fd >= 0);
	return fd;
}

/* All of a file, which is closed. */
static inline struct bytes file_bytes(int fd)
{
	struct bytes b = {NULL, 0};
	struct vq_err err = {0};
	struct stat st;

	assert_int_equal(fstat(fd, &st), 0);
	b.p = vq_alloc((size_t)st.st_size + 1, 1, &err);
	assert_non_null(b.p);
	assert_true(lseek(fd, 0, SEEK_SET) == 0);
	assert_int_equal(vq_read_upto(fd, b.p, (size_t)st.st_size, &b.n, "file", &err), VQ_OK);
	close(fd);
	return b;
}

/* A file of these bytes, at its start. */
static inline int file_of(const void *p, size_t n)
{
	struct vq_err err = {0};
	int fd = file_new();

	assert_int_equal(vq_write_full(fd, p, n, "file", &err), VQ_OK);
	assert_true(lseek(fd, 0, SEEK_SET) == 0);
	return fd;
}

#endif
