/* Slopes of the dependency. */
#include "quant/dependency_slope.h"

#include <math.h>

#include "base/mem.h"
#include "kernel/joint.h"
#include "kernel/ops.h"

#define REACH VQ_JOINT_REACH
#define N_W   (2 * REACH + 1)
#define LEAST 1e-9 /* conditional probability */

/* Soft levels of one value around the nearest, and their slopes in x. */
struct soft {
	int a;
	double w[N_W], slope[N_W];
};

static double *cost_of(const float *P, uint32_t L, struct vq_err *err)
{
	double *g = vq_alloc((size_t)L * L, sizeof(*g), err);
	uint32_t a, b;

	for (a = 0; g && a < L; a++) {
		double row = 0;

		for (b = 0; b < L; b++)
			row += (double)P[(size_t)a * L + b];
		for (b = 0; b < L; b++) {
			double p = row > 0 ? (double)P[(size_t)a * L + b] / row : 0;

			g[(size_t)a * L + b] = -log(p > LEAST ? p : LEAST);
		}
	}
	return g;
}

static void soften(const struct vq_levels *v, uint32_t c, float x, int top, struct soft *s)
{
	double step = ((double)v->max[c] - v->min[c]) / top;
	double inv = step > 0 ? 1 / step : 0, u = ((double)x - v->min[c]) * inv;
	double sum = 0, mean = 0, f;
	float e[N_W];
	int i;

	if (!(u > 0 && u < top)) {
		inv = 0;
		u = u > 0 ? top : 0;
	}
	s->a = (int)rint(u);
	f = u - s->a;
	for (i = 0; i < N_W; i++)
		e[i] = (float)-((f - (i - REACH)) * (f - (i - REACH)));
	vq_exp(e, N_W, e);
	for (i = 0; i < N_W; i++) {
		int level = s->a + i - REACH;

		s->w[i] = level < 0 || level > top || fabs(f - (i - REACH)) > REACH ? 0
										    : (double)e[i];
		sum += s->w[i];
	}
	for (i = 0; i < N_W; i++) {
		s->w[i] /= sum;
		mean += s->w[i] * -2 * (f - (i - REACH));
	}
	for (i = 0; i < N_W; i++)
		s->slope[i] = s->w[i] * (-2 * (f - (i - REACH)) - mean) * inv;
}

static void one_value(const double *cost, int top, const struct soft *p, const struct soft *q,
		      double scale, float *gx, float *gy)
{
	double x = 0, y = 0;
	int i, j;

	for (i = 0; i < N_W; i++) {
		const double *row;
		double w = 0, s = 0;

		if (p->a + i < REACH || p->a + i - REACH > top)
			continue;
		row = cost + (size_t)(p->a + i - REACH) * (size_t)(top + 1);
		for (j = 0; j < N_W; j++) {
			int b = q->a + j - REACH;

			if (b < 0 || b > top)
				continue;
			w += row[b] * q->w[j];
			s += row[b] * q->slope[j];
		}
		x += p->slope[i] * w;
		y += p->w[i] * s;
	}
	*gx += (float)(scale * x);
	*gy += (float)(scale * y);
}

int vq_joint_slope(const float *P, const struct vq_levels *k, const struct vq_levels *k1,
		   size_t n_rows, uint32_t n_channels, uint32_t bits, double scale, float *gx,
		   float *gy, struct vq_err *err)
{
	int top = (1 << bits) - 1;
	double *cost = cost_of(P, (uint32_t)top + 1, err);
	long long r;

	if (!cost)
		return VQ_E_SYS;
	scale /= (double)n_rows * n_channels;
#pragma omp parallel for schedule(static)
	for (r = 0; r < (long long)n_rows; r++) {
		size_t at = (size_t)r * n_channels;
		struct soft p, q;
		uint32_t c;

		for (c = 0; c < n_channels; c++, at++) {
			soften(k, c, k->x[at], top, &p);
			soften(k1, c, k1->x[at], top, &q);
			one_value(cost, top, &p, &q, scale, &gx[at], &gy[at]);
		}
	}
	vq_free(cost);
	return VQ_OK;
}
