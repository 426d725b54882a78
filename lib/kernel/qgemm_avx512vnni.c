/* Integer products with AVX-512 VNNI.
 *
 * vpdpbusd multiplies unsigned weight codes with signed activation codes, four inputs a lane; a tile is one
 * panel of 32 rows (two registers of weights) times up to 12 tokens, 24 accumulators, so that the cost of
 * the loads is spread over 24 products a step.  Zero points are put right at the end of each segment:
 *
 *   sum (u - zw)(q - za) = sum u q + zw c + su d,   c = K za - sum q,  d = -za,  su = sum u
 *
 * with c and d known from the activations and su from one more pass over the panel.  Nibbles are unpacked
 * in registers (one "and", one shift: free beside the products); other widths are expanded to bytes once a
 * panel. */
#if defined(__x86_64__)
#include "kernel/qgemm_rows.h"

#include <immintrin.h>
#include <string.h>

#include "base/mem.h"
#include "base/num.h"
#include "kernel/qact_rows.h"

#define TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")))
#define INLINE static inline __attribute__((always_inline))
#define TILE   12u /* tokens */
#define CHUNK \
	480u /* tokens a job: whole tiles, and few enough that a narrow matrix still gives jobs */
#define STEP   128u       /* bytes of expanded codes a step of 4 inputs */
#define LITTLE (1u << 18) /* multiplications below which one thread is faster */

/* With the intrinsic gcc 12 moves every accumulator through memory at each step; an asm it leaves alone. */
#define DPBUSD(acc, u, q) __asm__("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(u), "v"(q))
#define DPWSSD(acc, a, b) __asm__("vpdpwssd %2, %1, %0" : "+v"(acc) : "v"(a), "v"(b))

/* The activations as the tiles read them. */
struct acts {
	int32_t *q; /* tile after tile: [n_steps, tokens of the tile], four codes each */
	int32_t *
		c; /* tile after tile: [n_segs, tokens]; narrow: c in the low half, d in the high */
	int32_t *d; /* the same; only when not narrow */
	float *s;   /* the same: scale */
};

/* One product, in the units of this file. */
struct plan {
	const struct vq_product *p;
	struct acts a;
	uint32_t n_steps, seg_steps, n_panels, n_chunks;
	int narrow; /* c, d, su and zw fit 16 bits: one vpdpwssd puts the zero points right */
};

/* One segment of one panel. */
struct segment {
	const uint8_t *w; /* nibbles, or expanded bytes */
	uint32_t n_steps;
	const int32_t *corr;   /* [32] narrow: zw in the low half, su in the high; wide: su */
	const int32_t *zw;     /* [32] wide only */
	const uint16_t *scale; /* [32] */
};

/* nt tokens (a constant at every call) times a segment, added to y [nt, 32]. */
INLINE TARGET void tile_segment(const struct segment *g, const int32_t *q, const int32_t *c,
				const int32_t *d, const float *s, float *y, const uint32_t nt,
				const int nibbles)
{
	const uint8_t *w = g->w;
	__m512i acc[TILE][2];
	const __m512i low = _mm512_set1_epi8(15);
	__m512 s0, s1;
	uint32_t k, t;

#pragma GCC unroll 12
	for (t = 0; t < nt; t++)
		acc[t][0] = acc[t][1] = _mm512_setzero_si512();
	for (k = 0; k < g->n_steps; k++, q += nt) {
		__m512i w0 = _mm512_loadu_si512(w), w1;

		if (nibbles) {
			w1 = _mm512_and_si512(_mm512_srli_epi16(w0, 4), low);
			w0 = _mm512_and_si512(w0, low);
			w += 64;
		} else {
			w1 = _mm512_loadu_si512(w + 64);
			w += STEP;
		}
#pragma GCC unroll 12
		for (t = 0; t < nt; t++) {
			__m512i b = _mm512_set1_epi32(q[t]);

			DPBUSD(acc[t][0], w0, b);
			DPBUSD(acc[t][1], w1, b);
		}
	}
	if (d) {
		__m512i z0 = _mm512_loadu_si512(g->zw), z1 = _mm512_loadu_si512(g->zw + 16);
		__m512i u0 = _mm512_loadu_si512(g->corr), u1 = _mm512_loadu_si512(g->corr + 16);

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
		__m512i z0 = _mm512_loadu_si512(g->corr), z1 = _mm512_loadu_si512(g->corr + 16);

#pragma GCC unroll 12
		for (t = 0; t < nt; t++) {
			__m512i ct = _mm512_set1_epi32(c[t]);

			DPWSSD(acc[t][0], z0, ct);
			DPWSSD(acc[t][1], z1, ct);
		}
	}
	s0 = _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)g->scale));
	s1 = _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(g->scale + 16)));
