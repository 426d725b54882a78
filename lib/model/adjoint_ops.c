/* Adjoints of what stands between linears: activations and norms. */
#include "model/adjoint.h"

#include <math.h>

static double slope_of(enum vq_act_fn f, double x)
{
	double s, t, u;

	switch (f) {
	case VQ_ACT_SILU: s = 1 / (1 + exp(-x)); return s * (1 + x * (1 - s));
	case VQ_ACT_QUICK_GELU: s = 1 / (1 + exp(-1.702 * x)); return s * (1 + 1.702 * x * (1 - s));
	case VQ_ACT_GELU_ERF:
		return 0.5 * (1 + erf(x * M_SQRT1_2)) + x * exp(-0.5 * x * x) / sqrt(2 * M_PI);
	case VQ_ACT_GELU_TANH:
		u = sqrt(2 / M_PI) * (x + 0.044715 * x * x * x);
		t = tanh(u);
		return 0.5 * (1 + t) +
		       0.5 * x * (1 - t * t) * sqrt(2 / M_PI) * (1 + 3 * 0.044715 * x * x);
	}
	return 0;
}

void vq_act_slope(enum vq_act_fn f, const float *x, size_t n, float *slope)
{
	long long i;

#pragma omp parallel for schedule(static) if (n > 4096)
	for (i = 0; i < (long long)n; i++)
		slope[i] = (float)slope_of(f, x[i]);
}

/* m and r of the row x. */
static void moments(enum vq_norm kind, float eps, uint32_t n, const float *x, double *m, double *r)
{
	double mean = 0, var = 0;
	uint32_t i;

	for (i = 0; kind == VQ_NORM_LAYER && i < n; i++)
		mean += x[i];
	mean /= n;
	for (i = 0; i < n; i++)
		var += (x[i] - mean) * (x[i] - mean);
	*m = mean;
	*r = 1 / sqrt(var / n + eps);
}

/* y = w (x - m) r  with r = (mean (x - m)^2 + eps)^-1/2, m = 0 for RMSNorm:
 *   g_in = r (w g - mean(w g) - xhat mean(w g xhat)),  without the middle term for RMSNorm. */
void vq_norm_adjoint(enum vq_norm kind, float eps, uint32_t n, const float *x, const float *w,
		     float *g)
{
	double mean, r, wg = 0, wgx = 0;
	uint32_t i;

	moments(kind, eps, n, x, &mean, &r);
	for (i = 0; i < n; i++) {
		double a = (double)w[i] * g[i];

		wg += a;
		wgx += a * (x[i] - mean) * r;
	}
	wg = kind == VQ_NORM_LAYER ? wg / n : 0;
	wgx /= n;
	for (i = 0; i < n; i++)
		g[i] = (float)(r * ((double)w[i] * g[i] - wg - (x[i] - mean) * r * wgx));
}

void vq_norm_weight_adjoint(enum vq_norm kind, float eps, uint32_t n, const float *x,
			    const float *g, double *dw)
{
	double mean, r;
	uint32_t i;

	moments(kind, eps, n, x, &mean, &r);
	for (i = 0; i < n; i++)
		dw[i] += (double)g[i] * (x[i] - mean) * r;
}
