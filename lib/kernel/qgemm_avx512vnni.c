/* Integer products with AVX-512 VNNI.
 *
 * vpdpbusd multiplies unsigned weight codes with signed activation codes, four inputs a lane; a tile is one
 * panel of 32 rows (two registers of weights) times up to 12 tokens, 24 accumulators, so that the cost of
 * the loads is spread over 24 products a step.  Zero points are put right at the end of each segment
 * (qgemm_tiles.h).  For many tokens su is summed and codes of other than 4 and 8 bits are expanded to
 * bytes once a panel (codes of a table to its bytes).  A few tokens (decoding) go another way: qgemm_avx512few.c. */
#if defined(__x86_64__)
#include "kernel/qgemm_avx512.h"

#include <string.h>

#include "kernel/attend_rows.h"
#include "kernel/gemm16_rows.h"
#include "kernel/qact_rows.h"

#define TILE  12u   /* tokens */
#define CHUNK 516u  /* tokens a job at most: a common part of a prompt, in whole tiles */
#define FETCH 1024u /* bytes of planes asked for before a tile */
#define BLOCK 512u  /* inputs: 16 KiB of bytes of a panel, a third of the first-level cache */

/* b the same in all lanes, from memory: with a register for each token gcc would spill the sums. */
#define DPWSSD_1(acc, a, b) __asm__("vpdpwssd %2%{1to16%}, %1, %0" : "+v"(acc) : "v"(a), "m"(b))

/* A block of segments of one panel, ready for many tokens. */
struct block {
	const uint8_t *w; /* planes of 4 or 8 bits, or expanded bytes */
	uint32_t n_steps, seg_steps;
	const int32_t *corr; /* [segments, 32] su; narrow: su in the high half, zw in the low */
	const int32_t *zero; /* [segments, 32] */
	const float *scale;  /* [segments, 32] */
	int first;           /* y holds nothing yet */
};

/* What the zero points add to the sums of a segment of nt tokens. */
INLINE TARGET void correct(__m512i acc[TILE][2], const int32_t *corr, const int32_t *zero,
			   const int32_t *c, const int32_t *d, const uint32_t nt, const int wide)
{
	__m512i u0 = _mm512_load_si512(corr), u1 = _mm512_load_si512(corr + 16), z0, z1;
	uint32_t t;

	if (!wide) {
#pragma GCC unroll 12
		for (t = 0; t < nt; t++) {
			DPWSSD_1(acc[t][0], u0, c[t]);
			DPWSSD_1(acc[t][1], u1, c[t]);
		}
		return;
	}
	z0 = _mm512_load_si512(zero);
	z1 = _mm512_load_si512(zero + 16);
#pragma GCC unroll 12
	for (t = 0; t < nt; t++) {
		__m512i ct = _mm512_set1_epi32(c[t]), dt = _mm512_set1_epi32(d[t]);

		acc[t][0] = _mm512_add_epi32(acc[t][0], _mm512_mullo_epi32(z0, ct));
		acc[t][1] = _mm512_add_epi32(acc[t][1], _mm512_mullo_epi32(z1, ct));
		acc[t][0] = _mm512_add_epi32(acc[t][0], _mm512_mullo_epi32(u0, dt));
		acc[t][1] = _mm512_add_epi32(acc[t][1], _mm512_mullo_epi32(u1, dt));
	}
}

