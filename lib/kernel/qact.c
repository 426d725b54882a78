/* Activation quantization: rows shared out to threads. */
#include "kernel/qact.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "base/num.h"
#include "kernel/cpu.h"
#include "kernel/qact_rows.h"
#include "kernel/share.h"

#define ROW_ALIGN 64u    /* bytes */
#define PARALLEL  32768u /* inputs below which one thread is faster */

uint32_t vq_agrid_n_groups(const struct vq_agrid *g, uint32_t n)
{
	return g->group == 0 || g->group >= n ? n > 0 : vq_ceil_div(n, g->group);
}

uint32_t vq_agrid_n_ranges(const struct vq_agrid *g, uint32_t n, uint32_t n_positions)
{
	switch (g->range) {
	case VQ_RANGE_STATIC:
	case VQ_RANGE_CHANNEL: return vq_agrid_n_groups(g, n);
	case VQ_RANGE_POSITION: return n_positions;
	case VQ_RANGE_TOKEN: break;
	}
	return 0;
}

int vq_agrid_is_integer(const struct vq_agrid *g)
{
	return g->bits != VQ_ACT_FLOAT && g->range != VQ_RANGE_CHANNEL;
}

int vq_agrid_same(const struct vq_agrid *a, const struct vq_agrid *b)
{
	size_t bytes = (size_t)a->n_ranges * sizeof(float);

	if (a->bits != b->bits || a->group != b->group || a->sym != b->sym || a->clip != b->clip ||
	    a->range != b->range || a->n_ranges != b->n_ranges)
		return 0;
	return a->n_ranges == 0 ||
	       (memcmp(a->lo, b->lo, bytes) == 0 && memcmp(a->hi, b->hi, bytes) == 0);
}

size_t vq_agrid_chunk(const struct vq_agrid *g, size_t n)
{
	size_t unit = g->range == VQ_RANGE_POSITION ? g->n_ranges : 1;

	return unit > 1 ? (n + unit - 1) / unit * unit : n;
}

int vq_agrid_check_ranges(const float *lo, const float *hi, uint32_t n, const char *label,
			  struct vq_err *err)
{
	uint32_t i;

	for (i = 0; i < n; i++)
		if (!isfinite(lo[i]) || !isfinite(hi[i]) || lo[i] > 0 || hi[i] < 0)
			return vq_fail(err, VQ_E_DATA,
				       "%s: range %u: want lo <= 0 <= hi, got %g, %g", label, i,
				       (double)lo[i], (double)hi[i]);
	return VQ_OK;
}

int vq_qact_alloc(struct vq_qact *a, size_t n_rows, uint32_t n, const struct vq_agrid *g,
		  struct vq_err *err)
{
	struct vq_qact t = {0};
	size_t n_q, n_scales, i;

	if (g->bits < 2 || g->bits > 8)
		return vq_fail(err, VQ_E_DATA, "activations: want 2..8 bits, got %u", g->bits);
	if (n_rows > UINT32_MAX || n > UINT32_MAX - ROW_ALIGN)
		return vq_fail(err, VQ_E_DATA, "activations: %zu x %u is too large", n_rows, n);
	t.n_rows = (uint32_t)n_rows;
	t.n = n;
	t.n_groups = vq_agrid_n_groups(g, n);
	t.stride = (n + ROW_ALIGN - 1) / ROW_ALIGN * ROW_ALIGN;
	if (vq_mul_size(&n_q, n_rows, t.stride) < 0 ||
	    vq_mul_size(&n_scales, n_rows, t.n_groups) < 0)
		return vq_fail(err, VQ_E_DATA, "activations: %zu x %u is too large", n_rows, n);
	t.q = vq_alloc(n_q, 1, err);
	t.scale = t.q ? vq_alloc_f32(n_scales, err) : NULL;
	t.zero = t.scale ? vq_alloc(n_scales, sizeof(int32_t), err) : NULL;
	if (!t.zero) {
		vq_qact_free(&t);
		return VQ_E_SYS;
	}
	for (i = 0; t.stride > n && i < n_rows; i++)
		memset(t.q + i * t.stride + n, 0, t.stride - n);
	*a = t;
	return VQ_OK;
}

void vq_qact_free(struct vq_qact *a)
{
	vq_free(a->q);
	vq_free(a->scale);
	vq_free(a->zero);
	memset(a, 0, sizeof(*a));
}

/* The grid of row t: its own range where ranges are by position. */
static inline struct vq_agrid row_grid(const struct vq_agrid *g, size_t t)
{
	struct vq_agrid r = *g;

	if (g->range == VQ_RANGE_POSITION) {
		r.lo += t % g->n_ranges;
		r.hi += t % g->n_ranges;
	}
	return r;
}

void vq_act_quantize_row(const struct vq_agrid *g, const float *x, struct vq_qact *a, size_t t)
{
	struct vq_agrid r = row_grid(g, t);

	vq_kernels_get()->act_quantize(&r, x, a->n, a->q + t * a->stride,
				       a->scale + t * a->n_groups, a->zero + t * a->n_groups);
}

struct quantizing {
	const struct vq_agrid *g;
	const float *x;
	struct vq_qact *a;
};

static void quantize_rows(void *ctx, size_t first, size_t end)
{
	const struct quantizing *q = ctx;
	size_t t;

	for (t = first; t < end; t++)
		vq_act_quantize_row(q->g, q->x + t * q->a->n, q->a, t);
}

void vq_act_quantize(const struct vq_agrid *g, const float *x, struct vq_qact *a)
{
	struct quantizing q = {g, x, a};

	vq_share(a->n_rows, (size_t)a->n_rows * a->n <= PARALLEL, quantize_rows, &q);
}

void vq_act_fake(const struct vq_agrid *g, const float *x, size_t n_rows, uint32_t n, float *out)
{
	const struct vq_kernels *k = vq_kernels_get();
	long long t;

	if (g->bits == VQ_ACT_FLOAT) {
		if (out != x)
			memcpy(out, x, n_rows * n * sizeof(float));
		return;
	}
	if (g->range == VQ_RANGE_CHANNEL) {
		vq_act_fake_channels(g, x, n_rows, n, out);
		return;
	}
#pragma omp parallel for schedule(static) if (n_rows * n > PARALLEL)
	for (t = 0; t < (long long)n_rows; t++) {
		struct vq_agrid r = row_grid(g, (size_t)t);

		k->act_fake(&r, x + (size_t)t * n, n, out + (size_t)t * n);
	}
}
