/* Integer products with AVX-512 VNNI.
 *
 * vpdpbusd multiplies unsigned weight codes with signed activation codes, four inputs a lane; a tile is one
 * panel of 32 rows (two registers of weights) times up to 12 tokens, 24 accumulators, so that the cost of
 * the loads is spread over 24 products a step.  Zero points are put right at the end of each segment
 * (qgemm_tiles.h).  For many tokens su is summed and codes of other than 4 and 8 bits are expanded to
 * bytes once a panel (codes of a table to its bytes).  For a few tokens (decoding) everything happens in registers in one pass, for there
 * the weights are read from memory and each byte counts. */
#if defined(__x86_64__)
#include "kernel/qgemm_tiles.h"

#include <immintrin.h>
#include <string.h>

#include "kernel/qact_rows.h"

#define TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")))
#define INLINE static inline __attribute__((always_inline))
#define TILE   12u /* tokens */
#define FEW    4u  /* tokens that take everything in one pass */
#define CHUNK \
	480u /* tokens a job: whole tiles, and few enough that a narrow matrix still gives jobs */

/* With the intrinsic gcc 12 moves every accumulator through memory at each step; an asm it leaves alone. */
#define DPBUSD(acc, u, q) __asm__("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(u), "v"(q))
#define DPWSSD(acc, a, b) __asm__("vpdpwssd %2, %1, %0" : "+v"(acc) : "v"(a), "v"(b))

/* The 128 codes of one step.  Field j of a plane of f bits is the byte shifted right by f j; in a register
 * that holds the plane repeated, each 64-bit lane takes its own j. */
INLINE TARGET void codes_of(const uint32_t bits, const uint8_t *in, __m512i *e0, __m512i *e1)
{
	__m512i lo = _mm512_setzero_si512(), hi = lo;
	const uint32_t at2 = bits & 4 ? 4 : 0, at1 = bits & 6;

	if (bits == 8) {
		*e0 = _mm512_loadu_si512(in);
		*e1 = _mm512_loadu_si512(in + 64);
		return;
	}
	if (bits & 4) {
		__m512i v = _mm512_loadu_si512(in), m = _mm512_set1_epi8(15);

		lo = _mm512_and_si512(v, m);
		hi = _mm512_and_si512(_mm512_srli_epi16(v, 4), m);
		in += 64;
	}
	if (bits & 2) {
		__m512i v = _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i *)in));
		__m512i m = _mm512_set1_epi8(3);
		__m512i v0 = _mm512_srlv_epi64(v, _mm512_set_epi64(2, 2, 2, 2, 0, 0, 0, 0));
		__m512i v1 = _mm512_srlv_epi64(v, _mm512_set_epi64(6, 6, 6, 6, 4, 4, 4, 4));

		lo = _mm512_or_si512(lo, _mm512_slli_epi16(_mm512_and_si512(v0, m), at2));
		hi = _mm512_or_si512(hi, _mm512_slli_epi16(_mm512_and_si512(v1, m), at2));
		in += 32;
	}
	if (bits & 1) {
		__m512i v = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)in));
		__m512i m = _mm512_set1_epi8(1);
		__m512i v0 = _mm512_srlv_epi64(v, _mm512_set_epi64(3, 3, 2, 2, 1, 1, 0, 0));
		__m512i v1 = _mm512_srlv_epi64(v, _mm512_set_epi64(7, 7, 6, 6, 5, 5, 4, 4));

		lo = _mm512_or_si512(lo, _mm512_slli_epi16(_mm512_and_si512(v0, m), at1));
		hi = _mm512_or_si512(hi, _mm512_slli_epi16(_mm512_and_si512(v1, m), at1));
	}
	*e0 = lo;
	*e1 = hi;
}

INLINE TARGET void zeros_of(const struct vq_tile_segment *g, __m512i *z0, __m512i *z1)
{
	*z0 = *z1 = _mm512_set1_epi32(g->half);
	if (g->zero) {
		*z0 = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)g->zero));
		*z1 = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(g->zero + 16)));
	}
}

INLINE TARGET __m512i table_of(const uint8_t *byte)
{
	return _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)byte));
}

/* The scales of 16 rows. */
INLINE TARGET __m512 scales_of(const struct vq_tile_segment *g, int at, const int table)
{
	if (table)
		return _mm512_mul_ps(_mm512_loadu_ps(g->absmax + at), _mm512_set1_ps(VQ_BYTE_STEP));
	return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(g->scale + at)));
}

/* nt tokens times a segment of `bits`-bit codes, added to y [nt, 32].  nt, bits, one_pass and table are constants
 * at every call; one_pass sums su too, looks codes up in the table and needs no corr. */
