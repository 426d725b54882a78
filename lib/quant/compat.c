/* The authors' released quantizer and measures. */
#include "quant/compat.h"

#include <math.h>

#include "base/num.h"

struct vq_compat_range vq_compat_range_of(uint32_t bits, float lo, float hi)
{
	struct vq_compat_range r = {.bits = bits, .lo = lo};

	if (hi == lo)
		return r;
	r.s = (float)((1u << bits) - 1) / (hi - lo);
	r.z = vq_rne(r.s * lo) + (float)(1u << (bits - 1));
	return r;
}

int32_t vq_compat_code(const struct vq_compat_range *r, float x)
{
	float half = (float)(1u << (r->bits - 1)), q = vq_rne(r->s * x - r->z);

	q = q > -half ? q : -half; /* NaN too */
	return (int32_t)(q < half - 1 ? q : half - 1);
}

float vq_compat_value(const struct vq_compat_range *r, int32_t q)
{
	return r->s == 0 ? r->lo : ((float)q + r->z) / r->s;
}

double vq_compat_entropy(const float *a, size_t n_tokens, size_t n_channels)
{
	double sum = 0;
	size_t c, t;

	for (c = 0; c < n_channels; c++) {
		double norm = 0;

		for (t = 0; t < n_tokens; t++)
			norm += (double)a[t * n_channels + c] * a[t * n_channels + c];
		norm = sqrt(norm) > 1e-12 ? sqrt(norm) : 1e-12; /* F.normalize's floor */
		for (t = 0; t < n_tokens; t++) {
			double v = a[t * n_channels + c] / norm;

			sum -= v * log(v + 1e-7);
		}
	}
	return n_channels ? sum / (double)n_channels : 0;
}

static double column_sum(const float *a, size_t n_tokens, size_t n_channels, size_t c)
{
	double sum = 0;
	size_t t;

	for (t = 0; t < n_tokens; t++)
		sum += fabs((double)a[t * n_channels + c]);
	return sum > 1e-12 ? sum : 1e-12;
}

double vq_compat_ded(const float *p, const float *r, size_t n_tokens, size_t n_channels)
{
	double total = 0;
	size_t c, t;

	for (c = 0; c < n_channels; c++) {
		double np = column_sum(p, n_tokens, n_channels, c);
		double nr = column_sum(r, n_tokens, n_channels, c), joint = 0, cond = 0, d = 0;

		for (t = 0; t < n_tokens; t++) {
			double a = p[t * n_channels + c] / np, b = r[t * n_channels + c] / nr;

			joint += a * b;
			cond += b / (a + 1e-5);
		}
		if (joint == 0 || cond == 0) /* theirs gives NaN; nothing in common says nothing */
			continue;
		for (t = 0; t < n_tokens; t++) {
			double a = p[t * n_channels + c] / np, b = r[t * n_channels + c] / nr;

			d -= a * b / joint * log(b / (a + 1e-5) / cond + 1e-5);
		}
		total += d;
	}
	return n_channels ? total / (double)n_channels : 0;
}

float vq_compat_ratio(int i)
{
	return (float)(1.0 - 0.1 * i);
}

int vq_compat_clip_search(const float *x, size_t n, uint32_t bits, double power,
			  double loss[VQ_COMPAT_RATIOS])
{
	float lo = n ? x[0] : 0, hi = lo;
	double least = INFINITY;
	int i, best = 0;
	size_t j;

	for (j = 0; j < n; j++) {
		lo = x[j] < lo ? x[j] : lo;
		hi = x[j] > hi ? x[j] : hi;
	}
	for (i = 0; i < VQ_COMPAT_RATIOS; i++) {
		float c = vq_compat_ratio(i);
		struct vq_compat_range r = vq_compat_range_of(bits, lo * c, hi * c);
		double sum = 0;

		for (j = 0; j < n; j++)
			sum += pow(
				fabs((double)vq_compat_value(&r, vq_compat_code(&r, x[j])) - x[j]),
				power);
		sum = n ? sum / (double)n : 0;
		if (loss)
			loss[i] = sum;
		if (sum < least) {
			least = sum;
			best = i;
		}
	}
	return best;
}