#pragma GCC unroll 12
	for (t = 0; t < nt; t++, y += VQ_PANEL) {
		__m512 st = _mm512_set1_ps(s[t]);
		__m512 a0 = _mm512_mul_ps(_mm512_mul_ps(st, s0), _mm512_cvtepi32_ps(acc[t][0]));
		__m512 a1 = _mm512_mul_ps(_mm512_mul_ps(st, s1), _mm512_cvtepi32_ps(acc[t][1]));

		_mm512_store_ps(y, _mm512_add_ps(_mm512_load_ps(y), a0));
		_mm512_store_ps(y + 16, _mm512_add_ps(_mm512_load_ps(y + 16), a1));
	}
}

typedef void segment_fn(const struct segment *g, const int32_t *q, const int32_t *c,
			const int32_t *d, const float *s, float *y);

#define SEGMENT(nt)                                                                                \
	TARGET static void nibbles_##nt(const struct segment *g, const int32_t *q,                 \
					const int32_t *c, const int32_t *d, const float *s,        \
					float *y)                                                  \
	{                                                                                          \
		tile_segment(g, q, c, d, s, y, nt, 1);                                             \
	}                                                                                          \
	TARGET static void bytes_##nt(const struct segment *g, const int32_t *q, const int32_t *c, \
				      const int32_t *d, const float *s, float *y)                  \
	{                                                                                          \
		tile_segment(g, q, c, d, s, y, nt, 0);                                             \
	}
SEGMENT(1)
SEGMENT(2)
SEGMENT(3)
SEGMENT(4)
SEGMENT(5)
SEGMENT(6)
SEGMENT(7)
SEGMENT(8)
SEGMENT(9)
SEGMENT(10)
SEGMENT(11)
SEGMENT(12)

static segment_fn *const segment_fns[2][TILE + 1] = {
	{NULL, bytes_1, bytes_2, bytes_3, bytes_4, bytes_5, bytes_6, bytes_7, bytes_8, bytes_9,
	 bytes_10, bytes_11, bytes_12},
	{NULL, nibbles_1, nibbles_2, nibbles_3, nibbles_4, nibbles_5, nibbles_6, nibbles_7,
	 nibbles_8, nibbles_9, nibbles_10, nibbles_11, nibbles_12},
};

/* Field j of a plane of f bits is the byte shifted right by f j; in the 64-bit lanes of a register that
 * holds the plane repeated, each lane takes its own j. */
INLINE TARGET void expand_step(const uint32_t bits, const uint8_t *in, uint8_t *out)
{
	__m512i e0 = _mm512_setzero_si512(), e1 = e0;
	uint32_t low = 0;

	if (bits & 4) {
		__m512i v = _mm512_loadu_si512(in), m = _mm512_set1_epi8(15);

		e0 = _mm512_and_si512(v, m);
		e1 = _mm512_and_si512(_mm512_srli_epi16(v, 4), m);
		in += 64;
		low = 4;
	}
	if (bits & 2) {
		__m512i v = _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i *)in));
		__m512i m = _mm512_set1_epi8(3);
		__m512i v0 = _mm512_srlv_epi64(v, _mm512_set_epi64(2, 2, 2, 2, 0, 0, 0, 0));
		__m512i v1 = _mm512_srlv_epi64(v, _mm512_set_epi64(6, 6, 6, 6, 4, 4, 4, 4));

		e0 = _mm512_or_si512(e0, _mm512_slli_epi16(_mm512_and_si512(v0, m), low));
		e1 = _mm512_or_si512(e1, _mm512_slli_epi16(_mm512_and_si512(v1, m), low));
		in += 32;
		low += 2;
	}
	if (bits & 1) {
		__m512i v = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)in));
		__m512i m = _mm512_set1_epi8(1);
		__m512i v0 = _mm512_srlv_epi64(v, _mm512_set_epi64(3, 3, 2, 2, 1, 1, 0, 0));
		__m512i v1 = _mm512_srlv_epi64(v, _mm512_set_epi64(7, 7, 6, 6, 5, 5, 4, 4));

		e0 = _mm512_or_si512(e0, _mm512_slli_epi16(_mm512_and_si512(v0, m), low));
		e1 = _mm512_or_si512(e1, _mm512_slli_epi16(_mm512_and_si512(v1, m), low));
	}
	_mm512_store_si512(out, e0);
	_mm512_store_si512(out + 64, e1);
}

