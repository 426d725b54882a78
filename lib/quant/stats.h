/* Statistics of right and wrong answers, and of two distributions over tokens. */
#ifndef VQ_QUANT_STATS_H
#define VQ_QUANT_STATS_H

#include <stddef.h>
#include <stdint.h>

/* Standard error of k right of n, sqrt(p (1 - p) / n); 0 when n is 0. */
double vq_binomial_se(uint32_t k, uint32_t n);

/* Wilson's score interval (E. B. Wilson, JASA 22, 1927) of k right of n at z standard deviations
 * (1.959964 for 95 %).  n = 0 gives [0, 1]. */
void vq_wilson(uint32_t k, uint32_t n, double z, double *lo, double *hi);

/* McNemar's test (Psychometrika 12, 1947) on the discordant pairs of two paired runs: lost were right in
 * the first only, gained in the second only.  Two-sided, by the binomial distribution: p_exact is
 * 2 P(X <= min), p_mid takes half of the outcome seen (H. O. Lancaster, JASA 56, 1961); both at most 1. */
void vq_mcnemar(uint32_t lost, uint32_t gained, double *p_exact, double *p_mid);

/* Standard error of the paired difference (gained - lost) / n. */
double vq_paired_se(uint32_t lost, uint32_t gained, uint32_t n);

/* KL(P || Q) in nats between the softmax of logits p and q [n]; not finite where a logit is not. */
double vq_kl_logits(const float *p, const float *q, size_t n);

/* Position of the largest of v [n]; the first of equals. */
size_t vq_argmax_f32(const float *v, size_t n);

#endif
