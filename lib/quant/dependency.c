/* Soft-level joint matrices and dependency. */
#include "quant/dependency.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "kernel/cpu.h"

/* Nearest levels instead of soft ones, into the same padded matrix. */
static void hard_rows(const struct vq_joint *j, size_t r0, size_t r1, double *S)
{
	size_t ld = (size_t)j->top + 1 + VQ_JOINT_WIDE, r, at[2];
	uint32_t c;
	int side;

	for (r = r0; r < r1; r++)
		for (c = 0; c < j->n_channels; c++) {
			for (side = 0; side < 2; side++) {
				double u = ((double)j->side[side].x[r * j->n_channels + c] -
					    j->side[side].min[c]) *
					   j->side[side].inv[c];

				u = u > 0 ? u : 0; /* NaN too */
				at[side] = (size_t)rint(u < j->top ? u : j->top) + VQ_JOINT_REACH;
			}
			S[at[0] * ld + at[1]] += 1;
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
	int top = (1 << bits) - 1, n_slices, m, n_parts, a, b;
	size_t ld = (size_t)top + 1 + VQ_JOINT_WIDE, most = n_rows * n_channels / SLICE_LEAST + 1;
	double *inv = vq_alloc((size_t)n_channels * 2, sizeof(double), err), *S = NULL;
	struct vq_joint j = {{{k->x, k->min, inv}, {k1->x, k1->min, inv + n_channels}},
			     n_channels,
			     (uint32_t)top,
			     bits <= 4   ? 8
			     : bits <= 6 ? 4
					 : 1};
	void (*rows)(const struct vq_joint *j, size_t r0, size_t r1, double *S) =
		hard ? hard_rows : vq_kernels_get()->joint_rows;
	int rc = VQ_OK;

	n_slices = most < SLICES ? (int)most : SLICES;
	n_parts = n_slices * (int)j.n_copies;
	if (inv)
		S = vq_calloc((size_t)n_parts * ld * ld, sizeof(double), err);
	if (!S) {
		rc = VQ_E_SYS;
		goto out;
	}
	invert_steps(k, n_channels, top, inv);
	invert_steps(k1, n_channels, top, inv + n_channels);
#pragma omp parallel for schedule(dynamic, 1) if (n_slices > 1)
	for (m = 0; m < n_slices; m++)
		rows(&j, n_rows * (size_t)m / (size_t)n_slices,
		     n_rows * (size_t)(m + 1) / (size_t)n_slices,
		     S + (size_t)m * j.n_copies * ld * ld);
	for (m = 0; m < n_parts; m++)
		for (a = 0; a <= top; a++)
			for (b = 0; b <= top; b++)
				P[(size_t)a * (size_t)(top + 1) + (size_t)b] +=
					S[((size_t)m * ld + (size_t)(a + VQ_JOINT_REACH)) * ld +
					  (size_t)(b + VQ_JOINT_REACH)];
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
