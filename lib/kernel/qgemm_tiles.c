/* The loop around the vector rows of the integer product. */
#include "kernel/qgemm_tiles.h"

#include <string.h>

#include "base/mem.h"
#include "base/num.h"
#include "kernel/qgemm_rows.h"

#define LITTLE (1u << 18) /* multiplications below which one thread is faster */

static uint32_t least(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

/* The sum of n codes, eight at a time: + 128 makes them unsigned, and sixteen-bit lanes hold 128 pairs of them. */
static int32_t sum_of(const int8_t *q, uint32_t n)
{
	const uint64_t sign = 0x8080808080808080u, even = 0x00ff00ff00ff00ffu;
	uint32_t whole = n / 8 * 8, i = 0, end;
	int32_t sum = -128 * (int32_t)whole;

	while (i < whole) {
		uint64_t lanes = 0, v;

		for (end = least(whole, i + 128 * 8); i < end; i += 8) {
			memcpy(&v, q + i, 8);
			v ^= sign;
			lanes += (v & even) + (v >> 8 & even);
		}
		sum += (int32_t)((lanes & 0xffff) + (lanes >> 16 & 0xffff) +
				 (lanes >> 32 & 0xffff) + (lanes >> 48));
	}
	for (; i < n; i++)
		sum += q[i];
	return sum;
}

/* Tokens t0 .. t0 + nt into the order of a tile. */
static void pack_tile(const struct vq_tile_plan *pl, uint32_t t0, uint32_t nt)
{
	const struct vq_product *p = pl->p;
	const struct vq_qact *a = p->a;
	int32_t *q = pl->a.q + (size_t)t0 * pl->n_steps;
	uint32_t t, s, k;

	for (t = 0; t < nt; t++) {
		const int8_t *row = a->q + (size_t)(t0 + t) * a->stride;

		for (k = 0; k < pl->n_steps; k++)
			memcpy(q + (size_t)k * nt + t, row + 4 * (size_t)k, 4);
		for (s = 0; s < p->n_segs; s++) {
			size_t at = (size_t)t0 * p->n_segs + (size_t)s * nt + t;
			size_t ag = (size_t)(t0 + t) * a->n_groups + s / p->a_every;
			uint32_t k0 = s * p->seg, k1 = k0 + least(a->n - k0, p->seg);
			int32_t za = a->zero[ag];
			int32_t c = (int32_t)(k1 - k0) * za - sum_of(row + k0, k1 - k0);

			pl->a.s[at] = a->scale[ag];
			if (pl->narrow) {
				c = (int32_t)((uint32_t)-za << 16 | ((uint32_t)c & 0xffff));
			} else {
				pl->a.d[at] = -za;
			}
			pl->a.c[at] = c;
		}
	}
}

static int make_plan(struct vq_tile_plan *pl, const struct vq_product *p,
		     const struct vq_tile_kind *kind, struct vq_err *err)
{
	size_t n = p->a->n_rows, n_corr, n_q;

	pl->p = p;
	pl->tile = kind->tile;
	pl->chunk = kind->chunk;
	pl->n_steps = vq_ceil_div(p->w->n_in, 4);
	pl->seg_steps = p->n_segs == 1 ? pl->n_steps : p->seg / 4;
	pl->n_panels = vq_ceil_div(p->w->n_out, VQ_PANEL);
	pl->n_chunks = vq_ceil_div(p->a->n_rows, pl->chunk);
	pl->narrow = kind->may_narrow && (uint64_t)p->seg * 255 <= INT16_MAX;
	if (vq_mul_size(&n_q, n, pl->n_steps) < 0 || vq_mul_size(&n_corr, n, p->n_segs) < 0)
		return vq_fail(err, VQ_E_SYS, "memory: %zu x %u inputs are too many", n,
			       p->w->n_in);
	pl->a.q = vq_alloc(n_q, sizeof(int32_t), err);
	pl->a.c = pl->a.q ? vq_alloc(n_corr, sizeof(int32_t), err) : NULL;
	pl->a.d = pl->a.c ? vq_alloc(pl->narrow ? 0 : n_corr, sizeof(int32_t), err) : NULL;
	pl->a.s = pl->a.d ? vq_alloc_f32(n_corr, err) : NULL;
	return pl->a.s ? VQ_OK : VQ_E_SYS;
}

static void plan_free(struct vq_tile_plan *pl)
{
	vq_free(pl->a.q);
	vq_free(pl->a.c);
	vq_free(pl->a.d);
	vq_free(pl->a.s);
}

int vq_tiles_run(const struct vq_product *p, const struct vq_tile_kind *kind, struct vq_err *err)
{
	uint64_t work = (uint64_t)p->w->n_out * p->w->n_in * p->a->n_rows;
	struct vq_tile_plan pl = {0};
	long long i, n_rows = p->a->n_rows, n_jobs;
	int rc = VQ_OK, failed = 0;

	if (p->n_segs > 1 && p->seg % 4 != 0) /* a step may not straddle segments */
		return vq_qgemm_generic(p, err);
	if (make_plan(&pl, p, kind, err) < 0) {
		rc = VQ_E_SYS;
		goto out;
	}
	n_jobs = (long long)pl.n_panels * pl.n_chunks;
#pragma omp parallel if (work > LITTLE)
	{
		struct vq_tile_panel buf;

		buf.bytes = vq_alloc(kind->n_bytes(&pl), 1, NULL);
		buf.corr = vq_alloc((size_t)p->n_segs * VQ_PANEL, sizeof(int32_t), NULL);
		if (!buf.bytes || !buf.corr) {
#pragma omp atomic write
			failed = 1;
		}
#pragma omp for schedule(static)
		for (i = 0; i < n_rows; i += kind->tile)
			pack_tile(&pl, (uint32_t)i, least((uint32_t)(n_rows - i), kind->tile));
#pragma omp for schedule(dynamic, 1)
		for (i = 0; i < n_jobs; i++)
			if (buf.bytes && buf.corr)
				kind->job(&pl, (uint32_t)(i / pl.n_chunks),
					  (uint32_t)(i % pl.n_chunks), &buf);
		vq_free(buf.bytes);
		vq_free(buf.corr);
	}
	if (failed)
		rc = vq_fail(err, VQ_E_SYS, "memory: cannot have a panel of %u steps", pl.n_steps);
out:
	plan_free(&pl);
	return rc;
}
