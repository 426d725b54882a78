/* Checked memory: sizes that cannot overflow, blocks aligned for the widest vector registers. */
#ifndef VQ_BASE_MEM_H
#define VQ_BASE_MEM_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define VQ_ALIGN 64 /* bytes; a cache line and a 512-bit register */

/* *out = a * b, or VQ_E_DATA when the product does not fit. */
VQ_MUST_CHECK int vq_mul_size(size_t *out, size_t a, size_t b);

/* n * size bytes, aligned to VQ_ALIGN; NULL and err set when it cannot be had.  n = 0 gives a valid
 * pointer.  vq_calloc clears it.  Given: free with vq_free. */
void *vq_alloc(size_t n, size_t size, struct vq_err *err);
void *vq_calloc(size_t n, size_t size, struct vq_err *err);
float *vq_alloc_f32(size_t n, struct vq_err *err);
char *vq_strdup(const char *s, struct vq_err *err);

/* Grows (or shrinks) a block that vq_alloc gave from old_n to n elements.  On failure the block stays. */
VQ_MUST_CHECK int vq_grow(void **p, size_t old_n, size_t n, size_t size, struct vq_err *err);

/* Room for element n of an array that has room for *room elements: nothing, or twice the room. */
VQ_MUST_CHECK int vq_grow_one(void **p, size_t n, size_t *room, size_t size, struct vq_err *err);

void vq_free(void *p); /* NULL is fine */

/* From now on freed blocks stay with the process.  For work that takes and frees the same megabytes in every
 * layer: given back to the system each time, they cost a quarter to a third of the time in page faults. */
void vq_mem_keep_freed(void);

/* Blocks over 32 MiB too: for work that holds few of them at a time and takes their like again. */
void vq_mem_keep_large(void);

/* Bytes that could still be taken: what the system calls available, bounded by what the control group of this process
 * and those above it may hold, and by the limit on its addresses.  UINT64_MAX when the system does not say. */
uint64_t vq_mem_available(void);

/* Bytes of this process that lie in anonymous pages of 2 MiB. */
uint64_t vq_mem_large(void);

/* Largest resident set of this process so far, in bytes, from the system. */
uint64_t vq_peak_rss(void);

/* The same without file-backed pages (a mapped checkpoint does not count).  It is sampled, whenever a block
 * of 2 MiB or more is freed and here, and keeps the maximum. */
uint64_t vq_peak_anon(void);

#endif
