/* Memory of large pages. */
#include "base/pages.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#define READ_CHUNK \
	VQ_LARGE_PAGE /* one read: all threads together go through the file once, in order */

static size_t round_up(size_t n)
{
	return (n + VQ_LARGE_PAGE - 1) / VQ_LARGE_PAGE * VQ_LARGE_PAGE;
}

static int no_memory(size_t n, struct vq_err *err)
{
	return vq_fail(err, VQ_E_SYS, "memory: cannot have %zu bytes in large pages", n);
}

int vq_pages_reserve(struct vq_pages *p, size_t most, int less, struct vq_err *err)
{
	size_t room = round_up(most);
	void *at = MAP_FAILED;

	memset(p, 0, sizeof(*p));
	if (most > SIZE_MAX / 4)
		return no_memory(most, err);
	do {
		at = mmap(NULL, room + VQ_LARGE_PAGE, PROT_NONE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	} while (at == MAP_FAILED && less && (room = round_up(room / 2)) > VQ_LARGE_PAGE);
	if (at == MAP_FAILED)
		return no_memory(most, err);
	p->at = at;
	p->at_n = room + VQ_LARGE_PAGE;
	p->data = (uint8_t *)at + (VQ_LARGE_PAGE - (uintptr_t)at % VQ_LARGE_PAGE) % VQ_LARGE_PAGE;
	p->room = room;
	return VQ_OK;
}

int vq_pages_grow(struct vq_pages *p, size_t n, struct vq_err *err)
{
	size_t had = round_up(p->n), want = round_up(n);

	if (n > p->room)
		return no_memory(n, err);
	if (want > had && mprotect(p->data + had, want - had, PROT_READ | PROT_WRITE) < 0)
		return no_memory(n, err);
#ifdef MADV_HUGEPAGE
	if (want > had) /* before the first touch; without large pages small ones do */
		(void)madvise(p->data + had, want - had, MADV_HUGEPAGE);
#endif
	if (n > p->n)
		p->n = n;
	return VQ_OK;
}

void vq_pages_free(struct vq_pages *p)
{
	if (p->at)
		munmap(p->at, p->at_n);
	memset(p, 0, sizeof(*p));
}

/* Bytes [from, to) of the file to their place; the bytes that came, < 0 and errno on failure. */
static ssize_t read_part(int fd, uint8_t *data, size_t from, size_t to)
{
	size_t at = from;

	while (at < to) {
		ssize_t r = pread(fd, data + at, to - at, (off_t)at);

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return -1;
		if (r == 0)
			break;
		at += (size_t)r;
	}
	return (ssize_t)(at - from);
}

/* Fills data; *got: the bytes that were there, an errno when reading failed. */
static int read_all(int fd, uint8_t *data, size_t n, size_t *got)
{
	long long n_chunks = (long long)((n + READ_CHUNK - 1) / READ_CHUNK), i;
	size_t sum = 0;
	int bad = 0;

#pragma omp parallel for schedule(dynamic, 1) reduction(+ : sum)
	for (i = 0; i < n_chunks; i++) {
		size_t from = (size_t)i * READ_CHUNK;
		size_t to = n - from < READ_CHUNK ? n : from + READ_CHUNK;
		ssize_t r = read_part(fd, data, from, to);

		if (r < 0) {
#pragma omp atomic write
			bad = errno;
		} else {
			sum += (size_t)r;
		}
	}
	*got = sum;
	return bad;
}

/* Pages are taken before the first read: between reads that fill the system's cache at the same time, each costs it a
 * search for 2 MiB in one piece. */
static void touch(struct vq_pages *p)
{
	long long i, n_large = (long long)(p->n / VQ_LARGE_PAGE);

#pragma omp parallel for schedule(static)
	for (i = 0; i < n_large; i++)
		*(volatile uint8_t *)(p->data + (size_t)i * VQ_LARGE_PAGE) = 0;
}

int vq_pages_load(struct vq_pages *p, int fd, size_t n, const char *label, struct vq_err *err)
{
	size_t got = 0;
	int rc = vq_pages_reserve(p, n, 0, err), bad;

	if (rc == VQ_OK)
		rc = vq_pages_grow(p, n, err);
	if (rc == VQ_OK)
		touch(p);
	if (rc == VQ_OK && (bad = read_all(fd, p->data, n, &got)) != 0) {
		errno = bad;
		rc = vq_fail_errno(err, VQ_E_SYS, "%s: cannot read", label);
	} else if (rc == VQ_OK && got != n) {
		rc = vq_fail(err, VQ_E_DATA, "%s: cut while it was read: want %zu bytes, got %zu",
			     label, n, got);
	}
	if (rc < 0)
		vq_pages_free(p);
	return rc;
}

int vq_pages_lock(const void *data, size_t n, struct vq_err *err)
{
	struct rlimit lim = {0};

	if (n == 0 || mlock(data, n) == 0)
		return VQ_OK;
	if (errno != EPERM && errno != ENOMEM && errno != EAGAIN)
		return vq_fail_errno(err, VQ_E_SYS, "memory: cannot lock %zu bytes", n);
	if (getrlimit(RLIMIT_MEMLOCK, &lim) == 0 && lim.rlim_cur < n)
		return vq_fail(
			err, VQ_E_SYS,
			"memory: cannot lock %zu bytes, the limit is %llu; raise it (ulimit -l "
			"%zu)",
			n, (unsigned long long)lim.rlim_cur, (n + 1023) / 1024);
	return vq_fail_errno(err, VQ_E_SYS, "memory: cannot lock %zu bytes; is so much free?", n);
}

void vq_pages_want(const void *data, size_t n)
{
	uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), at = (uintptr_t)data / page * page;

	if (n)
		(void)madvise((void *)at, (uintptr_t)data + n - at, MADV_WILLNEED);
}
