/* Choosing tokens. */
#include "model/sampler.h"

#include <math.h>

int32_t vq_sample_greedy(const float *logits, uint32_t n)
{
	uint32_t best = 0, i;

	for (i = 1; i < n; i++)
		if (logits[i] > logits[best])
			best = i;
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
