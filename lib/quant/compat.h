/* What the authors' released code computes instead of the paper's equations: the activation quantizer with
 * stored ranges, its "entropy" and "DED", and its L0.5 clip search.  For conformance tests;
 * the tools' own quantizers are quant/grid.h and kernel/qact.h. */
#ifndef VQ_QUANT_COMPAT_H
#define VQ_QUANT_COMPAT_H

#include <stddef.h>
#include <stdint.h>

/* The asymmetric quantizer of a range [lo, hi]: scale is the reciprocal of the step.
 *   s = (2^b - 1) / (hi - lo),  z = round(s lo) + 2^(b-1),
 *   q = clamp(round(s x - z), -2^(b-1), 2^(b-1) - 1),  x' = (q + z) / s          round half to even
 * The original divides by 0 when hi = lo; here such a range has s = 0, and x' = lo. */
struct vq_compat_range {
	uint32_t bits;
	float s, z, lo;
};

struct vq_compat_range vq_compat_range_of(uint32_t bits, float lo, float hi);
int32_t vq_compat_code(const struct vq_compat_range *r, float x);
float vq_compat_value(const struct vq_compat_range *r, int32_t q);

/* cal_entropy: a [T, C] (not negative) divided by the L2 norm of each column; the mean over columns of
 * -sum_t a ln(a + 1e-7).  Not an entropy of probabilities: it grows with sqrt(T) ln(T) / 2. */
double vq_compat_entropy(const float *a, size_t n_tokens, size_t n_channels);

/* compute_DED: p, r [T, C] divided by the L1 norm of each column;
 *   joint = p r / sum_t p r,  cond = (r / (p + 1e-5)) / sum_t,  the mean over columns of
 *   -sum_t joint ln(cond + 1e-5). */
double vq_compat_ded(const float *p, const float *r, size_t n_tokens, size_t n_channels);

/* The clip search over ratios 1, .9, ... .4 of both bounds: mean |x' - x|^power (theirs: 0.5).  loss [7] may
 * be NULL.  Returns the index of the first least one. */
#define VQ_COMPAT_RATIOS 7
int vq_compat_clip_search(const float *x, size_t n, uint32_t bits, double power,
			  double loss[VQ_COMPAT_RATIOS]);
float vq_compat_ratio(int i);

#endif
