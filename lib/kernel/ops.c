/* The table of ops.h chosen, and its rows shared out among threads. */
#include "kernel/ops.h"

#include <math.h>

#include "kernel/cpu.h"
#include "kernel/share.h"

#define CHUNK 8192u /* elements a job; smaller work stays on one thread */

static const struct vq_ops *ops(void)
{
	return vq_kernels_get()->ops;
}

struct norm {
	const float *x, *w, *b; /* b NULL: the norm is by the root of the mean square */
	uint32_t n;
	float eps, *out;
};

static void norm_rows(void *ctx, size_t first, size_t end)
{
	const struct norm *v = ctx;
	const struct vq_ops *o = ops();
	size_t i;

	for (i = first; i < end; i++) {
		const float *x = v->x + i * v->n;

		if (v->b)
			o->layernorm(x, v->n, v->w, v->b, v->eps, v->out + i * v->n);
		else
			o->rmsnorm(x, v->n, v->w, v->eps, v->out + i * v->n);
	}
}

void vq_rmsnorm(const float *x, size_t n_rows, uint32_t n, const float *w, float eps, float *out)
{
	struct norm v = {x, w, NULL, n, eps, out};

	vq_share(n_rows, n_rows * n <= 4 * CHUNK, norm_rows, &v);
}

void vq_layernorm(const float *x, size_t n_rows, uint32_t n, const float *w, const float *b,
		  float eps, float *out)
{
	struct norm v = {x, w, b, n, eps, out};

	vq_share(n_rows, n_rows * n <= 4 * CHUNK, norm_rows, &v);
}

void vq_softmax(float *x, size_t n)
{
	ops()->softmax(x, n);
}

typedef void element_fn(const float *x, const float *mul, size_t n, float *out);

struct elements {
	element_fn *f;
	const float *x, *mul;
	size_t n;
	float *out;
};

static void some_chunks(void *ctx, size_t first, size_t end)
{
	const struct elements *e = ctx;
	size_t at = first * CHUNK, stop = end * CHUNK < e->n ? end * CHUNK : e->n;

	if (at < stop)
		e->f(e->x + at, e->mul ? e->mul + at : NULL, stop - at, e->out + at);
}

static void in_chunks(element_fn *f, const float *x, const float *mul, size_t n, float *out)
{
	struct elements e = {f, x, mul, n, out};
	size_t n_jobs = (n + CHUNK - 1) / CHUNK;

	vq_share(n_jobs, n_jobs <= 4, some_chunks, &e);
}

void vq_activate(enum vq_act_fn f, const float *x, const float *mul, size_t n, float *out)
{
	in_chunks(ops()->activate[f], x, mul, n, out);
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
