/* Choosing tokens. */
#include "model/sampler.h"

#include <math.h>

#define SOME 16u /* logits looked at together */

int32_t vq_sample_greedy(const float *logits, uint32_t n)
{
	uint32_t best = 0, i, j;

	/* Sixteen at a time, of which few hold a larger one. */
	for (i = 0; i < n; i += SOME) {
		uint32_t end = n - i < SOME ? n : i + SOME;
		int larger = 0;

		for (j = i; j < end; j++)
			larger |= logits[j] > logits[best];
		for (j = i; larger && j < end; j++)
			if (logits[j] > logits[best])
				best = j;
	}
	return (int32_t)best;
}

int32_t vq_sample(const float *logits, uint32_t n, double temperature, double u)
{
	int32_t top = vq_sample_greedy(logits, n);
	double max = logits[top], sum = 0, upto = 0;
	uint32_t i;

	for (i = 0; i < n; i++)
		sum += exp((logits[i] - max) / temperature);
	for (i = 0; i < n; i++) {
		upto += exp((logits[i] - max) / temperature) / sum;
		if (u < upto)
			return (int32_t)i;
	}
	return top; /* rounding left a crumb above the last sum */
}

double vq_log_prob(const float *logits, uint32_t n, int32_t token)
{
	double max = logits[vq_sample_greedy(logits, n)], sum = 0;
	uint32_t i;

	for (i = 0; i < n; i++)
		sum += exp(logits[i] - max);
	return logits[token] - max - log(sum);
}

int vq_logits_check(const float *logits, uint32_t n, struct vq_err *err)
{
	uint32_t i;

	for (i = 0; i < n; i++)
		if (!isfinite(logits[i]))
			return vq_fail(
				err, VQ_E_DATA,
				"the logit of token %u is %f; the model's numbers are broken", i,
				(double)logits[i]);
	return VQ_OK;
}
