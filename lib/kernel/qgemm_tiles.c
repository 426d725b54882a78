/* The loop around the vector rows of the integer product. */
#include "kernel/qgemm_tiles.h"

#include <omp.h>
#include <string.h>

#include "base/mem.h"
#include "base/num.h"
#include "kernel/qgemm_rows.h"
#include "kernel/ranges.h"
#include "kernel/share.h"

#define LITTLE   (1u << 20) /* multiplications below which one thread is faster */
#define CHUNK_IN (8u << 20) /* bytes of inputs in a chunk: some of the last cache */
#define CACHED   (2u << 20) /* bytes of a result that will be read from a cache */
#define JOBS     4u         /* a thread should have, at least */
#define LINE     64u

static uint32_t least(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

/* The plain way of vq_tile_kind.sum. */
static void sum_codes(const int32_t *q, uint32_t n_steps, uint32_t nt, int32_t *sum)
{
	uint32_t k, t;

	memset(sum, 0, nt * sizeof(*sum));
	for (k = 0; k < n_steps; k++, q += nt)
		for (t = 0; t < nt; t++) {
			int8_t b[4];

			memcpy(b, q + t, 4);
			sum[t] += b[0] + b[1] + b[2] + b[3];
		}
}

typedef int32_t four __attribute__((vector_size(16)));

/* Four codes of four tokens at four steps, in [stride bytes a token] -> out [nt a step]. */
static inline void turn(const int8_t *in, size_t stride, int32_t *out, uint32_t nt)
{
	four a, b, c, d, ab, cd, AB, CD, r;

	memcpy(&a, in, sizeof(a));
	memcpy(&b, in + stride, sizeof(b));
	memcpy(&c, in + 2 * stride, sizeof(c));
	memcpy(&d, in + 3 * stride, sizeof(d));
	ab = __builtin_shufflevector(a, b, 0, 4, 1, 5);
	cd = __builtin_shufflevector(c, d, 0, 4, 1, 5);
	AB = __builtin_shufflevector(a, b, 2, 6, 3, 7);
	CD = __builtin_shufflevector(c, d, 2, 6, 3, 7);
	r = __builtin_shufflevector(ab, cd, 0, 1, 4, 5);
	memcpy(out, &r, sizeof(r));
	r = __builtin_shufflevector(ab, cd, 2, 3, 6, 7);
	memcpy(out + nt, &r, sizeof(r));
	r = __builtin_shufflevector(AB, CD, 0, 1, 4, 5);
	memcpy(out + 2 * nt, &r, sizeof(r));
	r = __builtin_shufflevector(AB, CD, 2, 3, 6, 7);
	memcpy(out + 3 * nt, &r, sizeof(r));
}

/* Steps k0 .. k0 + n of nt tokens into q [n, nt]. */
static void pack_codes(const struct vq_qact *a, uint32_t t0, uint32_t nt, uint32_t k0, uint32_t n,
		       int32_t *q)
{
	const int8_t *in = a->q + (size_t)t0 * a->stride + 4 * (size_t)k0;
	uint32_t t, k, whole = nt / 4 * 4, n4 = n / 4 * 4;

	for (k = 0; k < n4; k += 4)
		for (t = 0; t < whole; t += 4)
			turn(in + t * (size_t)a->stride + 4 * (size_t)k, a->stride, q + k * nt + t,
			     nt);
	for (t = 0; t < nt; t++)
		for (k = t < whole ? n4 : 0; k < n; k++)
			memcpy(q + (size_t)k * nt + t, in + t * (size_t)a->stride + 4 * (size_t)k,
			       4);
}

/* What segment s of nt tokens needs beside the codes, from their sums. */
static void pack_segment(const struct vq_tile_plan *pl, uint32_t s, uint32_t t0, uint32_t nt,
			 const int32_t *sum, const struct vq_tile_acts *to)
{
	const struct vq_product *p = pl->p;
	size_t ag = (size_t)t0 * p->a->n_groups + s / p->a_every;
	int32_t n = (int32_t)least(p->a->n - s * p->seg, p->seg);
	uint32_t t;

	for (t = 0; t < nt; t++, ag += p->a->n_groups) {
		int32_t za = p->a->zero[ag], c = n * za - sum[t];

		to->s[t] = p->a->scale[ag];
		if (to->d) {
			to->c[t] = c;
			to->d[t] = -za;
		} else {
			to->c[t] = (int32_t)((uint32_t)-za << 16 | ((uint32_t)c & 0xffff));
		}
	}
}

/* Tokens t0 .. t0 + nt into the order of a tile. */
static void pack_tile(const struct vq_tile_plan *pl, const struct vq_tile_kind *kind, uint32_t t0,
		      uint32_t nt)
{
	uint32_t n_segs = pl->p->n_segs, s0, s, n;
	int32_t sum[64];

	for (s0 = 0; s0 < n_segs; s0 += n) {
		struct vq_tile_acts a;

		n = least(n_segs - s0, pl->block_segs);
		a = vq_tile_acts_at(pl, s0, n, t0);
		for (s = s0; s < s0 + n; s++) {
			uint32_t steps = vq_tile_steps(pl, s, 1);

			pack_codes(pl->p->a, t0, nt, s * pl->seg_steps, steps, a.q);
			(kind->sum ? kind->sum : sum_codes)(a.q, steps, nt, sum);
			pack_segment(pl, s, t0, nt, sum, &a);
			a.q += (size_t)steps * nt;
			a.c += nt;
			a.d = a.d ? a.d + nt : NULL;
			a.s += nt;
		}
	}
}

/* Tokens of a chunk, all chunks of one size.  Each reads the weights anew, so they are few; but every thread should have
 * some jobs.  How tokens are cut changes no result. */
static uint32_t chunk_of(const struct vq_product *p, const struct vq_tile_kind *kind,
			 uint32_t n_panels, int n_threads)
{
	uint32_t least_chunk = 4 * kind->tile, most, n, wanted;

	if (!kind->block)
		return kind->chunk;
	most = least(kind->chunk, CHUNK_IN / (p->w->n_in + 1) / kind->tile * kind->tile);
	n = vq_ceil_div(p->a->n_rows, most < least_chunk ? least_chunk : most);
	wanted = vq_ceil_div(JOBS * (uint32_t)n_threads, n_panels);
	n = vq_ceil_div(p->a->n_rows, n < wanted ? wanted : n);
	n = vq_ceil_div(n, kind->tile) * kind->tile;
	return n < least_chunk ? least_chunk : n;
}

static void make_plan(struct vq_tile_plan *pl, const struct vq_product *p,
		      const struct vq_tile_kind *kind, int n_threads)
{
	pl->p = p;
	pl->tile = kind->tile;
	pl->n_panels = vq_ceil_div(p->w->n_out, VQ_PANEL);
	pl->chunk = chunk_of(p, kind, pl->n_panels, n_threads);
	pl->n_steps = vq_ceil_div(p->w->n_in, 4);
	pl->seg_steps = p->n_segs == 1 ? pl->n_steps : p->seg / 4;
	pl->block_segs = kind->block ? kind->block / p->seg : p->n_segs;
	pl->block_segs = pl->block_segs ? least(pl->block_segs, p->n_segs) : 1;
	pl->n_chunks = vq_ceil_div(p->a->n_rows, pl->chunk);
	pl->narrow = kind->may_narrow && (uint64_t)p->seg * 255 <= INT16_MAX;
	pl->past = !p->add && (uint64_t)p->a->n_rows * p->w->n_out * sizeof(float) > CACHED &&
		   p->w->n_out * sizeof(float) % LINE == 0 && (uintptr_t)p->y % LINE == 0;
}

/* Cuts pieces off a block of memory, or, where there is none yet, adds up what they need. */
struct cutter {
	uint8_t *base;
	size_t at;
	int too_large;
};

static void *cut(struct cutter *c, size_t n, size_t size)
{
	size_t bytes, at = c->at;

	if (vq_mul_size(&bytes, n, size) < 0 || bytes > SIZE_MAX / 2 - at) {
		c->too_large = 1;
		return NULL;
	}
	c->at = (at + bytes + LINE - 1) / LINE * LINE;
	return c->base ? c->base + at : NULL;
}

static void cut_acts(struct cutter *c, struct vq_tile_plan *pl)
{
	size_t n = pl->p->a->n_rows, n_corr = n * pl->p->n_segs;

	pl->a.q = cut(c, n * pl->n_steps, sizeof(int32_t));
	pl->a.c = cut(c, n_corr, sizeof(int32_t));
	pl->a.d = cut(c, pl->narrow ? 0 : n_corr, sizeof(int32_t));
	pl->a.s = cut(c, n_corr, sizeof(float));
}

static void cut_panels(struct cutter *c, const struct vq_tile_plan *pl,
		       const struct vq_tile_kind *kind, struct vq_tile_panel *buf, int n_threads)
{
	size_t block = kind->block ? (size_t)pl->block_segs * VQ_PANEL : 0;
	size_t y = kind->block ? (size_t)pl->chunk * VQ_PANEL : 0;
	int i;

	for (i = 0; i < n_threads; i++) {
		buf[i].bytes = cut(c, kind->n_bytes(pl), 1);
		buf[i].corr = cut(c, (size_t)pl->p->n_segs * VQ_PANEL, sizeof(int32_t));
		buf[i].zero = cut(c, block, sizeof(int32_t));
		buf[i].scale = cut(c, block, sizeof(float));
		buf[i].y = cut(c, y, sizeof(float));
		buf[i].gate = cut(c, pl->gate ? y : 0, sizeof(float));
	}
}

/* Each thread has its own range of jobs, neighbours in memory, and helps the others when it has done them. */
static void run_jobs(const struct vq_tile_plan *pl, const struct vq_tile_kind *kind,
		     const struct vq_tile_panel *buf, struct vq_ranges *left, int thread)
{
	uint32_t job;

	while (vq_ranges_take(left, (uint32_t)thread, &job))
		kind->job(pl, job % pl->n_panels, job / pl->n_panels, buf + thread);
}

static void pack_from(const struct vq_tile_plan *pl, const struct vq_tile_kind *kind, long long t0)
{
	pack_tile(pl, kind, (uint32_t)t0, least(pl->p->a->n_rows - (uint32_t)t0, kind->tile));
}

/* Without a region of one thread, which costs calls to the kernel. */
static void run_alone(const struct vq_tile_plan *pl, const struct vq_tile_kind *kind,
		      const struct vq_tile_panel *buf, struct vq_ranges *left, long long packed)
{
	for (; packed < pl->p->a->n_rows; packed += kind->tile)
		pack_from(pl, kind, packed);
	run_jobs(pl, kind, buf, left, 0);
}

static void run_together(const struct vq_tile_plan *pl, const struct vq_tile_kind *kind,
			 const struct vq_tile_panel *buf, struct vq_ranges *left, int n_threads,
			 long long packed)
{
	long long i, n_rows = pl->p->a->n_rows;

	if (packed == 0 && n_rows <= kind->tile) { /* one tile: no thread need wait for another */
		pack_from(pl, kind, 0);
		packed = n_rows;
	}
#pragma omp parallel num_threads(n_threads)
	{
		if (packed < n_rows) {
#pragma omp for schedule(dynamic, 1)
			for (i = packed; i < n_rows; i += kind->tile)
				pack_from(pl, kind, i);
		}
		run_jobs(pl, kind, buf, left, omp_get_thread_num());
	}
}

static int threads_for(const struct vq_product *p)
{
	uint64_t work = (uint64_t)p->w->n_out * p->w->n_in * p->a->n_rows;
	int n = vq_alone(work <= LITTLE) ? 1 : omp_get_max_threads();

	return n < VQ_MOST_RANGES ? n : VQ_MOST_RANGES;
}

static int too_large(const struct vq_product *p, struct vq_err *err)
{
	return vq_fail(err, VQ_E_SYS, "memory: %u x %u inputs are too many", p->a->n_rows,
		       p->w->n_in);
}

/* The place of the packed inputs: what the product before has kept, or new.  Sets *packed to the tokens that stand there. */
static int acts_new(struct vq_tile_plan *pl, const struct vq_tile_kind *kind, void **own,
		    long long *packed, struct vq_err *err)
{
	struct vq_kept *k = pl->p->a->kept;
	struct cutter c = {0};

	*own = NULL;
	*packed = 0;
	if (k && k->data && k->by == kind && k->seg == pl->p->seg) {
		c.base = k->data;
		*packed = pl->p->a->n_rows;
	} else {
		cut_acts(&c, pl);
		if (c.too_large)
			return too_large(pl->p, err);
		c.base = *own =
			vq_alloc(c.at + LINE, 1, err); /* what kind->sum may read past the end */
		if (!c.base)
			return VQ_E_SYS;
	}
	c.at = 0;
	cut_acts(&c, pl);
	return VQ_OK;
}

/* What was made for this product stays for the next one, or goes. */
static void acts_end(const struct vq_tile_plan *pl, const struct vq_tile_kind *kind, void *own)
{
	struct vq_kept *k = pl->p->a->kept;

	if (k && own) {
		vq_free(k->data);
		*k = (struct vq_kept){own, kind, pl->p->seg};
	} else {
		vq_free(own);
	}
}

int vq_tiles_run(const struct vq_product *p, const struct vq_tile_kind *kind, struct vq_err *err)
{
	int n_threads = threads_for(p), rc;
	struct vq_tile_panel buf[VQ_MOST_RANGES];
	struct vq_product gate_p = *p;
	struct vq_tile_plan pl = {0}, gate;
	struct vq_ranges left;
	struct cutter c = {0};
	long long packed;
	uint64_t n_jobs;
	void *acts;

	if (p->n_segs > 1 && p->seg % 4 != 0) /* a step may not straddle segments */
		return vq_qgemm_generic(p, err);
	make_plan(&pl, p, kind, n_threads);
	if (p->act && p->act->gate) {
		gate_p.w = p->act->gate;
		pl.gate = &gate;
	}
	n_jobs = (uint64_t)pl.n_panels * pl.n_chunks;
	cut_panels(&c, &pl, kind, buf, n_threads);
	if (c.too_large || n_jobs > UINT32_MAX)
		return too_large(p, err);
	rc = acts_new(&pl, kind, &acts, &packed, err);
	if (rc < 0)
		return rc;
	c.base = vq_alloc(c.at, 1, err);
	if (!c.base) {
		vq_free(acts);
		return VQ_E_SYS;
	}
	c.at = 0;
	cut_panels(&c, &pl, kind, buf, n_threads);
	gate = pl;
	gate.p = &gate_p;
	gate.gate = NULL;
	vq_ranges_set(&left, (uint32_t)n_threads, (uint32_t)n_jobs);
	if (n_threads == 1)
		run_alone(&pl, kind, buf, &left, packed);
	else
		run_together(&pl, kind, buf, &left, n_threads, packed);
	vq_free(c.base);
	acts_end(&pl, kind, acts);
	return VQ_OK;
}
