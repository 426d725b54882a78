/* Checked memory. */
#include "base/mem.h"

#include <malloc.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

/* A block of this size is worth a look at the process' memory when it goes: a few ten microseconds. */
#define WORTH_A_LOOK ((size_t)2 << 20)

int vq_mul_size(size_t *out, size_t a, size_t b)
{
	return __builtin_mul_overflow(a, b, out) ? VQ_E_DATA : VQ_OK;
}

void *vq_alloc(size_t n, size_t size, struct vq_err *err)
{
	size_t bytes;
	void *p = NULL;

	if (vq_mul_size(&bytes, n, size) < 0 || bytes > SIZE_MAX - VQ_ALIGN) {
		vq_fail(err, VQ_E_SYS, "memory: %zu x %zu bytes is more than an address space", n,
			size);
		return NULL;
	}
	bytes = bytes ? (bytes + VQ_ALIGN - 1) / VQ_ALIGN * VQ_ALIGN : VQ_ALIGN;
	if (posix_memalign(&p, VQ_ALIGN, bytes) != 0) {
		vq_fail(err, VQ_E_SYS, "memory: cannot have %zu bytes", bytes);
		return NULL;
	}
	return p;
}

void *vq_calloc(size_t n, size_t size, struct vq_err *err)
{
	void *p = vq_alloc(n, size, err);

	if (p)
		memset(p, 0, n * size);
	return p;
}

float *vq_alloc_f32(size_t n, struct vq_err *err)
{
	return vq_alloc(n, sizeof(float), err);
}

char *vq_strdup(const char *s, struct vq_err *err)
{
	size_t n = strlen(s) + 1;
	char *p = vq_alloc(n, 1, err);

	if (p)
		memcpy(p, s, n);
	return p;
}

int vq_grow(void **p, size_t old_n, size_t n, size_t size, struct vq_err *err)
{
	void *q = vq_alloc(n, size, err);

	if (!q)
		return VQ_E_SYS;
	if (*p)
		memcpy(q, *p, (old_n < n ? old_n : n) * size);
	vq_free(*p);
	*p = q;
	return VQ_OK;
}

int vq_grow_one(void **p, size_t n, size_t *room, size_t size, struct vq_err *err)
{
	size_t more = *room ? 2 * *room : 64;
	int rc;

	if (n < *room)
		return VQ_OK;
	rc = vq_grow(p, n, more, size, err);
	if (rc == VQ_OK)
		*room = more;
	return rc;
}

/* Memory is at its largest just before something large goes, so that is where the peak is sampled. */
void vq_free(void *p)
{
	if (p && malloc_usable_size(p) >= WORTH_A_LOOK)
		(void)vq_peak_anon();
	free(p);
}

void vq_mem_keep_freed(void)
{
#if defined(__GLIBC__)
	mallopt(M_MMAP_THRESHOLD, 32 << 20);
	mallopt(M_TRIM_THRESHOLD, 128 << 20);
#endif
}

void vq_mem_keep_large(void)
{
#if defined(__GLIBC__)
	mallopt(M_MMAP_MAX, 0); /* the threshold above goes to 32 MiB only */
	mallopt(M_TRIM_THRESHOLD, 512 << 20);
	mallopt(M_ARENA_MAX, 1); /* what one thread frees another gets */
#endif
}

/* One "Key:   123 kB" line of a file below /proc, in bytes; 0 when the system has none. */
static uint64_t proc_bytes(const char *path, const char *key)
{
	FILE *f = fopen(path, "r");
	char line[256];
	unsigned long long kb = 0;
	size_t n = strlen(key);

	if (!f)
		return 0;
	while (fgets(line, sizeof(line), f))
		if (strncmp(line, key, n) == 0 && line[n] == ':' &&
		    sscanf(line + n + 1, "%llu", &kb) == 1)
			break;
	fclose(f);
	return kb * 1024;
}

uint64_t vq_peak_rss(void)
{
	return proc_bytes("/proc/self/status", "VmHWM");
}

uint64_t vq_mem_large(void)
{
	return proc_bytes("/proc/self/smaps_rollup", "AnonHugePages");
}

/* "memory.max" of a control group; UINT64_MAX when there is none, or it is "max". */
static uint64_t group_limit(const char *group)
{
	char path[600];
	unsigned long long n = 0;
	FILE *f;
	int got;

	snprintf(path, sizeof(path), "/sys/fs/cgroup%s/memory.max", group);
	f = fopen(path, "r");
	if (!f)
		return UINT64_MAX;
	got = fscanf(f, "%llu", &n);
	fclose(f);
	return got == 1 ? n : UINT64_MAX;
}

/* The least of those of this process' group and of the groups that hold it. */
static uint64_t groups_limit(void)
{
	uint64_t least = UINT64_MAX, n;
	FILE *f = fopen("/proc/self/cgroup", "r");
	char line[512];
	char *slash;

	while (f && fgets(line, sizeof(line), f)) {
		if (strncmp(line, "0::/", 4) != 0)
			continue;
		line[strcspn(line, "\n")] = '\0';
		while ((slash = strrchr(line, '/')) != NULL) {
			n = group_limit(line + 3);
			least = n < least ? n : least;
			*slash = '\0';
		}
	}
	if (f)
		fclose(f);
	return least;
}

static uint64_t addresses_left(void)
{
	uint64_t used = proc_bytes("/proc/self/status", "VmSize");
	struct rlimit lim;

	if (getrlimit(RLIMIT_AS, &lim) < 0 || lim.rlim_cur == RLIM_INFINITY)
		return UINT64_MAX;
	return lim.rlim_cur > used ? lim.rlim_cur - used : 0;
}

uint64_t vq_mem_available(void)
{
	uint64_t n = proc_bytes("/proc/meminfo", "MemAvailable");
	uint64_t group = groups_limit(), addresses = addresses_left();

	n = n ? n : UINT64_MAX;
	n = group < n ? group : n;
	return addresses < n ? addresses : n;
}

uint64_t vq_peak_anon(void)
{
	static _Atomic uint64_t peak; /* blocks are freed by threads too */
	uint64_t now = proc_bytes("/proc/self/status", "RssAnon"), was = atomic_load(&peak);

	while (now > was && !atomic_compare_exchange_weak(&peak, &was, now))
		;
	return now > was ? now : was;
}
