/* The cache of keys and values. */
#include "model/kv.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/mem.h"

#define HUGE ((size_t)2 << 20) /* bytes of a page that saves page faults and misses of the TLB */

int vq_kv_bytes(uint32_t n_layers, uint32_t n_seqs, uint32_t room, uint32_t n_kv_heads,
		uint32_t head_dim, enum vq_kv_type type, size_t *bytes)
{
	if (vq_keys_bytes(type, head_dim, room, bytes) < 0 ||
	    vq_mul_size(bytes, *bytes, n_kv_heads) < 0 || vq_mul_size(bytes, *bytes, n_seqs) < 0 ||
	    vq_mul_size(bytes, *bytes, n_layers) < 0)
		return VQ_E_DATA;
	return VQ_OK;
}

/* Memory that is not touched yet; in large pages when it fills some. */
static void *take(size_t bytes, struct vq_err *err)
{
	void *p = NULL;

	if (bytes < 4 * HUGE)
		return vq_alloc(bytes, 1, err);
	if (posix_memalign(&p, HUGE, bytes) != 0) {
		vq_fail(err, VQ_E_SYS, "memory: cannot have %zu bytes of cache", bytes);
		return NULL;
	}
	(void)madvise(p, bytes, MADV_HUGEPAGE); /* without them it is slower, no worse */
	return p;
}

int vq_kv_new(struct vq_kv *kv, uint32_t n_layers, uint32_t n_seqs, uint32_t room,
	      uint32_t n_kv_heads, uint32_t head_dim, enum vq_kv_type type, struct vq_err *err)
{
	size_t head_bytes, bytes;
	uint32_t i;

	memset(kv, 0, sizeof(*kv));
	if (vq_keys_bytes(type, head_dim, room, &head_bytes) < 0 ||
	    vq_kv_bytes(n_layers, n_seqs, room, n_kv_heads, head_dim, type, &bytes) < 0)
		return vq_fail(err, VQ_E_SYS, "cache: %u sequences of %u tokens is too much",
			       n_seqs, room);
	kv->n = vq_calloc(n_seqs, sizeof(*kv->n), err);
	kv->shared = vq_calloc(n_seqs, sizeof(*kv->shared), err);
	kv->turns = vq_calloc(1, sizeof(*kv->turns), err);
	kv->layers = vq_calloc(n_layers, sizeof(*kv->layers), err);
	kv->data = take(bytes, err);
	if (!kv->n || !kv->shared || !kv->turns || !kv->layers || !kv->data) {
		vq_kv_free(kv);
		return VQ_E_SYS;
	}
	kv->n_layers = n_layers;
	kv->n_seqs = n_seqs;
	kv->room = room;
	for (i = 0; i < n_layers; i++)
		kv->layers[i] = (struct vq_kv_layer){
			type,
			n_seqs,
			room,
			n_kv_heads,
			head_dim,
			(unsigned char *)kv->data + i * (head_bytes * n_kv_heads * n_seqs),
			head_bytes,
			kv->n,
			kv->shared,
			0,
			kv->turns};
	return VQ_OK;
}

void vq_kv_reset(struct vq_kv *kv)
{
	memset(kv->n, 0, kv->n_seqs * sizeof(*kv->n));
	memset(kv->shared, 0, kv->n_seqs * sizeof(*kv->shared));
	vq_kv_begin_at(kv, 0);
}

void vq_kv_begin_at(struct vq_kv *kv, uint32_t first)
{
	uint32_t i;

	kv->first = first;
	for (i = 0; i < kv->n_layers; i++)
		kv->layers[i].first = first;
}

void vq_kv_share(struct vq_kv *kv, uint32_t seq, uint32_t n)
{
	kv->shared[seq] = n;
}

void vq_kv_free(struct vq_kv *kv)
{
	vq_free(kv->data);
	vq_free(kv->layers);
	vq_free(kv->n);
	vq_free(kv->shared);
	if (kv->turns)
		vq_turns_free(kv->turns);
	vq_free(kv->turns);
	memset(kv, 0, sizeof(*kv));
}

struct vq_keys vq_kv_head(const struct vq_kv_layer *l, uint32_t seq, uint32_t head)
{
	size_t at = ((size_t)seq * l->n_heads + head) * l->head_bytes;

	return vq_keys_at(l->type, l->head_dim, l->room, l->data + at);
}
