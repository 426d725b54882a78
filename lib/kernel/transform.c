/* Transforms of inputs. */
#include "kernel/transform.h"

#include <math.h>
#include <string.h>

#define MAX_BLOCK 256u

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
	float scale = (float)(1 / sqrt(block));
	uint32_t i;

	for (i = 0; i < n; i += block)
		vq_fwht(x + i, block);
	for (i = 0; i < n; i++)
		x[i] *= scale;
}

static void matrices(float *x, uint32_t n, uint32_t block, const float *m)
{
	float y[MAX_BLOCK];
	uint32_t b, i, j;

	for (b = 0; b < n; b += block, m += (size_t)block * block) {
		memset(y, 0, block * sizeof(*y));
		for (i = 0; i < block; i++)
			for (j = 0; j < block; j++)
				y[j] += x[b + i] * m[(size_t)i * block + j];
		memcpy(x + b, y, block * sizeof(*y));
	}
}

void vq_transform_rows(const struct vq_transform *t, const float *x, size_t n_rows, float *out)
{
	long long r;

#pragma omp parallel for schedule(static) if (n_rows * t->n > 32768)
	for (r = 0; r < (long long)n_rows; r++) {
		const float *in = x + (size_t)r * t->n;
		float *v = out + (size_t)r * t->n;
		uint32_t i;

		for (i = 0; i < t->n; i++)
			v[i] = t->scale ? in[i] * t->scale[i] : in[i];
		if (t->block && t->matrix)
			matrices(v, t->n, t->block, t->matrix);
		else if (t->block)
			hadamard(v, t->n, t->block);
	}
}