TARGET static void expand(uint32_t bits, const uint8_t *in, uint32_t n_steps, uint8_t *out)
{
	uint32_t k;

#define STEPS(b)                                                         \
	case b:                                                          \
		for (k = 0; k < n_steps; k++, in += 16 * b, out += STEP) \
			expand_step(b, in, out);                         \
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

/* sum of the codes of each row. */
INLINE TARGET void sum_codes(const uint8_t *w, uint32_t n_steps, int nibbles, int32_t su[VQ_PANEL])
{
	const __m512i low = _mm512_set1_epi8(15), one = _mm512_set1_epi8(1);
	__m512i a0 = _mm512_setzero_si512(), a1 = a0;
	uint32_t k;

	for (k = 0; k < n_steps; k++) {
		__m512i w0 = _mm512_loadu_si512(w), w1;

		if (nibbles) {
			w1 = _mm512_and_si512(_mm512_srli_epi16(w0, 4), low);
			w0 = _mm512_and_si512(w0, low);
			w += 64;
		} else {
			w1 = _mm512_loadu_si512(w + 64);
			w += STEP;
		}
		DPBUSD(a0, w0, one);
		DPBUSD(a1, w1, one);
	}
	_mm512_store_si512(su, a0);
	_mm512_store_si512(su + 16, a1);
}

/* What a thread needs for a panel. */
struct panel {
	uint8_t *bytes; /* [n_steps, 128]; bits other than 4 and 8 */
	int32_t *corr;  /* [n_segs, 32] */
	int32_t *zw;    /* [n_segs, 32] */
};

static void panel_free(struct panel *s)
{
	vq_free(s->bytes);
	vq_free(s->corr);
	vq_free(s->zw);
}

static int panel_alloc(struct panel *s, const struct plan *pl)
{
	uint32_t bits = pl->p->w->bits;
	size_t n = (size_t)pl->p->n_segs * VQ_PANEL;

	s->bytes = vq_alloc(bits == 4 || bits == 8 ? 0 : (size_t)pl->n_steps * STEP, 1, NULL);
	s->corr = vq_alloc(n, sizeof(int32_t), NULL);
	s->zw = vq_alloc(pl->narrow ? 0 : n, sizeof(int32_t), NULL);
	return s->bytes && s->corr && s->zw ? VQ_OK : VQ_E_SYS;
}

/* Makes segment s of a panel ready: codes expanded, corrections summed. */
TARGET static struct segment prepare(const struct plan *pl, uint32_t panel, uint32_t s,
				     const struct panel *buf)
{
	const struct vq_packed *w = pl->p->w;
	size_t at = ((size_t)panel * w->n_groups + s / pl->p->w_every) * VQ_PANEL;
	uint32_t k0 = s * pl->seg_steps, r;
	const uint8_t *planes = w->planes + ((size_t)panel * pl->n_steps + k0) * 16 * w->bits;
	int32_t *corr = buf->corr + (size_t)s * VQ_PANEL;
	struct segment g = {.w = planes,
			    .n_steps = pl->n_steps - k0 < pl->seg_steps ? pl->n_steps - k0
									: pl->seg_steps,
			    .corr = corr,
			    .zw = pl->narrow ? NULL : buf->zw + (size_t)s * VQ_PANEL,
			    .scale = w->scale + at};

	if (w->bits != 4 && w->bits != 8) {
		uint8_t *out = buf->bytes + (size_t)k0 * STEP;

		expand(w->bits, planes, g.n_steps, out);
		g.w = out;
	}
	if (!pl->p->has_za)
		memset(corr, 0, VQ_PANEL * sizeof(*corr));
	else if (w->bits == 4)
		sum_codes(g.w, g.n_steps, 1, corr);
	else
		sum_codes(g.w, g.n_steps, 0, corr);
	for (r = 0; r < VQ_PANEL; r++) {
		int32_t zw = w->zero ? w->zero[at + r] : 1 << (w->bits - 1);

		if (pl->narrow)
			corr[r] = (int32_t)((uint32_t)corr[r] << 16 | (uint32_t)zw);
		else
			buf->zw[(size_t)s * VQ_PANEL + r] = zw;
	}
	return g;
}

/* The same of a segment that prepare has seen. */
static struct segment prepared(const struct plan *pl, uint32_t panel, uint32_t s,
			       const struct panel *buf)
{
	const struct vq_packed *w = pl->p->w;
	size_t at = ((size_t)panel * w->n_groups + s / pl->p->w_every) * VQ_PANEL;
	uint32_t k0 = s * pl->seg_steps;
	struct segment g = {.n_steps = pl->n_steps - k0 < pl->seg_steps ? pl->n_steps - k0
									: pl->seg_steps,
			    .corr = buf->corr + (size_t)s * VQ_PANEL,
			    .zw = pl->narrow ? NULL : buf->zw + (size_t)s * VQ_PANEL,
			    .scale = w->scale + at};

	g.w = w->bits == 4 || w->bits == 8
		      ? w->planes + ((size_t)panel * pl->n_steps + k0) * 16 * w->bits
		      : buf->bytes + (size_t)k0 * STEP;
	return g;
}

/* y of a tile into the matrix, bias last. */
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
		_mm512_mask_storeu_ps(out, m0, v0);
		_mm512_mask_storeu_ps(out + 16, m1, v1);
	}
}

