/* From logits to a token. */
#ifndef VQ_MODEL_SAMPLER_H
#define VQ_MODEL_SAMPLER_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* The largest of n logits, the first among equals. */
int32_t vq_sample_greedy(const float *logits, uint32_t n);

/* Token i with probability exp((l_i - max) / temperature) / sum; u in [0, 1) decides. */
int32_t vq_sample(const float *logits, uint32_t n, double temperature, double u);

/* log softmax of one token: l_i - log sum_j exp(l_j), in double. */
double vq_log_prob(const float *logits, uint32_t n, int32_t token);

/* VQ_E_DATA when a logit is NaN or infinite: the weights or the grids are broken. */
VQ_MUST_CHECK int vq_logits_check(const float *logits, uint32_t n, struct vq_err *err);

#endif