INLINE TARGET void tile_segment(const struct vq_tile_segment *g, const int32_t *q, const int32_t *c,
				const int32_t *d, const float *s, float *y, const uint32_t nt,
				const uint32_t bits, const int one_pass, const int table)
{
	const uint8_t *w = g->w;
	__m512i acc[TILE][2], u0 = _mm512_setzero_si512(), u1 = u0, z0, z1;
	const __m512i one = _mm512_set1_epi8(1);
	const __m512i values = table ? table_of(g->byte) : one;
	__m512 s0, s1;
	uint32_t k, t;

#pragma GCC unroll 12
	for (t = 0; t < nt; t++)
		acc[t][0] = acc[t][1] = _mm512_setzero_si512();
	for (k = 0; k < g->n_steps; k++, q += nt, w += 16 * bits) {
		__m512i w0, w1;

		codes_of(bits, w, &w0, &w1);
		if (one_pass && table) {
			w0 = _mm512_shuffle_epi8(values, w0);
			w1 = _mm512_shuffle_epi8(values, w1);
		}
		if (one_pass) {
			DPBUSD(u0, w0, one);
			DPBUSD(u1, w1, one);
		}
#pragma GCC unroll 12
		for (t = 0; t < nt; t++) {
			__m512i b = _mm512_set1_epi32(q[t]);

			DPBUSD(acc[t][0], w0, b);
			DPBUSD(acc[t][1], w1, b);
		}
	}
	if (one_pass || d)
		zeros_of(g, &z0, &z1);
	if (!one_pass) {
		u0 = _mm512_loadu_si512(g->corr);
		u1 = _mm512_loadu_si512(g->corr + 16);
	} else if (!d) {
		u0 = _mm512_or_si512(_mm512_slli_epi32(u0, 16), z0);
		u1 = _mm512_or_si512(_mm512_slli_epi32(u1, 16), z1);
	}
	if (d) {
#pragma GCC unroll 12
		for (t = 0; t < nt; t++) {
			__m512i ct = _mm512_set1_epi32(c[t]), dt = _mm512_set1_epi32(d[t]);

			acc[t][0] = _mm512_add_epi32(acc[t][0],
						     _mm512_add_epi32(_mm512_mullo_epi32(z0, ct),
								      _mm512_mullo_epi32(u0, dt)));
			acc[t][1] = _mm512_add_epi32(acc[t][1],
						     _mm512_add_epi32(_mm512_mullo_epi32(z1, ct),
								      _mm512_mullo_epi32(u1, dt)));
		}
	} else {
#pragma GCC unroll 12
		for (t = 0; t < nt; t++) {
			__m512i ct = _mm512_set1_epi32(c[t]);

			DPWSSD(acc[t][0], u0, ct);
			DPWSSD(acc[t][1], u1, ct);
		}
	}
	s0 = scales_of(g, 0, table);
	s1 = scales_of(g, 16, table);
#pragma GCC unroll 12
	for (t = 0; t < nt; t++, y += VQ_PANEL) {
		__m512 st = _mm512_set1_ps(s[t]);
		__m512 a0 = _mm512_fmadd_ps(_mm512_mul_ps(st, s0), _mm512_cvtepi32_ps(acc[t][0]),
					    _mm512_load_ps(y));
		__m512 a1 = _mm512_fmadd_ps(_mm512_mul_ps(st, s1), _mm512_cvtepi32_ps(acc[t][1]),
					    _mm512_load_ps(y + 16));

		_mm512_store_ps(y, a0);
		_mm512_store_ps(y + 16, a1);
	}
}

typedef void segment_fn(const struct vq_tile_segment *g, const int32_t *q, const int32_t *c,
			const int32_t *d, const float *s, float *y);

#define SEGMENT(name, nt, bits, one_pass, table)                                           \
	TARGET static void name##_##nt(const struct vq_tile_segment *g, const int32_t *q,  \
				       const int32_t *c, const int32_t *d, const float *s, \
				       float *y)                                           \
	{                                                                                  \
		tile_segment(g, q, c, d, s, y, nt, bits, one_pass, table);                 \
	}
#define SEGMENTS_4(name, bits, one_pass, table) \
	SEGMENT(name, 1, bits, one_pass, table) \
	SEGMENT(name, 2, bits, one_pass, table) \
	SEGMENT(name, 3, bits, one_pass, table) \
	SEGMENT(name, 4, bits, one_pass, table)
