/* The cache of keys and values. */
#include "model/kv.h"

#include <string.h>

#include "base/mem.h"

static int layer_new(struct vq_kv_layer *l, struct vq_err *err)
{
	size_t n;

	if (vq_mul_size(&n, l->n_seqs, l->room) < 0 || vq_mul_size(&n, n, l->width) < 0)
		return vq_fail(err, VQ_E_SYS, "cache: %u sequences of %u tokens is too much",
			       l->n_seqs, l->room);
	l->k = vq_alloc_f32(n, err);
	l->v = vq_alloc_f32(n, err);
	return l->k && l->v ? VQ_OK : VQ_E_SYS;
}

int vq_kv_new(struct vq_kv *kv, uint32_t n_layers, uint32_t n_seqs, uint32_t room, uint32_t width,
	      struct vq_err *err)
{
	uint32_t i;

	memset(kv, 0, sizeof(*kv));
	kv->n = vq_calloc(n_seqs, sizeof(*kv->n), err);
	kv->shared = vq_calloc(n_seqs, sizeof(*kv->shared), err);
	kv->layers = vq_calloc(n_layers, sizeof(*kv->layers), err);
	if (!kv->n || !kv->shared || !kv->layers)
		goto fail;
	kv->n_layers = n_layers;
	kv->n_seqs = n_seqs;
	kv->room = room;
	for (i = 0; i < n_layers; i++) {
		kv->layers[i] =
			(struct vq_kv_layer){NULL, NULL, n_seqs, room, width, kv->n, kv->shared};
		if (layer_new(&kv->layers[i], err) < 0)
			goto fail;
	}
	return VQ_OK;
fail:
	vq_kv_free(kv);
	return VQ_E_SYS;
}

void vq_kv_reset(struct vq_kv *kv)
{
	memset(kv->n, 0, kv->n_seqs * sizeof(*kv->n));
	memset(kv->shared, 0, kv->n_seqs * sizeof(*kv->shared));
}

void vq_kv_share(struct vq_kv *kv, uint32_t seq, uint32_t n)
{
	kv->shared[seq] = n;
}

void vq_kv_layer_copy(const struct vq_kv_layer *l, uint32_t from, uint32_t to, uint32_t n)
{
	size_t seq = (size_t)l->room * l->width, bytes = (size_t)n * l->width * sizeof(float);

	memcpy(l->k + to * seq, l->k + from * seq, bytes);
	memcpy(l->v + to * seq, l->v + from * seq, bytes);
}

void vq_kv_free(struct vq_kv *kv)
{
	uint32_t i;

	for (i = 0; kv->layers && i < kv->n_layers; i++) {
		vq_free(kv->layers[i].k);
		vq_free(kv->layers[i].v);
	}
	vq_free(kv->layers);
	vq_free(kv->n);
	vq_free(kv->shared);
	memset(kv, 0, sizeof(*kv));
}