/* A block times nt tokens, added to y [nt, 32].  nt, bits and wide (not narrow) are constants at every call. */
INLINE TARGET void tile_block(const struct block *b, const struct vq_tile_acts *a, float *y,
			      const uint32_t nt, const uint32_t bits, const int wide)
{
	const uint8_t *w = b->w;
	const int32_t *q = a->q, *c = a->c, *d = a->d, *corr = b->corr, *zero = b->zero;
	const float *s = a->s, *scale = b->scale;
	uint32_t left = b->n_steps, n, k, t;
	__mmask16 seen = b->first ? 0 : 0xffff;

	for (; left; left -= n, c += nt, s += nt, corr += VQ_PANEL, scale += VQ_PANEL) {
		__m512i acc[TILE][2];
		__m512 s0, s1;

		n = left < b->seg_steps ? left : b->seg_steps;
#pragma GCC unroll 12
		for (t = 0; t < nt; t++)
			acc[t][0] = acc[t][1] = _mm512_setzero_si512();
		for (k = 0; k < n; k++, q += nt, w += 16 * bits) {
			__m512i w0, w1;

			codes_of(bits, w, &w0, &w1);
#pragma GCC unroll 12
			for (t = 0; t < nt; t++) {
				__m512i v = _mm512_set1_epi32(q[t]);

				DPBUSD(acc[t][0], w0, v);
				DPBUSD(acc[t][1], w1, v);
			}
		}
		correct(acc, corr, zero, c, d, nt, wide);
		if (wide) {
			d += nt;
			zero += VQ_PANEL;
		}
		s0 = _mm512_load_ps(scale);
		s1 = _mm512_load_ps(scale + 16);
#pragma GCC unroll 12
		for (t = 0; t < nt; t++) {
			__m512 st = _mm512_set1_ps(s[t]), f0, f1;
			float *out = y + t * VQ_PANEL;

			f0 = _mm512_fmadd_ps(_mm512_mul_ps(st, s0), _mm512_cvtepi32_ps(acc[t][0]),
					     _mm512_maskz_load_ps(seen, out));
			f1 = _mm512_fmadd_ps(_mm512_mul_ps(st, s1), _mm512_cvtepi32_ps(acc[t][1]),
					     _mm512_maskz_load_ps(seen, out + 16));
			_mm512_store_ps(out, f0);
			_mm512_store_ps(out + 16, f1);
		}
		seen = 0xffff;
	}
}

typedef void block_fn(const struct block *b, const struct vq_tile_acts *a, float *y);

#define BLOCK_FN(name, nt, bits, wide)                                                      \
	TARGET static void name##_##nt(const struct block *b, const struct vq_tile_acts *a, \
				       float *y)                                            \
	{                                                                                   \
		tile_block(b, a, y, nt, bits, wide);                                        \
	}
#define BLOCK_FNS(name, bits, wide)    \
	BLOCK_FN(name, 1, bits, wide)  \
	BLOCK_FN(name, 2, bits, wide)  \
	BLOCK_FN(name, 3, bits, wide)  \
	BLOCK_FN(name, 4, bits, wide)  \
	BLOCK_FN(name, 5, bits, wide)  \
	BLOCK_FN(name, 6, bits, wide)  \
	BLOCK_FN(name, 7, bits, wide)  \
	BLOCK_FN(name, 8, bits, wide)  \
	BLOCK_FN(name, 9, bits, wide)  \
	BLOCK_FN(name, 10, bits, wide) \
	BLOCK_FN(name, 11, bits, wide) \
	BLOCK_FN(name, 12, bits, wide)
BLOCK_FNS(nibbles, 4, 0)
BLOCK_FNS(bytes, 8, 0)
BLOCK_FNS(wide_nibbles, 4, 1)
BLOCK_FNS(wide_bytes, 8, 1)

#define ROW_4(n)  n##_1, n##_2, n##_3, n##_4
#define ROW_12(n) ROW_4(n), n##_5, n##_6, n##_7, n##_8, n##_9, n##_10, n##_11, n##_12

/* [wide][nibbles] */
static block_fn *const block_fns[2][2][TILE] = {{{ROW_12(bytes)}, {ROW_12(nibbles)}},
						{{ROW_12(wide_bytes)}, {ROW_12(wide_nibbles)}}};

/* The planes are what many tokens are multiplied with. */
static int as_stored(const struct vq_packed *w)
{
	return !w->value && (w->bits == 4 || w->bits == 8);
}

TARGET static void expand(uint32_t bits, const uint8_t *in, uint32_t n_steps, uint8_t *out)
{
	__m512i e0, e1;
	uint32_t k;

#define STEPS(b)                                                              \
	case b:                                                               \
		for (k = 0; k < n_steps; k++, in += 16 * b, out += VQ_STEP) { \
			codes_of(b, in, &e0, &e1);                            \
			_mm512_store_si512(out, e0);                          \
			_mm512_store_si512(out + 64, e1);                     \
		}                                                             \
		break
	switch (bits) {
		STEPS(2);
		STEPS(3);
		STEPS(5);
		STEPS(6);
		STEPS(7);
	default: break;
	}
#undef STEPS
}

