/* Files and descriptors. */
#include "base/io.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"

int vq_read_upto(int fd, void *buf, size_t n, size_t *got, const char *label, struct vq_err *err)
{
	uint8_t *p = buf;
	size_t have = 0;

	while (have < n) {
		ssize_t r = read(fd, p + have, n - have > (1u << 30) ? (1u << 30) : n - have);

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return vq_fail_errno(err, VQ_E_SYS, "%s: cannot read", label);
		if (r == 0)
			break;
		have += (size_t)r;
	}
	*got = have;
	return VQ_OK;
}

int vq_write_full(int fd, const void *buf, size_t n, const char *label, struct vq_err *err)
{
	const uint8_t *p = buf;

	while (n > 0) {
		ssize_t r = write(fd, p, n > (1u << 30) ? (1u << 30) : n);

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return vq_fail_errno(err, VQ_E_SYS, "%s: cannot write", label);
		p += r;
		n -= (size_t)r;
	}
	return VQ_OK;
}

int vq_not_a_terminal(int fd, const char *what, const char *label, struct vq_err *err)
{
	if (!isatty(fd))
		return VQ_OK;
	return vq_fail(err, VQ_E_USAGE,
		       "%s: will not write %s to a terminal; use a pipe, > FILE or -o FILE", label,
		       what);
}

int vq_fd_read(int fd, size_t limit, const char *label, char **data, size_t *n, struct vq_err *err)
{
	size_t room = 0, have = 0, got = 0, more;
	void *buf = NULL;
	int rc;

	do {
		more = room ? 2 * room : 65536;
		rc = vq_grow(&buf, room, more, 1, err);
		if (rc < 0)
			break;
		room = more;
		rc = vq_read_upto(fd, (char *)buf + have, room - have - 1, &got, label, err);
		have += rc == VQ_OK ? got : 0;
		if (rc == VQ_OK && have > limit)
			rc = vq_fail(err, VQ_E_DATA, "%s: want at most %zu bytes, got more", label,
				     limit);
	} while (rc == VQ_OK && have == room - 1);
	if (rc < 0) {
		vq_free(buf);
		return rc;
	}
	((char *)buf)[have] = '\0';
	*data = buf;
	*n = have;
	return VQ_OK;
}

int vq_file_read(const char *path, size_t limit, int status, char **data, size_t *n,
		 struct vq_err *err)
{
	int rc = VQ_OK;
	struct stat st;
	char *buf = NULL;
	size_t got = 0;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return vq_fail_errno(err, status, "%s: cannot open", path);
	if (fstat(fd, &st) < 0 || S_ISDIR(st.st_mode)) {
		rc = vq_fail(err, status, "%s: want a file, got a folder", path);
		goto out;
	}
	if ((uint64_t)st.st_size > limit) {
		rc = vq_fail(err, VQ_E_DATA, "%s: want at most %zu bytes, got %lld", path, limit,
			     (long long)st.st_size);
		goto out;
	}
	if (!S_ISREG(st.st_mode)) { /* a pipe has no size to trust */
		rc = vq_fd_read(fd, limit, path, data, n, err);
		goto out;
	}
	buf = vq_alloc((size_t)st.st_size + 1, 1, err);
	rc = buf ? vq_read_upto(fd, buf, (size_t)st.st_size, &got, path, err) : VQ_E_SYS;
	if (rc < 0)
		goto out;
	buf[got] = '\0';
	*data = buf;
	*n = got;
	buf = NULL;
out:
	vq_free(buf);
	close(fd);
	return rc;
}

int vq_map_fd(struct vq_map *m, int fd, size_t n, int load, const char *label, struct vq_err *err)
{
	int rc = VQ_OK;
	void *p;

	memset(m, 0, sizeof(*m));
	if (load) {
		rc = vq_pages_load(&m->pages, fd, n, label, err);
		m->data = m->pages.data;
	} else {
		p = mmap(NULL, n, PROT_READ, MAP_SHARED, fd, 0);
		if (p == MAP_FAILED)
			rc = vq_fail_errno(err, VQ_E_SYS, "%s: cannot map", label);
		else
			m->data = p;
	}
	m->n = m->data ? n : 0;
	return rc;
}

static int map_path(struct vq_map *m, const char *path, int status, int load, struct vq_err *err)
{
	int rc = VQ_OK;
	struct stat st;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	memset(m, 0, sizeof(*m));
	if (fd < 0)
		return vq_fail_errno(err, status, "%s: cannot open", path);
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		rc = vq_fail(err, status, "%s: want a plain file that can be mapped", path);
	else if (st.st_size)
		rc = vq_map_fd(m, fd, (size_t)st.st_size, load, path, err);
	close(fd);
	return rc;
}

int vq_map_open(struct vq_map *m, const char *path, int status, struct vq_err *err)
{
	return map_path(m, path, status, 0, err);
}

int vq_map_load(struct vq_map *m, const char *path, int status, struct vq_err *err)
{
	return map_path(m, path, status, 1, err);
}