#define SEGMENTS_12(name, bits, table)    \
	SEGMENTS_4(name, bits, 0, table)  \
	SEGMENT(name, 5, bits, 0, table)  \
	SEGMENT(name, 6, bits, 0, table)  \
	SEGMENT(name, 7, bits, 0, table)  \
	SEGMENT(name, 8, bits, 0, table)  \
	SEGMENT(name, 9, bits, 0, table)  \
	SEGMENT(name, 10, bits, 0, table) \
	SEGMENT(name, 11, bits, 0, table) \
	SEGMENT(name, 12, bits, 0, table)
SEGMENTS_12(nibbles, 4, 0)
SEGMENTS_12(bytes, 8, 0)
SEGMENTS_12(values, 8, 1)
SEGMENTS_4(few2, 2, 1, 0)
SEGMENTS_4(few3, 3, 1, 0)
SEGMENTS_4(few4, 4, 1, 0)
SEGMENTS_4(few5, 5, 1, 0)
SEGMENTS_4(few6, 6, 1, 0)
SEGMENTS_4(few7, 7, 1, 0)
SEGMENTS_4(few8, 8, 1, 0)
SEGMENTS_4(few_values2, 2, 1, 1)
SEGMENTS_4(few_values3, 3, 1, 1)
SEGMENTS_4(few_values4, 4, 1, 1)

#define ROW_4(n)  n##_1, n##_2, n##_3, n##_4
#define ROW_12(n) ROW_4(n), n##_5, n##_6, n##_7, n##_8, n##_9, n##_10, n##_11, n##_12

/* What a segment's codes are when many tokens meet them. */
enum { BYTES, NIBBLES, TABLE };

static segment_fn *const many[3][TILE] = {{ROW_12(bytes)}, {ROW_12(nibbles)}, {ROW_12(values)}};
static segment_fn *const few[7][FEW] = {{ROW_4(few2)}, {ROW_4(few3)}, {ROW_4(few4)}, {ROW_4(few5)},
					{ROW_4(few6)}, {ROW_4(few7)}, {ROW_4(few8)}};
static segment_fn *const few_values[3][FEW] = {
	{ROW_4(few_values2)}, {ROW_4(few_values3)}, {ROW_4(few_values4)}};

static int kind_of(const struct vq_packed *w)
{
	return w->value ? TABLE : w->bits == 4 ? NIBBLES : BYTES;
}

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

/* su of a segment of nibbles or bytes. */
INLINE TARGET void sum_codes(const struct vq_tile_segment *g, const uint32_t bits, __m512i *su0,
			     __m512i *su1)
{
	const __m512i one = _mm512_set1_epi8(1);
	__m512i a0 = _mm512_setzero_si512(), a1 = a0, b0 = a0, b1 = a0;
	uint32_t k;

	/* Two chains each: a product waits four cycles for the sum before it. */
	for (k = 0; k < g->n_steps; k += 2) {
		const uint8_t *w = g->w + (size_t)k * 16 * bits;
		__m512i w0, w1;

		codes_of(bits, w, &w0, &w1);
		DPBUSD(a0, w0, one);
		DPBUSD(a1, w1, one);
		if (k + 1 < g->n_steps) {
			codes_of(bits, w + 16 * bits, &w0, &w1);
			DPBUSD(b0, w0, one);
			DPBUSD(b1, w1, one);
		}
	}
	*su0 = _mm512_add_epi32(a0, b0);
	*su1 = _mm512_add_epi32(a1, b1);
}

/* g is segment s of a panel that prepare has seen. */
static inline void set_prepared(struct vq_tile_segment *g, const struct vq_tile_plan *pl,
				uint32_t s, const struct vq_tile_panel *buf)
{
	if (!as_stored(pl->p->w))
		g->w = buf->bytes + (size_t)s * pl->seg_steps * VQ_STEP;
	g->corr = buf->corr + (size_t)s * VQ_PANEL;
}

/* Expands the codes of a segment and sums what its zero points need. */
TARGET static void prepare(const struct vq_tile_plan *pl, uint32_t panel, uint32_t s,
			   const struct vq_tile_panel *buf)
{
	uint32_t bits = pl->p->w->bits;
	struct vq_tile_segment raw = vq_tile_segment_of(pl, panel, s), g = raw;
	__m512i u0 = _mm512_setzero_si512(), u1 = u0, z0, z1;
	uint8_t *bytes = buf->bytes + (size_t)s * pl->seg_steps * VQ_STEP;
	int32_t *corr = buf->corr + (size_t)s * VQ_PANEL;

	set_prepared(&g, pl, s, buf);
	if (pl->p->w->value)
		look_up(bits, raw.w, raw.n_steps, raw.byte, bytes);
	else
		expand(bits, raw.w, raw.n_steps, bytes);
	if (pl->p->has_za && kind_of(pl->p->w) == NIBBLES)
		sum_codes(&g, 4, &u0, &u1);
	else if (pl->p->has_za)
		sum_codes(&g, 8, &u0, &u1);
	if (pl->narrow) {
		zeros_of(&g, &z0, &z1);
		u0 = _mm512_or_si512(_mm512_slli_epi32(u0, 16), z0);
		u1 = _mm512_or_si512(_mm512_slli_epi32(u1, 16), z1);
	}
	_mm512_store_si512(corr, u0);
	_mm512_store_si512(corr + 16, u1);
}

