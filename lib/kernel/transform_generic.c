/* Transforms in plain C: the meaning of the operation. */
#include "kernel/transform_rows.h"

#include <math.h>
#include <string.h>

void vq_fwht(float *x, uint32_t n)
{
	uint32_t h, i, j;

	for (h = 1; h < n; h *= 2)
		for (i = 0; i < n; i += 2 * h)
			for (j = i; j < i + h; j++) {
				float a = x[j], b = x[j + h];

				x[j] = a + b;
				x[j + h] = a - b;
			}
}

static void hadamard(float *x, uint32_t n, uint32_t block)
{
	float norm = (float)(1 / sqrt(block));
	uint32_t i;

	for (i = 0; i < n; i += block)
		vq_fwht(x + i, block);
	for (i = 0; i < n; i++)
		x[i] *= norm;
}

static void matrices(float *x, uint32_t n, uint32_t block, const float *m)
{
	float y[VQ_TRANSFORM_BLOCK];
	uint32_t b, i, j;

	for (b = 0; b < n; b += block, m += (size_t)block * block) {
		memset(y, 0, block * sizeof(*y));
		for (i = 0; i < block; i++)
			for (j = 0; j < block; j++)
				y[j] = fmaf(x[b + i], m[(size_t)i * block + j], y[j]);
		memcpy(x + b, y, block * sizeof(*y));
	}
}

void vq_transform_generic(const struct vq_transform *t, const float *x, size_t n_rows, float *out)
{
	size_t r;
	uint32_t i;

	for (r = 0; r < n_rows; r++, x += t->n, out += t->n) {
		for (i = 0; i < t->n; i++)
			out[i] = t->scale ? x[i] * t->scale[i] : x[i];
		if (t->block && t->matrix)
			matrices(out, t->n, t->block, t->matrix);
		else if (t->block)
			hadamard(out, t->n, t->block);
	}
}