void vq_map_read_ahead(const struct vq_map *m, size_t from, size_t to, int on)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);

	from = from / page * page;
	if (m->data && !m->pages.data && from < to)
		(void)madvise((void *)(uintptr_t)(m->data + from), to - from,
			      on ? MADV_NORMAL : MADV_RANDOM);
}

void vq_map_close(struct vq_map *m)
{
	if (m->data && !m->pages.data)
		munmap((void *)(uintptr_t)m->data, m->n);
	vq_pages_free(&m->pages);
	memset(m, 0, sizeof(*m));
}

int vq_output_open(struct vq_output *o, const char *path, struct vq_err *err)
{
	struct stat st;
	size_t n;
	int plain;

	memset(o, 0, sizeof(*o));
	if (!path || strcmp(path, "-") == 0) {
		o->fd = STDOUT_FILENO;
		o->label = "stdout";
		return VQ_OK;
	}
	n = strlen(path);
	o->fd = -1;
	plain = stat(path, &st) < 0 || S_ISREG(st.st_mode);
	if (!plain && S_ISDIR(st.st_mode)) /* rename would say so, but after all the work */
		return vq_fail(err, VQ_E_SYS, "%s: want a file to write, got a folder", path);
	o->path = vq_strdup(path, err);
	o->part = plain ? vq_alloc(n + 6, 1, err) : NULL;
	if (!o->path || (plain && !o->part))
		goto fail;
	o->label = o->path;
	if (plain)
		snprintf(o->part, n + 6, "%s.part", path);
	/* A device or a named pipe must not be replaced by a file of its name. */
	o->fd = plain ? open(o->part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666)
		      : open(path, O_WRONLY | O_CLOEXEC);
	if (o->fd < 0) {
		vq_fail_errno(err, VQ_E_SYS, "%s: cannot create", plain ? o->part : path);
		goto fail;
	}
	return VQ_OK;
fail:
	vq_free(o->path);
	vq_free(o->part);
	memset(o, 0, sizeof(*o));
	o->fd = -1;
	return VQ_E_SYS;
}

int vq_output_commit(struct vq_output *o, struct vq_err *err)
{
	int rc = VQ_OK;

	if (!o->path)
		return VQ_OK; /* standard output is closed and checked by main */
	if (o->part && fsync(o->fd) < 0 && errno != EINVAL && errno != EROFS)
		rc = vq_fail_errno(err, VQ_E_SYS, "%s: cannot flush", o->part);
	if (close(o->fd) < 0)
		rc = vq_fail_errno(err, VQ_E_SYS, "%s: cannot close", o->part ? o->part : o->path);
	o->fd = -1;
	if (rc == VQ_OK && o->part && rename(o->part, o->path) < 0)
		rc = vq_fail_errno(err, VQ_E_SYS, "%s: cannot rename to %s", o->part, o->path);
	vq_output_abort(o, 1);
	return rc;
}

void vq_output_abort(struct vq_output *o, int keep)
{
	if (o->path && o->fd >= 0)
		close(o->fd);
	if (o->part && !keep)
		unlink(o->part);
	vq_free(o->path);
	vq_free(o->part);
	memset(o, 0, sizeof(*o));
	o->fd = -1;
}

/* Bytes of a file, -1 when there is none. */
static off_t file_size(const char *path)
{
	struct stat st;

	return stat(path, &st) < 0 ? -1 : st.st_size;
}

int vq_output_aside(char **aside, const char *output, const char *resume, struct vq_err *err)
{
	size_t n = output ? strlen(output) : 0;
	char *to;
	int rc = VQ_OK;

	*aside = NULL;
	if (!output || !resume || strncmp(resume, output, n) != 0 ||
	    strcmp(resume + n, ".part") != 0)
		return VQ_OK;
	n = strlen(resume) + sizeof(".resumed");
	to = vq_alloc(n, 1, err);
	if (!to)
		return VQ_E_SYS;
	snprintf(to, n, "%s.resumed", resume);
	if (file_size(to) <= file_size(resume) && rename(resume, to) < 0)
		rc = vq_fail_errno(err, VQ_E_SYS, "%s: cannot rename", resume);
	else if (file_size(to) < 0)
		rc = vq_fail_errno(err, VQ_E_SYS, "%s: cannot open", resume);
	if (rc < 0)
		vq_free(to);
	else
		*aside = to;
	return rc;
}

char *vq_path_join(const char *dir, const char *name, struct vq_err *err)
{
	size_t n = strlen(dir) + strlen(name) + 2;
	char *p = vq_alloc(n, 1, err);

	if (p)
		snprintf(p, n, "%s%s%s", name[0] == '/' ? "" : dir, name[0] == '/' ? "" : "/",
			 name);
	return p;
}

char *vq_path_dir(const char *path, struct vq_err *err)
{
	const char *slash = strrchr(path, '/');
	char *p = vq_strdup(slash ? path : ".", err);

	if (p && slash)
		p[slash == path ? 1 : slash - path] = '\0';
	return p;
}

int vq_path_exists(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0;
}

int vq_path_is_dir(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}
