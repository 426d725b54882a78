/* Smoothing, and the dual of a transform. */
#include "quant/smooth.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "kernel/lapack.h"

#define LEAST 1e-5

void vq_column_max(const float *x, size_t rows, uint32_t n, float *max)
{
	size_t r;
	uint32_t i;

	for (r = 0; r < rows; r++)
		for (i = 0; i < n; i++) {
			float a = fabsf(x[r * n + i]);

			max[i] = a > max[i] ? a : max[i];
		}
}

void vq_smooth_scale(const float *x_max, const float *w_max, const float *sign, uint32_t n,
		     double a, float *scale)
{
	double top = 0;
	uint32_t i;

	for (i = 0; i < n; i++)
		top = fmax(top, (double)x_max[i]);
	for (i = 0; i < n; i++) {
		double x = x_max[i] > 0 ? (double)x_max[i] : top;
		double s = pow(x, a) / pow(fmax((double)w_max[i], LEAST), 1 - a);

		scale[i] = (float)(1 / fmax(s, LEAST)) * (sign ? sign[i] : 1);
	}
}

/* out [n, n] = m^-T. */
static int invert_block(uint32_t n, const float *m, double *work, float *out)
{
	uint32_t i, j;

	for (i = 0; i < n; i++)
		for (j = 0; j < n; j++)
			work[(size_t)j * n + i] = (double)m[(size_t)i * n + j];
	if (vq_lu_invert(n, work) < 0)
		return -1;
	for (i = 0; i < n * n; i++)
		out[i] = (float)work[i];
	return 0;
}

static int invert_blocks(struct vq_transform *dual, const struct vq_transform *t,
			 struct vq_err *err)
{
	uint32_t n = t->block;
	long long b, n_blocks = t->n / n;
	size_t size = (size_t)n * n;
	float *inverse = vq_alloc_f32(size * (size_t)n_blocks, err);
	double *work = inverse ? vq_alloc(size * (size_t)n_blocks, sizeof(*work), err) : NULL;
	int bad = 0;

	dual->matrix = inverse;
	if (!work)
		return VQ_E_SYS;
#pragma omp parallel for schedule(dynamic, 1) reduction(+ : bad)
	for (b = 0; b < n_blocks; b++)
		bad += invert_block(n, t->matrix + (size_t)b * size, work + (size_t)b * size,
				    inverse + (size_t)b * size) < 0;
	vq_free(work);
	return bad ? vq_fail(err, VQ_E_DATA,
			     "a transform of %u inputs: %d of %lld blocks are "
			     "singular",
			     t->n, bad, n_blocks)
		   : VQ_OK;
}

static int invert_scale(struct vq_transform *dual, const struct vq_transform *t, struct vq_err *err)
{
	float *scale = vq_alloc_f32(t->n, err);
	uint32_t i;

	dual->scale = scale;
	if (!scale)
		return VQ_E_SYS;
	for (i = 0; i < t->n; i++) {
		scale[i] = 1 / t->scale[i];
		if (!isfinite(scale[i]) || scale[i] == 0)
			return vq_fail(err, VQ_E_DATA, "a transform has the scale %g at input %u",
				       (double)t->scale[i], i);
	}
	return VQ_OK;
}

int vq_transform_dual(struct vq_transform *dual, const struct vq_transform *t, struct vq_err *err)
{
	int rc = VQ_OK;

	*dual = (struct vq_transform){.n = t->n, .block = t->block};
	if (t->scale)
		rc = invert_scale(dual, t, err);
	if (rc == VQ_OK && t->matrix)
		rc = invert_blocks(dual, t, err);
	if (rc < 0)
		vq_transform_free(dual);
	return rc;
}

void vq_transform_free(struct vq_transform *t)
{
	vq_free((void *)(uintptr_t)t->scale);
	vq_free((void *)(uintptr_t)t->matrix);
	memset(t, 0, sizeof(*t));
}
