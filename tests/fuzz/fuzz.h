/* What the fuzz targets share. */
#ifndef FUZZ_H
#define FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/err.h"

/* What a reader returned is one of the promised outcomes: success, or a code with a text. */
static inline int fuzz_outcome(int rc, const struct vq_err *err)
{
	if (rc >= 0)
		return 0;
	return (rc != VQ_E_DATA && rc != VQ_E_SYS) || err->code != rc || !err->text[0];
}

/* The bytes as a file that can be opened by path and mapped.  -1 when the system has none. */
static inline int fuzz_file(const uint8_t *data, size_t n, char *path, size_t room)
{
	int fd = memfd_create("fuzz", MFD_CLOEXEC);

	if (fd < 0 || write(fd, data, n) != (ssize_t)n || lseek(fd, 0, SEEK_SET) != 0)
		return -1;
	snprintf(path, room, "/proc/self/fd/%d", fd);
	return fd;
}

#endif

/* Outside the guard: the replay includes several targets, each under its own name. */
int vq_fuzz(const uint8_t *data, size_t n);

#ifdef VQ_LIBFUZZER
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	if (vq_fuzz(data, n))
		__builtin_trap();
	return 0;
}
#endif
