/* How much attention each token gets in a layer. */
#ifndef VQ_MODEL_ATTENTION_MASS_H
#define VQ_MODEL_ATTENTION_MASS_H

#include "model/layer.h"

/* x [rows, hidden]: the input of l's SLOT_QKV (vq_layer_run.x after vq_layer_begin), positions from 0 in each sequence.
 *
 *   mass[t] = 1 / (heads * queries that see t) * sum over heads and queries of softmax(q k^T / sqrt(head_dim))[query, t]
 *
 * mass [rows].  This is the attention concentration of RSQ (arXiv 2503.01820) but for the divisor: under a causal mask
 * the first token is seen by all queries and the last by one, and the bare sum would rank tokens by position.  The same
 * bytes for any number of threads.  Memory: rows * (2 hidden + heads * 2) floats, and a tile of scores a thread. */
VQ_MUST_CHECK int vq_attention_mass(const struct vq_layer *l, const float *x,
				    const struct vq_batch *b, float *mass, struct vq_err *err);

#endif