/* One panel times one chunk of tokens.  A single tile prepares each segment just before it is used, while
 * it is in the first-level cache, so that decoding reads the weights from memory once. */
static void job(const struct plan *pl, uint32_t panel, uint32_t chunk, const struct panel *buf)
{
	const struct vq_product *p = pl->p;
	uint32_t t0 = chunk * CHUNK, end = p->a->n_rows - t0 < CHUNK ? p->a->n_rows : t0 + CHUNK, s;
	int single = end - t0 <= TILE, nibbles = p->w->bits == 4;

	for (s = 0; !single && s < p->n_segs; s++)
		prepare(pl, panel, s, buf);
	for (; t0 < end; t0 += TILE) {
		uint32_t nt = end - t0 < TILE ? end - t0 : TILE;
		float y[TILE * VQ_PANEL] __attribute__((aligned(64)));
		segment_fn *fn = segment_fns[nibbles][nt];

		memset(y, 0, nt * VQ_PANEL * sizeof(*y));
		for (s = 0; s < p->n_segs; s++) {
			struct segment g =
				single ? prepare(pl, panel, s, buf) : prepared(pl, panel, s, buf);
			size_t at = (size_t)t0 * p->n_segs + (size_t)s * nt;

			fn(&g, pl->a.q + (size_t)t0 * pl->n_steps + (size_t)s * pl->seg_steps * nt,
			   pl->a.c + at, pl->narrow ? NULL : pl->a.d + at, pl->a.s + at, y);
		}
		store_tile(p, panel, t0, nt, y);
	}
}

