/* Statistics of right and wrong answers. */
#include "quant/stats.h"

#include <math.h>

double vq_binomial_se(uint32_t k, uint32_t n)
{
	double p = n ? (double)k / n : 0;

	return n ? sqrt(p * (1 - p) / n) : 0;
}

void vq_wilson(uint32_t k, uint32_t n, double z, double *lo, double *hi)
{
	double p = n ? (double)k / n : 0, zz = z * z;
	double mid, half, den;

	*lo = 0;
	*hi = 1;
	if (n == 0)
		return;
	den = 1 + zz / n;
	mid = (p + zz / (2.0 * n)) / den;
	half = z * sqrt(p * (1 - p) / n + zz / (4.0 * n * n)) / den;
	/* At the ends one limit is 0 or 1 exactly; rounding must not carry it past. */
	*lo = k == 0 ? 0 : mid - half;
	*hi = k == n ? 1 : mid + half;
}

void vq_mcnemar(uint32_t lost, uint32_t gained, double *p_exact, double *p_mid)
{
	uint32_t n = lost + gained, m = lost < gained ? lost : gained, i;
	double below = 0, at = 0;

	/* Terms C(n, i) / 2^n through lgamma: 2^-n alone underflows from n = 1075 on. */
	for (i = 0; i <= m; i++) {
		at = exp(lgamma(n + 1.0) - lgamma(i + 1.0) - lgamma(n - i + 1.0) - n * M_LN2);
		if (i < m)
			below += at;
	}
	*p_exact = fmin(1, 2 * (below + at));
	*p_mid = fmin(1, 2 * below + at);
}

double vq_paired_se(uint32_t lost, uint32_t gained, uint32_t n)
{
	double d = (double)gained - lost;

	return n ? sqrt(((double)lost + gained - d * d / n)) / n : 0;
}

size_t vq_argmax_f32(const float *v, size_t n)
{
	size_t best = 0, i;

	for (i = 1; i < n; i++)
		if (v[i] > v[best])
			best = i;
	return best;
}

/* log sum exp, shifted by the largest so that nothing overflows. */
static double log_sum_exp(const float *v, size_t n)
{
	double top = v[vq_argmax_f32(v, n)], sum = 0;
	size_t i;

	for (i = 0; i < n; i++)
		sum += exp(v[i] - top);
	return top + log(sum);
}

double vq_kl_logits(const float *p, const float *q, size_t n)
{
	double lp, lq, sum = 0;
	size_t i;

	if (n == 0)
		return 0;
	lp = log_sum_exp(p, n);
	lq = log_sum_exp(q, n);
	for (i = 0; i < n; i++)
		sum += exp(p[i] - lp) * ((p[i] - lp) - (q[i] - lq));
	/* Not below 0 in exact arithmetic (Gibbs); rounding of equal inputs may fall just short. */
	return sum < 0 && sum > -1e-9 ? 0 : sum;
}
