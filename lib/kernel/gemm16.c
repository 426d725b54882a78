/* Float products: cut into fixed tiles that threads share out. */
#include "kernel/gemm16.h"

#include <omp.h>

#include "base/mem.h"
#include "base/num.h"
#include "kernel/cpu.h"
#include "kernel/share.h"
#include "kernel/gemm16_rows.h"

#define SLAB  1920u /* tokens packed at a time: a bound for memory */
#define CHUNK 480u  /* tokens a job, so that a narrow matrix still gives jobs */
/* Products, and weights that few tokens read, up to which one thread is faster. */
#define LITTLE     (1u << 21)
#define LITTLE_FEW (1u << 17)

/* A call: a slab of tokens times all panels. */
struct call {
	const struct vq_gemm *g;
	const struct vq_gemm_kind *kind;
	enum vq_dtype type;
	const float *x;
	float *y;
	uint32_t n, n_tiles; /* tokens, tiles of them */
	uint32_t n_in;       /* padded */
	uint32_t block;      /* inputs a block, the last may be short */
	uint8_t *px;         /* x packed: tile i at the place of its first token */
	uint8_t *own;        /* what each thread has: a block of a panel, tiles of y, rows */
	size_t own_bytes, w_bytes, c_bytes;
};

/* Tokens are shared evenly among tiles: two of 7 and 6 are faster than one of 12 and one of 1. */
static uint32_t tile_start(const struct call *c, uint32_t i)
{
	return (uint32_t)((uint64_t)c->n * i / c->n_tiles);
}

static size_t round_up(size_t n, size_t to)
{
	return (n + to - 1) / to * to;
}

static void pack_tile(const struct call *c, uint32_t i)
{
	const struct vq_gemm_kind *k = c->kind;
	uint32_t t0 = tile_start(c, i);

	k->pack_x(c->x + (size_t)t0 * c->g->n_in, c->g->n_in, tile_start(c, i + 1) - t0, c->g->n_in,
		  c->px + (size_t)t0 * c->n_in * k->bytes);
}

/* The rows of a panel as they stand, or as rows_fn writes them to buf. */
static const uint8_t *rows_of(const struct call *c, uint32_t first, uint32_t n, float *buf)
{
	const struct vq_gemm *g = c->g;

	if (!g->rows)
		return (const uint8_t *)g->w + (size_t)first * g->n_in * vq_dtype_size(c->type);
	g->rows(g->w, first, n, g->n_in, buf);
	return (const uint8_t *)buf;
}

/* One panel times tiles i0..i1. */
static void job(const struct call *c, uint32_t panel, uint32_t i0, uint32_t i1, uint8_t *own)
{
	const struct vq_gemm *g = c->g;
	const struct vq_gemm_kind *kind = c->kind;
	uint32_t first = panel * VQ_GEMM_ROWS, size = vq_dtype_size(c->type), i, k;
	uint32_t n_rows = g->n_out - first < VQ_GEMM_ROWS ? g->n_out - first : VQ_GEMM_ROWS;
	float *sums = (float *)(void *)(own + c->w_bytes);
	const uint8_t *w =
		rows_of(c, first, n_rows, (float *)(void *)(own + c->w_bytes + c->c_bytes));
	int one_block = c->n_in <= c->block;

	for (k = 0; k < c->n_in; k += c->block) {
		uint32_t left = g->n_in - k, packed = c->n_in - k;
		int last = packed <= c->block;

		kind->pack_w(w + (size_t)k * size, c->type, g->n_in, n_rows, last ? left : c->block,
			     own);
		for (i = i0; i < i1; i++) {
			uint32_t t0 = tile_start(c, i), n = tile_start(c, i + 1) - t0;
			float *at =
				one_block ? sums
					  : sums + (size_t)(t0 - tile_start(c, i0)) * VQ_GEMM_ROWS;

			kind->tile_fn(own,
				      c->px + ((size_t)t0 * c->n_in + (size_t)k * n) * kind->bytes,
				      n, last ? packed : c->block, k == 0, at);
			if (last)
				kind->store(
					&(struct vq_gemm_out){
						c->y + (size_t)t0 * g->n_out + first, g->n_out, n,
						n_rows, g->bias ? g->bias + first : NULL, g->add},
					at);
		}
	}
}

/* The tiles of a chunk, as even as they can be. */
static uint32_t tiles_a_chunk(const struct call *c)
{
	return vq_ceil_div(c->n_tiles, vq_ceil_div(c->n_tiles, CHUNK / c->kind->tile));
}

/* Job i: a panel times a chunk. */
static void run_job(const struct call *c, long long i, uint8_t *own)
{
	uint32_t each = tiles_a_chunk(c), n_chunks = vq_ceil_div(c->n_tiles, each);
	uint32_t i0 = (uint32_t)(i % n_chunks) * each;

	job(c, (uint32_t)(i / n_chunks), i0, c->n_tiles - i0 < each ? c->n_tiles : i0 + each, own);
}

static void run_together(const struct call *c, long long n_jobs)
{
	long long i;

#pragma omp parallel
	{
		uint8_t *own = c->own + (size_t)omp_get_thread_num() * c->own_bytes;

#pragma omp for schedule(dynamic, 8)
		for (i = 0; i < (long long)c->n_tiles; i++)
			pack_tile(c, (uint32_t)i);
#pragma omp for schedule(dynamic, 1)
		for (i = 0; i < n_jobs; i++)
			run_job(c, i, own);
	}
}

