/* Checked memory. */
#include "base/mem.h"

#include <malloc.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

/* One "Key:   123 kB" line of /proc/self/status, in bytes; 0 when the system has none. */
static uint64_t status_bytes(const char *key)
{
	FILE *f = fopen("/proc/self/status", "r");
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
	return status_bytes("VmHWM");
}

uint64_t vq_peak_anon(void)
{
	static _Atomic uint64_t peak; /* blocks are freed by threads too */
	uint64_t now = status_bytes("RssAnon"), was = atomic_load(&peak);

	while (now > was && !atomic_compare_exchange_weak(&peak, &was, now))
		;
	return now > was ? now : was;
}
