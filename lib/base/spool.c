/* A file without a name. */
#include "base/spool.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/mem.h"

static const char label[] = "temporary file";

static const char *folder(void)
{
	const char *dir = getenv("TMPDIR");

	return dir && *dir ? dir : "/tmp";
}

int vq_spool_open(struct vq_spool *s, struct vq_err *err)
{
	char *path = vq_path_join(folder(), "vqlm.XXXXXX", err);

	memset(s, 0, sizeof(*s));
	s->fd = path ? mkostemp(path, O_CLOEXEC) : -1;
	if (path && s->fd < 0)
		vq_fail_errno(err, VQ_E_SYS,
			      "%s: cannot create a temporary file; TMPDIR names another folder",
			      folder());
	if (s->fd >= 0)
		unlink(path);
	vq_free(path);
	return s->fd >= 0 ? VQ_OK : VQ_E_SYS;
}

static void close_window(struct vq_spool *s)
{
	if (s->window)
		munmap(s->window, s->window_n);
	s->window = NULL;
}

int vq_spool_room(struct vq_spool *s, size_t n, void **p, size_t *at, struct vq_err *err)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	size_t from = (s->n + VQ_ALIGN - 1) / VQ_ALIGN * VQ_ALIGN, base = from / page * page;
	int rc;

	close_window(s);
	if (n > SIZE_MAX / 2 - from)
		return vq_fail(err, VQ_E_SYS, "%s: %zu bytes are too many", label, n);
	/* A mapped page for which the disk has no room would end the process: blocks are taken first. */
	do
		rc = posix_fallocate(s->fd, (off_t)from, (off_t)n);
	while (rc == EINTR);
	if (rc != 0)
		return vq_fail(err, VQ_E_SYS,
			       "%s: no room for %zu bytes: %s; TMPDIR names another folder",
			       folder(), n, strerror(rc));
	s->window_n = from - base + n;
	s->window = mmap(NULL, s->window_n, PROT_READ | PROT_WRITE, MAP_SHARED, s->fd, (off_t)base);
	if (s->window == MAP_FAILED) {
		s->window = NULL;
		return vq_fail_errno(err, VQ_E_SYS, "%s: cannot map", label);
	}
	s->n = from + n;
	*at = from;
	*p = (uint8_t *)s->window + (from - base);
	return VQ_OK;
}

int vq_spool_map(struct vq_spool *s, int load, struct vq_err *err)
{
	close_window(s);
	vq_map_close(&s->map);
	return s->n ? vq_map_fd(&s->map, s->fd, s->n, load, label, err) : VQ_OK;
}

void vq_spool_close(struct vq_spool *s)
{
	close_window(s);
	vq_map_close(&s->map);
	if (s->fd >= 0)
		close(s->fd);
	s->fd = -1;
}
