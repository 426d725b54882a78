/* The table of ops.h chosen, and its rows shared out among threads. */
#include "kernel/ops.h"

#include <math.h>

#include "kernel/cpu.h"

#define CHUNK 8192u /* elements a job; smaller work stays on one thread */

static const struct vq_ops *ops(void)
{
	return vq_kernels_get()->ops;
}

void vq_rmsnorm(const float *x, size_t n_rows, uint32_t n, const float *w, float eps, float *out)
{
	const struct vq_ops *o = ops();
	long long i;

#pragma omp parallel for schedule(static) if (n_rows * n > 4 * CHUNK)
	for (i = 0; i < (long long)n_rows; i++)
		o->rmsnorm(x + (size_t)i * n, n, w, eps, out + (size_t)i * n);
}

void vq_layernorm(const float *x, size_t n_rows, uint32_t n, const float *w, const float *b,
		  float eps, float *out)
{
	const struct vq_ops *o = ops();
	long long i;

#pragma omp parallel for schedule(static) if (n_rows * n > 4 * CHUNK)
	for (i = 0; i < (long long)n_rows; i++)
		o->layernorm(x + (size_t)i * n, n, w, b, eps, out + (size_t)i * n);
}

void vq_softmax(float *x, size_t n)
{
	ops()->softmax(x, n);
}

static void in_chunks(void (*f)(const float *, const float *, size_t, float *), const float *x,
		      const float *mul, size_t n, float *out)
{
	long long job, n_jobs = (long long)((n + CHUNK - 1) / CHUNK);

#pragma omp parallel for schedule(static) if (n_jobs > 4)
	for (job = 0; job < n_jobs; job++) {
		size_t at = (size_t)job * CHUNK, len = n - at < CHUNK ? n - at : CHUNK;

		f(x + at, mul ? mul + at : NULL, len, out + at);
	}
}

void vq_silu(const float *x, const float *mul, size_t n, float *out)
{
	in_chunks(ops()->silu, x, mul, n, out);
}

void vq_quick_gelu(const float *x, const float *mul, size_t n, float *out)
{
	in_chunks(ops()->quick_gelu, x, mul, n, out);
}

void vq_gelu_tanh(const float *x, const float *mul, size_t n, float *out)
{
	in_chunks(ops()->gelu_tanh, x, mul, n, out);
}

void vq_gelu_erf(const float *x, const float *mul, size_t n, float *out)
{
	in_chunks(ops()->gelu_erf, x, mul, n, out);
}

void vq_exp(const float *x, size_t n, float *out)
{
	ops()->exp(x, n, out);
}

float vq_dot(const float *x, const float *y, size_t n)
{
	return ops()->dot(x, y, n);
}

static void add(const float *x, const float *h, size_t n, float *out)
{
	size_t i;

	for (i = 0; i < n; i++)
		out[i] = h[i] + x[i];
}

void vq_add(float *h, const float *x, size_t n)
{
	in_chunks(add, x, h, n, h);
}

void vq_rotary_table(float *cos_out, float *sin_out, uint32_t first, uint32_t n_pos,
		     uint32_t head_dim, float theta)
{
	uint32_t half = head_dim / 2, i, p;

	for (i = 0; i < half; i++) {
		float freq = 1.0f / powf(theta, (float)(2 * i) / (float)head_dim);

		for (p = 0; p < n_pos; p++) {
			float angle = (float)(first + p) * freq;

			cos_out[(size_t)p * half + i] = cosf(angle);
			sin_out[(size_t)p * half + i] = sinf(angle);
		}
	}
}

void vq_rotary(float *x, uint32_t n_heads, uint32_t head_dim, const float *c, const float *s)
{
	ops()->rotary(x, n_heads, head_dim, c, s);
}