TARGET static void look_up(uint32_t bits, const uint8_t *in, uint32_t n_steps, const uint8_t *byte,
			   uint8_t *out)
{
	__m512i table = table_of(byte), e0, e1;
	uint32_t k;

	for (k = 0; k < n_steps; k++, in += 16 * bits, out += VQ_STEP) {
		if (bits == 4)
			codes_of(4, in, &e0, &e1);
		else if (bits == 3)
			codes_of(3, in, &e0, &e1);
		else
			codes_of(2, in, &e0, &e1);
		_mm512_store_si512(out, _mm512_shuffle_epi8(table, e0));
		_mm512_store_si512(out + 64, _mm512_shuffle_epi8(table, e1));
	}
}

/* su of n steps of nibbles or bytes. */
INLINE TARGET void sum_weights(const uint8_t *w, uint32_t n, const uint32_t bits, __m512i *su0,
			       __m512i *su1)
{
	const __m512i one = _mm512_set1_epi8(1);
	__m512i a0 = _mm512_setzero_si512(), a1 = a0, b0 = a0, b1 = a0, w0, w1;
	uint32_t k;

	/* Two chains each: a product waits four cycles for the sum before it. */
	for (k = 0; k + 2 <= n; k += 2, w += 32 * bits) {
		codes_of(bits, w, &w0, &w1);
		DPBUSD(a0, w0, one);
		DPBUSD(a1, w1, one);
		codes_of(bits, w + 16 * bits, &w0, &w1);
		DPBUSD(b0, w0, one);
		DPBUSD(b1, w1, one);
	}
	if (k < n) {
		codes_of(bits, w, &w0, &w1);
		DPBUSD(a0, w0, one);
		DPBUSD(a1, w1, one);
	}
	*su0 = _mm512_add_epi32(a0, b0);
	*su1 = _mm512_add_epi32(a1, b1);
}

/* Scales and what the zero points need of segment s, the w of which are n steps; at: its place in the block. */
TARGET static void prepare(const struct vq_tile_plan *pl, const struct vq_tile_segment *g,
			   const uint8_t *w, uint32_t at, const struct vq_tile_panel *buf)
{
	__m512i u0 = _mm512_setzero_si512(), u1 = u0, z0, z1;
	int32_t *corr = buf->corr + (size_t)at * VQ_PANEL,
		*zero = buf->zero + (size_t)at * VQ_PANEL;
	float *scale = buf->scale + (size_t)at * VQ_PANEL;
	__m512 s0, s1;

	if (pl->p->has_za && w == g->w && pl->p->w->bits == 4)
		sum_weights(w, g->n_steps, 4, &u0, &u1);
	else if (pl->p->has_za)
		sum_weights(w, g->n_steps, 8, &u0, &u1);
	zeros_of(g->zero, g->half, &z0, &z1);
	if (pl->narrow) {
		u0 = _mm512_or_si512(_mm512_slli_epi32(u0, 16), z0);
		u1 = _mm512_or_si512(_mm512_slli_epi32(u1, 16), z1);
	}
	scales_of(g, pl->p->w->value != NULL, &s0, &s1);
	_mm512_store_si512(corr, u0);
	_mm512_store_si512(corr + 16, u1);
	_mm512_store_si512(zero, z0);
	_mm512_store_si512(zero + 16, z1);
	_mm512_store_ps(scale, s0);
	_mm512_store_ps(scale + 16, s1);
}

