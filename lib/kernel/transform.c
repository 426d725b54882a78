/* Transforms of inputs: rows shared out to threads. */
#include "kernel/transform.h"

#include <omp.h>

#include "base/mem.h"
#include "kernel/cpu.h"

/* Rows at a time: a block's matrix is read once for all of them, and in floats they stay in the cache. */
#define TILE     24u
#define PARALLEL 32768u /* inputs below which one thread is faster */

static size_t rows_of(size_t n_rows, size_t tile)
{
	return n_rows - tile * TILE < TILE ? n_rows - tile * TILE : TILE;
}

void vq_transform_rows(const struct vq_transform *t, const float *x, size_t n_rows, float *out)
{
	const struct vq_kernels *k = vq_kernels_get();
	long long i, n_tiles = (long long)((n_rows + TILE - 1) / TILE);

#pragma omp parallel for schedule(static) if (n_rows * t->n > PARALLEL)
	for (i = 0; i < n_tiles; i++) {
		size_t at = (size_t)i * TILE * t->n;

		k->transform(t, x + at, rows_of(n_rows, (size_t)i), out + at);
	}
}

int vq_transform_quantize(const struct vq_transform *t, const struct vq_agrid *g, const float *x,
			  struct vq_qact *a, struct vq_err *err)
{
	const struct vq_kernels *k = vq_kernels_get();
	size_t n_rows = a->n_rows < TILE ? a->n_rows : TILE, per = n_rows * t->n;
	long long i, n_tiles = ((long long)a->n_rows + TILE - 1) / TILE;
	int parallel = (size_t)a->n_rows * t->n > PARALLEL;
	float *buf = vq_alloc_f32(per * (parallel ? (size_t)omp_get_max_threads() : 1), err);

	if (!buf)
		return VQ_E_SYS;
#pragma omp parallel for schedule(static) if (parallel)
	for (i = 0; i < n_tiles; i++) {
		float *v = buf + per * (parallel ? (size_t)omp_get_thread_num() : 0);
		size_t first = (size_t)i * TILE, n = rows_of(a->n_rows, (size_t)i), r;

		k->transform(t, x + first * t->n, n, v);
		for (r = 0; r < n; r++, v += t->n)
			vq_act_quantize_row(g, v, a, first + r);
	}
	vq_free(buf);
	return VQ_OK;
}
