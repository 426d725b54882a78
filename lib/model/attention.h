/* Softmax attention over a batch of sequences, with grouped query heads. */
#ifndef VQ_MODEL_ATTENTION_H
#define VQ_MODEL_ATTENTION_H

#include "model/layer.h"

/* q [rows, n_heads * head_dim], after rotary embedding.  Sequence s reads keys and values k[s], v[s] of
 * past[s] + (its rows) tokens, `width` floats a token; its first row stands at position past[s].
 *   out[t] = sum_u softmax_u(q[t] . k[u] / sqrt(head_dim)) v[u],   u <= t when causal
 * out [rows, n_heads * head_dim]; head i reads key head i / (n_heads / n_kv_heads). */
struct vq_attention {
	const struct vq_layer_config *cfg;
	const struct vq_batch *batch;
	const float *q;
	const float *const *k, *const *v; /* [n_seqs] */
	const uint32_t *past;             /* [n_seqs] */
	uint32_t width;
	float *out;
};

VQ_MUST_CHECK int vq_attention_run(const struct vq_attention *a, struct vq_err *err);

#endif
