/* Softmax attention over a batch of sequences, with grouped query heads. */
#ifndef VQ_MODEL_ATTENTION_H
#define VQ_MODEL_ATTENTION_H

#include "model/layer.h"

/* q [rows of `batch`, n_heads * head_dim], k and v [rows of `own`, n_kv_heads * head_dim], q and k after rotary
 * embedding; the first query of sequence s stands at position past[s].
 *   out[t] = sum_u softmax_u(q[t] . k[u] / sqrt(head_dim)) v[u],   u <= t when causal
 * out [rows of batch, n_heads * head_dim]; head i reads key head i / (n_heads / n_kv_heads).
 *
 * With a cache, the keys and values of sequence s are stored in it behind its kv->n[s] tokens and the kv->shared[s]
 * that it takes from the sequence before (kv->n stays), and all are read as the cache holds them. */
struct vq_attention {
	const struct vq_layer_config *cfg;
	const struct vq_batch *batch;
	const uint32_t *past;
	const float *q;
	const struct vq_batch *own;
	const float *k, *v;
	const struct vq_kv_layer *kv; /* or NULL */
	float *out;
};

VQ_MUST_CHECK int vq_attention_run(const struct vq_attention *a, struct vq_err *err);

#endif
