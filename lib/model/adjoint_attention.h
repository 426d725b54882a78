/* Adjoint of softmax attention over one sequence. */
#ifndef VQ_MODEL_ADJOINT_ATTENTION_H
#define VQ_MODEL_ADJOINT_ATTENTION_H

#include "model/attention.h"

/* Queries at a time: of one head's attention weights and their cotangents, 2 * VQ_ADJOINT_QUERIES * n floats a thread
 * are there at once, small enough for the second cache. */
#define VQ_ADJOINT_QUERIES 128u

/* n tokens, k cotangents.  q [n, n_heads * head_dim], key and value [n, n_kv_heads * head_dim] after rotary
 * embedding; g_out [k, n, n_heads * head_dim] -> g_q, g_k, g_v [k, n, ...] (written, not added to). */
struct vq_attention_grad {
	const struct vq_layer_config *cfg;
	uint32_t n, k;
	const float *q, *key, *value, *g_out;
	float *g_q, *g_k, *g_v;
};

VQ_MUST_CHECK int vq_attention_adjoint(const struct vq_attention_grad *a, struct vq_err *err);

#endif
