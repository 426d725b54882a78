/* Soft-level joint matrices and dependency. */
#include "quant/entropy.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"

#define REACH 3 /* levels to each side */
#define WIDE  8 /* 2 REACH + 1 weights and a zero: two vectors of four doubles */

/* exp(x) for |x| <= 1, to 1e-12: the Taylor series.  The C library's exp picks its code, and so its last
 * bit, by the CPU. */
static inline double exp_small(double x)
{
	static const double c[] = {1.0 / 87178291200.0,
				   1.0 / 6227020800.0,
				   1.0 / 479001600.0,
				   1.0 / 39916800.0,
				   1.0 / 3628800.0,
				   1.0 / 362880.0,
				   1.0 / 40320.0,
				   1.0 / 5040.0,
				   1.0 / 720.0,
				   1.0 / 120.0,
				   1.0 / 24.0,
				   1.0 / 6.0,
				   0.5,
				   1.0,
				   1.0};
	double y = c[0];
	size_t i;

	for (i = 1; i < sizeof(c) / sizeof(c[0]); i++)
		y = y * x + c[i];
	return y;
}

/* The soft level of u in [0, top]: weights w[0..6] of levels a-3 .. a+3 for the nearest level a, which is
 * returned; those outside 0..top or farther than 3 are 0.  With f = u - a, exp(-(f - j)^2) is proportional
 * to exp(-j^2) exp(2f)^j, so one exponential makes all seven. */
static int soft_level(double u, int top, double w[WIDE])
{
	static const double e1 = 0x1.78b56362cef38p-2, /* exp(-1) */
		e4 = 0x1.2c155b8213cf4p-6,             /* exp(-4) */
		e9 = 0x1.02cf22526545ap-13;            /* exp(-9) */
	int a = (int)rint(u), j;
	double f = u - a, t = exp_small(2 * f), r = 1 / t, sum = 0;

	w[0] = f <= 0 ? e9 * r * r * r : 0;
	w[1] = e4 * r * r;
	w[2] = e1 * r;
	w[3] = 1;
	w[4] = e1 * t;
	w[5] = e4 * t * t;
	w[6] = f >= 0 ? e9 * t * t * t : 0;
	w[7] = 0;
	for (j = 0; j < 2 * REACH + 1; j++) {
		if (a + j < REACH || a + j > top + REACH)
			w[j] = 0;
		sum += w[j];
	}
	sum = 1 / sum;
	for (j = 0; j < 2 * REACH + 1; j++)
		w[j] *= sum;
	return a;
}

static inline double level(const struct vq_levels *v, const double *inv, size_t i, uint32_t c,
			   double top)
{
	double u = ((double)v->x[i] - v->min[c]) * inv[c];

	u = u > 0 ? u : 0; /* NaN too */
	return u < top ? u : top;
}

struct job {
	const struct vq_levels *k, *k1;
	const double *inv, *inv1; /* 1 / step */
	uint32_t n_channels;
	int top, hard;
};

/* Rows r0..r1 into the padded S [L + 8, L + 8], where level a is row a + 3 and level b column b + 3. */
static void add_rows(const struct job *job, size_t r0, size_t r1, double *S)
{
	size_t ld = (size_t)job->top + 1 + WIDE, r;
	uint32_t c;
	int j, m;

	for (r = r0; r < r1; r++)
		for (c = 0; c < job->n_channels; c++) {
			size_t i = r * job->n_channels + c;
			double u = level(job->k, job->inv, i, c, job->top);
			double v = level(job->k1, job->inv1, i, c, job->top);
			double wu[WIDE], wv[WIDE], *s;
			int a, b;

			if (job->hard) {
				S[((size_t)rint(u) + REACH) * ld + (size_t)rint(v) + REACH] += 1;
				continue;
			}
			a = soft_level(u, job->top, wu);
			b = soft_level(v, job->top, wv);
			s = S + (size_t)a * ld + (size_t)b;
			for (j = 0; j < 2 * REACH + 1; j++, s += ld)
				for (m = 0; m < WIDE; m++)
					s[m] += wu[j] * wv[m];
		}
}

static void invert_steps(const struct vq_levels *v, uint32_t n, int top, double *inv)
{
	uint32_t c;

	for (c = 0; c < n; c++) {
		double d = ((double)v->max[c] - v->min[c]) / top;

		inv[c] = d > 0 ? 1 / d : 0;
	}
}

#define SLICES      8     /* partial sums, each in its own matrix, added in order */
#define SLICE_LEAST 16384 /* values that are worth one */

int vq_joint_add(double *P, const struct vq_levels *k, const struct vq_levels *k1, size_t n_rows,
		 uint32_t n_channels, uint32_t bits, int hard, struct vq_err *err)
{
	int top = (1 << bits) - 1, n_slices, s, a, b;
	size_t ld = (size_t)top + 1 + WIDE, most = n_rows * n_channels / SLICE_LEAST + 1;
	double *inv = vq_alloc((size_t)n_channels * 2, sizeof(double), err), *S = NULL;
	struct job job = {k, k1, inv, inv + n_channels, n_channels, top, hard};
	int rc = VQ_OK;

	n_slices = most < SLICES ? (int)most : SLICES;
	if (inv)
		S = vq_calloc((size_t)n_slices * ld * ld, sizeof(double), err);
	if (!S) {
		rc = VQ_E_SYS;
		goto out;
	}
	invert_steps(k, n_channels, top, inv);
	invert_steps(k1, n_channels, top, inv + n_channels);
#pragma omp parallel for schedule(dynamic, 1) if (n_slices > 1)
	for (s = 0; s < n_slices; s++)
		add_rows(&job, n_rows * (size_t)s / (size_t)n_slices,
			 n_rows * (size_t)(s + 1) / (size_t)n_slices, S + (size_t)s * ld * ld);
	for (s = 0; s < n_slices; s++)
		for (a = 0; a <= top; a++)
			for (b = 0; b <= top; b++)
				P[(size_t)a * (size_t)(top + 1) + (size_t)b] +=
					S[(size_t)s * ld * ld + (size_t)(a + REACH) * ld +
					  (size_t)(b + REACH)];
out:
	vq_free(S);
	vq_free(inv);
	return rc;
}

double vq_joint_dependency(const double *P, uint32_t L)
{
	double total = 0, d = 0;
	uint32_t a, b;

	for (a = 0; a < L; a++) {
		double row = 0;

		for (b = 0; b < L; b++)
			row += P[(size_t)a * L + b];
		total += row;
		for (b = 0; b < L; b++)
			if (P[(size_t)a * L + b] > 0)
				d -= P[(size_t)a * L + b] * log(P[(size_t)a * L + b] / row);
	}
	return total > 0 && d > 0 ? d / total : 0;
}

double vq_hist_entropy(const double *h, size_t n)
{
	double total = 0, e = 0;
	size_t i;

	for (i = 0; i < n; i++)
		total += h[i];
	for (i = 0; i < n; i++)
		if (h[i] > 0)
			e -= h[i] / total * log(h[i] / total);
	return e > 0 ? e : 0;
}

void vq_joint_marginal(const double *P, uint32_t L, int of_k1, double *h)
{
	uint32_t a, b;

	memset(h, 0, L * sizeof(*h));
	for (a = 0; a < L; a++)
		for (b = 0; b < L; b++)
			h[of_k1 ? b : a] += P[(size_t)a * L + b];
}