static void run(const struct call *c)
{
	long long i, n_jobs = (long long)vq_ceil_div(c->g->n_out, VQ_GEMM_ROWS) *
			      vq_ceil_div(c->n_tiles, tiles_a_chunk(c));

	if (!vq_alone((uint64_t)c->g->n_out * c->n_in * c->n <= LITTLE)) {
		run_together(c, n_jobs);
		return;
	}
	for (i = 0; i < (long long)c->n_tiles; i++)
		pack_tile(c, (uint32_t)i);
	for (i = 0; i < n_jobs; i++)
		run_job(c, i, c->own);
}

/* Few tokens: each thread reads whole rows, one after the other. */
static void run_few(const struct call *c)
{
	const struct vq_gemm *g = c->g;
	const struct vq_gemm_kind *kind = c->kind;
	size_t x_stride = kind->pack_few ? round_up(g->n_in, 32) : g->n_in;
	const void *x = kind->pack_few ? (const void *)c->px : c->x;
	uint32_t t;
	long long i, n_jobs = vq_ceil_div(g->n_out, VQ_GEMM_ROWS);

	for (t = 0; kind->pack_few && t < c->n; t++)
		kind->pack_few(c->x + (size_t)t * g->n_in, g->n_in,
			       c->px + t * x_stride * kind->bytes);
#pragma omp parallel if ((uint64_t)g->n_out * g->n_in > LITTLE_FEW)
	{
		uint8_t *own = c->own + (size_t)omp_get_thread_num() * c->own_bytes;

#pragma omp for schedule(dynamic, 4)
		for (i = 0; i < n_jobs; i++) {
			uint32_t first = (uint32_t)i * VQ_GEMM_ROWS, left = g->n_out - first;
			uint32_t n_rows = left < VQ_GEMM_ROWS ? left : VQ_GEMM_ROWS;
			struct vq_gemm_out o = {c->y + first,
						g->n_out,
						c->n,
						n_rows,
						g->bias ? g->bias + first : NULL,
						g->add};

			kind->few(rows_of(c, first, n_rows, (float *)(void *)own), c->type, g->n_in,
				  x, x_stride, &o);
		}
	}
}

static const struct vq_gemm_kind *kind_of(const struct vq_gemm *g)
{
	const struct vq_kernels *k = vq_kernels_get();
	int want = g->way == VQ_GEMM_BF16 && !g->rows && g->type != VQ_F32;

	return want && vq_gemm_has_bf16() ? k->gemm_bf16 : k->gemm;
}

int vq_gemm_has_bf16(void)
{
	const struct vq_gemm_kind *k = vq_kernels_get()->gemm_bf16;

	return k && k->runs();
}

const char *vq_gemm_way_name(enum vq_gemm_way way)
{
	return way == VQ_GEMM_BF16 ? "bf16" : "float32";
}

/* y without inputs. */
static void empty(const struct vq_gemm *g, size_t n, float *y)
{
	size_t i;

	for (i = 0; i < n * g->n_out; i++) {
		float v = g->bias ? g->bias[i % g->n_out] : 0.0f;

		y[i] = g->add ? y[i] + v : v;
	}
}

int vq_gemm_run(const struct vq_gemm *g, const float *x, size_t n, float *y, struct vq_err *err)
{
	struct call c = {.g = g, .type = g->rows ? VQ_F32 : g->type, .kind = kind_of(g)};
	size_t slab = n < SLAB ? n : SLAB, x_bytes;
	int few = n <= VQ_GEMM_FEW;
	uint8_t *mem;

	if (c.type != VQ_F32 && c.type != VQ_F16 && c.type != VQ_BF16)
		return vq_fail(err, VQ_E_DATA, "product: want f32, f16 or bf16 weights, got %s",
			       vq_dtype_name(c.type));
	if (n == 0 || g->n_out == 0 || g->n_in == 0) {
		empty(g, n, y);
		return VQ_OK;
	}
	if (few) {
		x_bytes = c.kind->pack_few ? n * round_up(g->n_in, 32) * c.kind->bytes : 0;
	} else {
		c.n_in = (uint32_t)round_up(g->n_in, c.kind->multiple);
		c.block = c.kind->block < c.n_in ? c.kind->block : c.n_in;
		c.w_bytes = round_up((size_t)c.block + 32, 32) * VQ_GEMM_ROWS * c.kind->bytes;
		c.c_bytes = (slab < CHUNK ? slab : CHUNK) * VQ_GEMM_ROWS * sizeof(float);
		x_bytes = slab * c.n_in * c.kind->bytes;
	}
	c.own_bytes = c.w_bytes + c.c_bytes +
		      (g->rows ? round_up(g->n_in, 16) * VQ_GEMM_ROWS * sizeof(float) : 0);
	x_bytes = round_up(x_bytes, VQ_ALIGN);
	mem = vq_alloc(x_bytes + c.own_bytes * (size_t)omp_get_max_threads(), 1, err);
	if (!mem)
		return VQ_E_SYS;
	c.px = mem;
	c.own = mem + x_bytes;
	for (; n; n -= c.n, x += (size_t)c.n * g->n_in, y += (size_t)c.n * g->n_out) {
		c.n = n < SLAB ? (uint32_t)n : SLAB;
		c.n_tiles = vq_ceil_div(c.n, c.kind->tile);
		c.x = x;
		c.y = y;
		(few ? run_few : run)(&c);
	}
	vq_free(mem);
	return VQ_OK;
}

int vq_gemm(const float *x, size_t n, const void *w, enum vq_dtype w_type, uint32_t n_out,
	    uint32_t n_in, const float *bias, float *y, struct vq_err *err)
{
	return vq_gemm_run(
		&(struct vq_gemm){
			.n_out = n_out, .n_in = n_in, .type = w_type, .w = w, .bias = bias},
		x, n, y, err);
}
