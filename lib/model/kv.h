/* Keys and values of tokens seen, for one batch of sequences. */
#ifndef VQ_MODEL_KV_H
#define VQ_MODEL_KV_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct vq_kv_layer {
	float *k, *v; /* [n_seqs, room, n_kv_heads * head_dim]; keys after rotary embedding */
	uint32_t n_seqs, room, width;
	uint32_t *n; /* [n_seqs] tokens held; shared by all layers, advanced by the decoder */
};

struct vq_kv {
	struct vq_kv_layer *layers;
	uint32_t n_layers, n_seqs, room;
	uint32_t *n;
};

/* room: tokens a sequence; width: n_kv_heads * head_dim.  Empty. */
VQ_MUST_CHECK int vq_kv_new(struct vq_kv *kv, uint32_t n_layers, uint32_t n_seqs, uint32_t room,
			    uint32_t width, struct vq_err *err);
void vq_kv_reset(struct vq_kv *kv); /* forgets every token */
void vq_kv_free(struct vq_kv *kv);  /* fine on zeroes */

#endif