/* The block of n segments from s on; codes that are not multiplied as they are stored are expanded. */
static struct block prepare_block(const struct vq_tile_plan *pl, uint32_t panel, uint32_t s,
				  uint32_t n, const struct vq_tile_panel *buf)
{
	const struct vq_packed *w = pl->p->w;
	struct vq_tile_segment g = vq_tile_segment_of(pl, panel, s);
	struct block b = {
		g.w,   vq_tile_steps(pl, s, n), pl->seg_steps, buf->corr, buf->zero, buf->scale,
		s == 0};
	uint32_t i;

	if (!as_stored(w)) {
		b.w = buf->bytes;
		if (w->value)
			look_up(w->bits, g.w, b.n_steps, w->byte, buf->bytes);
		else
			expand(w->bits, g.w, b.n_steps, buf->bytes);
	}
	for (i = 0; i < n; i++) {
		g = vq_tile_segment_of(pl, panel, s + i);
		prepare(pl, &g, as_stored(w) ? g.w : b.w + (size_t)i * pl->seg_steps * VQ_STEP, i,
			buf);
	}
	return b;
}

/* The sums of the codes of nt tokens. */
TARGET static void sum_inputs(const int32_t *q, uint32_t n_steps, uint32_t nt, int32_t *sum)
{
	const __m512i one = _mm512_set1_epi8(1);
	__m512i a = _mm512_setzero_si512(), b = a;
	uint32_t k;

	for (k = 0; k + 2 <= n_steps; k += 2, q += 2 * nt) {
		DPBUSD(a, one, _mm512_loadu_si512(q));
		DPBUSD(b, one, _mm512_loadu_si512(q + nt));
	}
	if (k < n_steps)
		DPBUSD(a, one, _mm512_loadu_si512(q));
	_mm512_mask_storeu_epi32(sum, (__mmask16)((1u << nt) - 1), _mm512_add_epi32(a, b));
}

INLINE TARGET void add_bias(const float *bias, __mmask16 m0, __mmask16 m1, float *y)
{
	_mm512_store_ps(y, _mm512_add_ps(_mm512_load_ps(y), _mm512_maskz_loadu_ps(m0, bias)));
	_mm512_store_ps(y + 16, _mm512_add_ps(_mm512_load_ps(y + 16),
					      _mm512_maskz_loadu_ps(m1, bias + 16)));
}

/* y of a tile into the matrix; gate: what the gate's product has there, or NULL.  The rows of a large matrix lie far apart:
 * to read each line before it is written, and to write it when it is in the way, takes a tenth of the time of a product. */
TARGET static void store_tile(const struct vq_tile_plan *pl, uint32_t panel, uint32_t t0,
			      uint32_t nt, float *y, float *gate)
{
	const struct vq_product *p = pl->p;
	const struct vq_qgemm_act *act = p->act;
	uint32_t o = panel * VQ_PANEL, left = p->w->n_out - o, t;
	uint32_t mask = left >= VQ_PANEL ? UINT32_MAX : (1u << left) - 1;
	__mmask16 m0 = (__mmask16)mask, m1 = (__mmask16)(mask >> 16);

	for (t = 0; t < nt; t++, y += VQ_PANEL) {
		float *out = p->y + (size_t)(t0 + t) * p->w->n_out + o;
		__m512 v0, v1;

		if (p->bias)
			add_bias(p->bias + o, m0, m1, y);
		if (gate && act->gate_bias)
			add_bias(act->gate_bias + o, m0, m1, gate + t * VQ_PANEL);
		if (act)
			vq_ops_avx512.activate[act->f](gate ? gate + t * VQ_PANEL : y,
						       gate ? y : NULL, VQ_PANEL, y);
		v0 = _mm512_load_ps(y);
		v1 = _mm512_load_ps(y + 16);
		if (p->add) {
			v0 = _mm512_add_ps(_mm512_maskz_loadu_ps(m0, out), v0);
			v1 = _mm512_add_ps(_mm512_maskz_loadu_ps(m1, out + 16), v1);
		}
		if (pl->past && mask == UINT32_MAX) {
			_mm512_stream_ps(out, v0);
			_mm512_stream_ps(out + 16, v1);
		} else {
			_mm512_mask_storeu_ps(out, m0, v0);
			_mm512_mask_storeu_ps(out + 16, m1, v1);
		}
	}
	if (pl->past)
		_mm_sfence(); /* seen by other threads before what says that it is there */
}

