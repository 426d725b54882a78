/* Keys and values of tokens seen, for one batch of sequences. */
#ifndef VQ_MODEL_KV_H
#define VQ_MODEL_KV_H

#include "kernel/keys.h"
#include "model/turns.h"

struct vq_kv_layer {
	enum vq_kv_type type;
	uint32_t n_seqs, room, n_heads, head_dim; /* room: tokens a sequence */
	unsigned char *data;                      /* heads of vq_keys_bytes: [n_seqs, n_heads] */
	size_t head_bytes;
	uint32_t *n; /* [n_seqs] tokens held; one array for all layers, advanced by the decoder */
	uint32_t *shared;       /* [n_seqs] see vq_kv_share; one array for all layers */
	uint32_t first;         /* the sequence that a batch begins with; see vq_kv_begin_at */
	struct vq_turns *turns; /* of the positions met so far; one for all layers */
};

struct vq_kv {
	struct vq_kv_layer *layers;
	uint32_t n_layers, n_seqs, room, first;
	uint32_t *n, *shared;
	struct vq_turns *turns;
	void *data; /* of all layers */
};

/* Bytes of a cache; VQ_E_DATA when that is no size_t. */
VQ_MUST_CHECK int vq_kv_bytes(uint32_t n_layers, uint32_t n_seqs, uint32_t room,
			      uint32_t n_kv_heads, uint32_t head_dim, enum vq_kv_type type,
			      size_t *bytes);

/* Empty.  room: tokens a sequence. */
VQ_MUST_CHECK int vq_kv_new(struct vq_kv *kv, uint32_t n_layers, uint32_t n_seqs, uint32_t room,
			    uint32_t n_kv_heads, uint32_t head_dim, enum vq_kv_type type,
			    struct vq_err *err);
void vq_kv_reset(struct vq_kv *kv); /* forgets every token; batches begin at 0 */
void vq_kv_free(struct vq_kv *kv);  /* fine on zeroes */

/* Sequence seq > 0, empty, begins with the first n tokens of sequence seq - 1, which the next forward computes (or
 * which are there): its own rows follow them, and each layer copies their keys and values. */
void vq_kv_share(struct vq_kv *kv, uint32_t seq, uint32_t n);

/* Sequence 0 of the batches that follow is this one of the cache; at first it is 0. */
void vq_kv_begin_at(struct vq_kv *kv, uint32_t first);

/* One head of a sequence. */
struct vq_keys vq_kv_head(const struct vq_kv_layer *l, uint32_t seq, uint32_t head);

#endif
