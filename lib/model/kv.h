/* Keys and values of tokens seen, for one batch of sequences. */
#ifndef VQ_MODEL_KV_H
#define VQ_MODEL_KV_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct vq_kv_layer {
	float *k, *v; /* [n_seqs, room, n_kv_heads * head_dim]; keys after rotary embedding */
	uint32_t n_seqs, room, width;
	uint32_t *n; /* [n_seqs] tokens held; one array for all layers, advanced by the decoder */
	uint32_t *shared; /* [n_seqs] see vq_kv_share; one array for all layers */
};

struct vq_kv {
	struct vq_kv_layer *layers;
	uint32_t n_layers, n_seqs, room;
	uint32_t *n, *shared;
};

/* room: tokens a sequence; width: n_kv_heads * head_dim.  Empty. */
VQ_MUST_CHECK int vq_kv_new(struct vq_kv *kv, uint32_t n_layers, uint32_t n_seqs, uint32_t room,
			    uint32_t width, struct vq_err *err);
void vq_kv_reset(struct vq_kv *kv); /* forgets every token */
void vq_kv_free(struct vq_kv *kv);  /* fine on zeroes */

/* Sequence seq > 0, empty, begins with the first n tokens of sequence seq - 1, which the next forward computes (or
 * which are there): its own rows follow them, and each layer copies their keys and values. */
void vq_kv_share(struct vq_kv *kv, uint32_t seq, uint32_t n);

/* The first n tokens of one sequence become those of another, in one layer; kv->n is not touched. */
void vq_kv_layer_copy(const struct vq_kv_layer *l, uint32_t from, uint32_t to, uint32_t n);

#endif