static void few_job(const struct vq_tile_plan *pl, uint32_t panel)
{
	const struct vq_product *p = pl->p;
	float y[VQ_FEW * VQ_PANEL] __attribute__((aligned(64)));
	float gate[VQ_FEW * VQ_PANEL] __attribute__((aligned(64)));

	if (pl->gate)
		vq_qgemm_few_avx512(pl->gate, panel, gate);
	vq_qgemm_few_avx512(pl, panel, y);
	store_tile(pl, panel, 0, p->a->n_rows, y, pl->gate ? gate : NULL);
}

/* Asks for a part of the planes from segment s on, which no tile has met yet. */
static inline void fetch_planes(const struct vq_tile_plan *pl, uint32_t panel, uint32_t s,
				uint32_t part)
{
	size_t step = (size_t)16 * pl->p->w->bits, end = pl->n_panels * pl->n_steps * step, i;
	size_t at = ((size_t)panel * pl->n_steps + (size_t)s * pl->seg_steps) * step;

	at += (size_t)part * FETCH;
	for (i = at; i < at + FETCH && i < end; i += 64)
		__builtin_prefetch(pl->p->w->planes + i, 0, 2);
}

/* Tokens first .. end of one panel into y [end - first, 32]; with store set on into the matrix, with what gate has. */
static void multiply(const struct vq_tile_plan *pl, uint32_t panel, uint32_t first, uint32_t end,
		     const struct vq_tile_panel *buf, float *y, int store, float *gate)
{
	const struct vq_product *p = pl->p;
	block_fn *const *fns = block_fns[!pl->narrow][as_stored(p->w) && p->w->bits == 4];
	uint32_t s, n, t;

	for (s = 0; s < p->n_segs; s += n) {
		struct block b;

		n = p->n_segs - s < pl->block_segs ? p->n_segs - s : pl->block_segs;
		b = prepare_block(pl, panel, s, n, buf);
		for (t = first; t < end; t += TILE) {
			uint32_t nt = end - t < TILE ? end - t : TILE;
			struct vq_tile_acts a = vq_tile_acts_at(pl, s, n, t);
			size_t at = (size_t)(t - first) * VQ_PANEL;

			fetch_planes(pl, panel, s + n, (t - first) / TILE);
			fns[nt - 1](&b, &a, y + at);
			if (s + n == p->n_segs && store)
				store_tile(pl, panel, t, nt, y + at, gate ? gate + at : NULL);
		}
	}
}

/* One panel times one chunk of tokens. */
static void job(const struct vq_tile_plan *pl, uint32_t panel, uint32_t chunk,
		const struct vq_tile_panel *buf)
{
	uint32_t n_rows = pl->p->a->n_rows, first = chunk * pl->chunk, left = n_rows - first;
	uint32_t end = first + (left < pl->chunk ? left : pl->chunk);

	if (n_rows <= VQ_FEW) {
		few_job(pl, panel);
		return;
	}
	if (pl->gate)
		multiply(pl->gate, panel, first, end, buf, buf->gate, 0, NULL);
	multiply(pl, panel, first, end, buf, buf->y, 1, pl->gate ? buf->gate : NULL);
}

static size_t n_bytes(const struct vq_tile_plan *pl)
{
	return as_stored(pl->p->w) || pl->p->a->n_rows <= VQ_FEW
		       ? 0
		       : (size_t)pl->block_segs * pl->seg_steps * VQ_STEP;
}

static int qgemm(const struct vq_product *p, struct vq_err *err)
{
	static const struct vq_tile_kind kind = {TILE, CHUNK, 1, n_bytes, job, BLOCK, sum_inputs};

	return vq_tiles_run(p, &kind, err);
}

static int runs(void)
{
	return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
	       __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
	       __builtin_cpu_supports("avx512vnni");
}

const struct vq_kernels vq_kernels_avx512vnni = {
	.name = "avx512vnni",
	.runs = runs,
	.act_quantize = vq_act_quantize_avx512,
	.act_fake = vq_act_fake_avx512,
	.transform = vq_transform_avx512,
	.qgemm = qgemm,
	.fuses_act = 1,
	.gemm = &vq_gemm_avx512,
	.gemm_bf16 = &vq_gemm_avx512bf16,
	.attend = vq_attend_avx512,
	.joint_rows = vq_joint_rows_avx512,
	.ops = &vq_ops_avx512,
};
#endif