/* Tokens t0 .. t0 + nt into the order of a tile. */
static void pack_tile(const struct plan *pl, uint32_t t0, uint32_t nt)
{
	const struct vq_qact *a = pl->p->a;
	int32_t *q = pl->a.q + (size_t)t0 * pl->n_steps;
	uint32_t t, s, k;

	for (t = 0; t < nt; t++) {
		const int8_t *row = a->q + (size_t)(t0 + t) * a->stride;

		for (k = 0; k < pl->n_steps; k++)
			memcpy(q + (size_t)k * nt + t, row + 4 * (size_t)k, 4);
		for (s = 0; s < pl->p->n_segs; s++) {
			size_t at = (size_t)t0 * pl->p->n_segs + (size_t)s * nt + t;
			size_t ag = (size_t)(t0 + t) * a->n_groups + s / pl->p->a_every;
			uint32_t k0 = s * pl->p->seg,
				 k1 = a->n - k0 < pl->p->seg ? a->n : k0 + pl->p->seg;
			int32_t za = a->zero[ag], c = (int32_t)(k1 - k0) * za;

			for (k = k0; k < k1; k++)
				c -= row[k];
			pl->a.s[at] = a->scale[ag];
			pl->a.c[at] =
				pl->narrow ? (int32_t)((uint32_t)-za << 16 | ((uint32_t)c & 0xffff))
					   : c;
			if (!pl->narrow)
				pl->a.d[at] = -za;
		}
	}
}

static int make_plan(struct plan *pl, const struct vq_product *p, struct vq_err *err)
{
	uint64_t n = p->a->n_rows, n_corr = n * p->n_segs;

	pl->p = p;
	pl->n_steps = vq_ceil_div(p->w->n_in, 4);
	pl->seg_steps = p->n_segs == 1 ? pl->n_steps : p->seg / 4;
	pl->n_panels = vq_ceil_div(p->w->n_out, VQ_PANEL);
	pl->n_chunks = vq_ceil_div(p->a->n_rows, CHUNK);
	pl->narrow = (uint64_t)p->seg * 255 <= INT16_MAX;
	pl->a.q = vq_alloc(n * pl->n_steps, sizeof(int32_t), err);
	pl->a.c = pl->a.q ? vq_alloc(n_corr, sizeof(int32_t), err) : NULL;
	pl->a.d = pl->a.c ? vq_alloc(pl->narrow ? 0 : n_corr, sizeof(int32_t), err) : NULL;
	pl->a.s = pl->a.d ? vq_alloc_f32(n_corr, err) : NULL;
	return pl->a.s ? VQ_OK : VQ_E_SYS;
}

static void plan_free(struct plan *pl)
{
	vq_free(pl->a.q);
	vq_free(pl->a.c);
	vq_free(pl->a.d);
	vq_free(pl->a.s);
}

static int qgemm(const struct vq_product *p, struct vq_err *err)
{
	struct plan pl = {0};
	uint64_t work = (uint64_t)p->w->n_out * p->w->n_in * p->a->n_rows;
	int rc = VQ_OK, failed = 0;
	long long i, n_jobs;

	if (p->n_segs > 1 && p->seg % 4 != 0) /* a step may not straddle segments */
		return vq_qgemm_generic(p, err);
	if (make_plan(&pl, p, err) < 0) {
		rc = VQ_E_SYS;
		goto out;
	}
	n_jobs = (long long)pl.n_panels * pl.n_chunks;
#pragma omp parallel if (work > LITTLE)
	{
		struct panel buf;

#pragma omp for schedule(static)
		for (i = 0; i < (long long)p->a->n_rows; i += TILE)
			pack_tile(&pl, (uint32_t)i,
				  p->a->n_rows - (uint32_t)i < TILE ? p->a->n_rows - (uint32_t)i
								    : TILE);
		if (panel_alloc(&buf, &pl) < 0) {
#pragma omp atomic write
			failed = 1;
		}
#pragma omp for schedule(dynamic, 1)
		for (i = 0; i < n_jobs; i++)
			if (buf.bytes && buf.corr && buf.zw)
				job(&pl, (uint32_t)(i / pl.n_chunks), (uint32_t)(i % pl.n_chunks),
				    &buf);
		panel_free(&buf);
	}
	if (failed)
		rc = vq_fail(err, VQ_E_SYS, "memory: cannot have a panel of %u steps", pl.n_steps);
out:
	plan_free(&pl);
	return rc;
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
	.qgemm = qgemm,
};
#endif
