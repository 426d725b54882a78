/* Buffered input. */
#include "stream/source.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"
#include "base/mem.h"

#define ROOM ((size_t)256 << 10)

void vq_pipe_widen(int fd)
{
	/* Refused for anything but a pipe, and where the user's quota is used up; both are fine. */
	(void)fcntl(fd, F_SETPIPE_SZ, 1 << 20);
}

int vq_source_open(struct vq_source *s, int fd, const char *label, const void *head, size_t n,
		   struct vq_err *err)
{
	struct stat st;

	memset(s, 0, sizeof(*s));
	s->fd = fd;
	s->stop = -1;
	s->label = label;
	s->buf = vq_alloc(n > ROOM ? n : ROOM, 1, err);
	if (!s->buf)
		return VQ_E_SYS;
	if (n)
		memcpy(s->buf, head, n);
	s->n = n;
	s->seekable = fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
	vq_pipe_widen(fd);
	return VQ_OK;
}

void vq_source_close(struct vq_source *s)
{
	vq_free(s->buf);
	memset(s, 0, sizeof(*s));
	s->fd = s->stop = -1;
}

/* Waits for input or for the order to wait no longer. */
static int await(const struct vq_source *s, struct vq_err *err)
{
	struct pollfd p[2] = {{.fd = s->fd, .events = POLLIN}, {.fd = s->stop, .events = POLLIN}};
	int r;

	if (s->stop < 0)
		return VQ_OK;
	do
		r = poll(p, 2, -1);
	while (r < 0 && errno == EINTR);
	if (r < 0)
		return vq_fail_errno(err, VQ_E_SYS, "%s: cannot wait for input", s->label);
	return p[1].revents ? vq_fail(err, VQ_E_STOP, "%s: no longer read", s->label) : VQ_OK;
}

/* Reads what is there into an empty buffer: 1, or 0 at the end of input. */
static int fill(struct vq_source *s, struct vq_err *err)
{
	ssize_t r = await(s, err);

	if (r < 0)
		return (int)r;
	do
		r = read(s->fd, s->buf, ROOM);
	while (r < 0 && errno == EINTR);
	if (r < 0)
		return vq_fail_errno(err, VQ_E_SYS, "%s: cannot read", s->label);
	s->at = 0;
	s->n = (size_t)r;
	return r > 0;
}

static void advance(struct iovec **iov, int *n_iov, size_t n)
{
	while (*n_iov > 0 && n >= (*iov)->iov_len) {
		n -= (*iov)->iov_len;
		(*iov)++;
		(*n_iov)--;
	}
	if (*n_iov > 0) {
		(*iov)->iov_base = (uint8_t *)(*iov)->iov_base + n;
		(*iov)->iov_len -= n;
	}
}

int vq_source_scatter(struct vq_source *s, struct iovec *iov, int n_iov, struct vq_err *err)
{
	size_t left = 0, n;
	ssize_t r;
	int i, rc;

	for (i = 0; i < n_iov; i++)
		left += iov[i].iov_len;
	advance(&iov, &n_iov, 0);
	while (left > 0) {
		if (s->at < s->n) {
			n = s->n - s->at < iov->iov_len ? s->n - s->at : iov->iov_len;
			memcpy(iov->iov_base, s->buf + s->at, n);
			s->at += n;
		} else if (left < ROOM) {
			rc = fill(s, err);
			if (rc <= 0)
				return rc;
			continue;
		} else {
			rc = await(s, err);
			if (rc < 0)
				return rc;
			r = readv(s->fd, iov, n_iov);
			if (r < 0 && errno == EINTR)
				continue;
			if (r < 0)
				return vq_fail_errno(err, VQ_E_SYS, "%s: cannot read", s->label);
			if (r == 0)
				return 0;
			n = (size_t)r;
		}
		left -= n;
		advance(&iov, &n_iov, n);
	}
	return 1;
}

int vq_source_read(struct vq_source *s, void *dst, size_t n, struct vq_err *err)
{
	struct iovec iov = {dst, n};

	return vq_source_scatter(s, &iov, 1, err);
}

int vq_source_some(struct vq_source *s, uint64_t most, const uint8_t **p, size_t *n,
		   struct vq_err *err)
{
	int rc;

	if (s->at == s->n) {
		rc = fill(s, err);
		if (rc <= 0)
			return rc;
	}
	*p = s->buf + s->at;
	*n = s->n - s->at < most ? s->n - s->at : (size_t)most;
	s->at += *n;
	return 1;
}

int vq_source_skip(struct vq_source *s, uint64_t n, struct vq_err *err)
{
	const uint8_t *p;
	size_t m;
	int rc;

	while (n > 0) {
		if (s->at == s->n && s->seekable && n > ROOM) {
			/* Beyond the end of a cut file is fine: the next read finds nothing. */
			if (lseek(s->fd, (off_t)n, SEEK_CUR) < 0)
				return vq_fail_errno(err, VQ_E_SYS, "%s: cannot seek", s->label);
			return 1;
		}
		rc = vq_source_some(s, n, &p, &m, err);
		if (rc <= 0)
			return rc;
		n -= m;
	}
	return 1;
}

int vq_source_at_end(struct vq_source *s, struct vq_err *err)
{
	int rc = s->at < s->n ? 1 : fill(s, err);

	return rc < 0 ? rc : !rc;
}