/* What memset does, which gcc makes of rep stos: too slow for a tile of a narrow layer. */
TARGET static void clear_tile(uint32_t nt, float *y)
{
	uint32_t i;

	for (i = 0; i < nt * VQ_PANEL; i += 16)
		_mm512_store_ps(y + i, _mm512_setzero_ps());
}

/* y of a tile into the matrix. */
TARGET static void store_tile(const struct vq_product *p, uint32_t panel, uint32_t t0, uint32_t nt,
			      const float *y)
{
	uint32_t o = panel * VQ_PANEL, left = p->w->n_out - o, t;
	uint32_t mask = left >= VQ_PANEL ? UINT32_MAX : (1u << left) - 1;
	__mmask16 m0 = (__mmask16)mask, m1 = (__mmask16)(mask >> 16);

	for (t = 0; t < nt; t++, y += VQ_PANEL) {
		float *out = p->y + (size_t)(t0 + t) * p->w->n_out + o;
		__m512 v0 = _mm512_load_ps(y), v1 = _mm512_load_ps(y + 16);

		if (p->bias) {
			v0 = _mm512_add_ps(v0, _mm512_maskz_loadu_ps(m0, p->bias + o));
			v1 = _mm512_add_ps(v1, _mm512_maskz_loadu_ps(m1, p->bias + o + 16));
		}
		if (p->add) {
			v0 = _mm512_add_ps(_mm512_maskz_loadu_ps(m0, out), v0);
			v1 = _mm512_add_ps(_mm512_maskz_loadu_ps(m1, out + 16), v1);
		}
		_mm512_mask_storeu_ps(out, m0, v0);
		_mm512_mask_storeu_ps(out + 16, m1, v1);
	}
}

/* One panel times one chunk of tokens.  A single tile prepares each segment just before it is used, while
 * it is in the first-level cache; a few tokens need no preparation. */
static void job(const struct vq_tile_plan *pl, uint32_t panel, uint32_t chunk,
		const struct vq_tile_panel *buf)
{
	const struct vq_product *p = pl->p;
	uint32_t t0 = chunk * CHUNK, end = p->a->n_rows - t0 < CHUNK ? p->a->n_rows : t0 + CHUNK, s;
	uint32_t bits = p->w->bits;
	int one_pass = p->a->n_rows <= FEW, single = !one_pass && end - t0 <= TILE;

	for (s = 0; !one_pass && !single && s < p->n_segs; s++)
		prepare(pl, panel, s, buf);
	for (; t0 < end; t0 += TILE) {
		uint32_t nt = end - t0 < TILE ? end - t0 : TILE;
		float y[TILE * VQ_PANEL] __attribute__((aligned(64)));
		segment_fn *fn = !one_pass     ? many[kind_of(p->w)][nt - 1]
				 : p->w->value ? few_values[bits - 2][nt - 1]
					       : few[bits - 2][nt - 1];

		clear_tile(nt, y);
		for (s = 0; s < p->n_segs; s++) {
			size_t at = (size_t)t0 * p->n_segs + (size_t)s * nt;
			struct vq_tile_segment g = vq_tile_segment_of(pl, panel, s);

			if (single)
				prepare(pl, panel, s, buf);
			if (!one_pass)
				set_prepared(&g, pl, s, buf);
			fn(&g, pl->a.q + (size_t)t0 * pl->n_steps + (size_t)s * pl->seg_steps * nt,
			   pl->a.c + at, pl->narrow ? NULL : pl->a.d + at, pl->a.s + at, y);
		}
		store_tile(p, panel, t0, nt, y);
	}
}

static size_t n_bytes(const struct vq_tile_plan *pl)
{
	return as_stored(pl->p->w) || pl->p->a->n_rows <= FEW ? 0 : (size_t)pl->n_steps * VQ_STEP;
}

static int qgemm(const struct vq_product *p, struct vq_err *err)
{
	static const struct vq_tile_kind kind = {TILE, CHUNK, 1, n_bytes, job};

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
	.joint_rows = vq_joint_rows_avx512,
	.ops = &vq_ops_avx512,
};
#endif
