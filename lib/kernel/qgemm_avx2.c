/* Integer products with AVX2.
 *
 * vpmaddubsw multiplies unsigned weight codes with signed activation codes and adds neighbours with
 * saturation at 16 bits.  Codes of b bits stay below it, and so does the sum of some steps, a run: 8 steps at 4 bits
 * (15 * 128 * 2 * 8 = 30,720), 4 at 5, 2 at 6, one at 7.  So two of the three operations of a step, those that widen to 32
 * bits, are done once a run.  8-bit weights are taken as two nibbles, and so are the bytes of a table.  A tile is a panel
 * of 32 rows (four registers of sums) times 2 tokens; all widths but 8 are expanded to bytes first. */
#if defined(__x86_64__)
#include "kernel/qgemm_tiles.h"

#include <immintrin.h>
#include <string.h>

#include "kernel/attend_rows.h"
#include "kernel/gemm16_rows.h"
#include "kernel/qact_rows.h"

#define TARGET __attribute__((target("avx2,fma,f16c")))
#define INLINE static inline __attribute__((always_inline))
#define TILE   2u
#define CHUNK  256u
#define BLOCK  128u /* inputs: 4 KiB of bytes */
#define VECS   4    /* registers of 8 rows */

static inline TARGET __m256i load(const void *p)
{
	return _mm256_loadu_si256(p);
}

/* The 128 codes of a step of 2..7 bits (qgemm.h): four registers; with a table (not NULL) their bytes. */
INLINE TARGET void expand_step(const uint32_t bits, const uint8_t *in, const __m256i *table,
			       uint8_t *out)
{
	const uint32_t at2 = bits & 4 ? 4 : 0, at1 = bits & 6;
	__m256i e[VECS] = {_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(),
			   _mm256_setzero_si256()};
	int i;

	if (bits & 4) {
		__m256i a = load(in), b = load(in + 32), m = _mm256_set1_epi8(15);

		e[0] = _mm256_and_si256(a, m);
		e[1] = _mm256_and_si256(b, m);
		e[2] = _mm256_and_si256(_mm256_srli_epi16(a, 4), m);
		e[3] = _mm256_and_si256(_mm256_srli_epi16(b, 4), m);
		in += 64;
	}
	if (bits & 2) {
		__m256i v = load(in), m = _mm256_set1_epi8(3);

#pragma GCC unroll 4
		for (i = 0; i < VECS; i++) {
			__m256i f = _mm256_and_si256(_mm256_srli_epi16(v, 2 * i), m);

			e[i] = _mm256_or_si256(e[i], _mm256_slli_epi16(f, (int)at2));
		}
		in += 32;
	}
	if (bits & 1) { /* field j is 16 bytes: two fields a register */
		__m256i v = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)in));
		__m256i m = _mm256_set1_epi8(1);

#pragma GCC unroll 4
		for (i = 0; i < VECS; i++) {
			__m256i by = _mm256_setr_epi64x(2 * i, 2 * i, 2 * i + 1, 2 * i + 1);
			__m256i f = _mm256_and_si256(_mm256_srlv_epi64(v, by), m);

			e[i] = _mm256_or_si256(e[i], _mm256_slli_epi16(f, (int)at1));
		}
	}
#pragma GCC unroll 4
	for (i = 0; i < VECS; i++)
		_mm256_store_si256((__m256i *)(out + 32 * i),
				   table ? _mm256_shuffle_epi8(*table, e[i]) : e[i]);
}

TARGET static void expand(uint32_t bits, const uint8_t *in, uint32_t n_steps, uint8_t *out)
{
	uint32_t k;

#define STEPS(b)                                                            \
	case b:                                                             \
		for (k = 0; k < n_steps; k++, in += 16 * b, out += VQ_STEP) \
			expand_step(b, in, NULL, out);                      \
		break
	switch (bits) {
		STEPS(2);
		STEPS(3);
		STEPS(4);
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
	__m256i table = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)byte));
	uint32_t k;

	for (k = 0; k < n_steps; k++, in += 16 * bits, out += VQ_STEP)
		if (bits == 4)
			expand_step(4, in, &table, out);
		else if (bits == 3)
			expand_step(3, in, &table, out);
		else
			expand_step(2, in, &table, out);
}

/* acc + the products of a register of codes with four activation codes in every lane. */
INLINE TARGET __m256i dot(__m256i acc, __m256i u, __m256i q, const int eight)
{
	const __m256i low = _mm256_set1_epi8(15);
	__m256i one = _mm256_set1_epi16(1);

	if (eight) {
		__m256i h = _mm256_and_si256(_mm256_srli_epi16(u, 4), low);

		u = _mm256_and_si256(u, low);
		acc = _mm256_add_epi32(
			acc, _mm256_madd_epi16(_mm256_maddubs_epi16(h, q), _mm256_set1_epi16(16)));
	}
	return _mm256_add_epi32(acc, _mm256_madd_epi16(_mm256_maddubs_epi16(u, q), one));
}

INLINE TARGET void sum_codes(const struct vq_tile_segment *g, const int eight, int32_t su[VQ_PANEL])
{
	__m256i acc[VECS] = {_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(),
			     _mm256_setzero_si256()};
	const uint8_t *w = g->w;
	uint32_t k;
	int i;

	for (k = 0; k < g->n_steps; k++, w += VQ_STEP)
#pragma GCC unroll 4
		for (i = 0; i < VECS; i++)
			acc[i] = dot(acc[i], load(w + 32 * i), _mm256_set1_epi8(1), eight);
#pragma GCC unroll 4
	for (i = 0; i < VECS; i++)
		_mm256_store_si256((__m256i *)(su + 8 * i), acc[i]);
}

/* The scales of eight rows. */
INLINE TARGET __m256 scales_of(const struct vq_tile_segment *g, int i, const int table)
{
	if (table)
		return _mm256_mul_ps(_mm256_loadu_ps(g->absmax + 8 * i),
				     _mm256_set1_ps(VQ_BYTE_STEP));
	return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(g->scale + 8 * i)));
}

/* What of a register of codes is multiplied: all, or the nibbles of a byte. */
enum part { WHOLE, LOW, HIGH };

INLINE TARGET __m256i part_of(__m256i u, const enum part part)
{
	const __m256i low = _mm256_set1_epi8(15);

	if (part == HIGH)
		u = _mm256_srli_epi16(u, 4);
	return part == WHOLE ? u : _mm256_and_si256(u, low);
}

/* A run of n steps of one part: the sums of the first one, or added to them. */
INLINE TARGET void add_run(__m256i acc[TILE][VECS], const uint8_t *w, const int32_t *q, uint32_t n,
			   const uint32_t nt, const enum part part, const int first)
{
	const __m256i by = _mm256_set1_epi16(part == HIGH ? 16 : 1);
	__m256i sum[TILE][VECS];
	uint32_t k, t;
	int i;

#pragma GCC unroll 2
	for (t = 0; t < nt; t++)
#pragma GCC unroll 4
		for (i = 0; i < VECS; i++)
			sum[t][i] = _mm256_setzero_si256();
	for (k = 0; k < n; k++, q += nt, w += VQ_STEP) {
		__m256i b[TILE];

#pragma GCC unroll 2
		for (t = 0; t < nt; t++)
			b[t] = _mm256_set1_epi32(q[t]);
#pragma GCC unroll 4
		for (i = 0; i < VECS; i++) {
			__m256i u = part_of(load(w + 32 * i), part);

#pragma GCC unroll 2
			for (t = 0; t < nt; t++)
				sum[t][i] =
					_mm256_add_epi16(sum[t][i], _mm256_maddubs_epi16(u, b[t]));
		}
	}
#pragma GCC unroll 2
	for (t = 0; t < nt; t++)
#pragma GCC unroll 4
		for (i = 0; i < VECS; i++)
			acc[t][i] = first ? _mm256_madd_epi16(sum[t][i], by)
					  : _mm256_add_epi32(acc[t][i],
							     _mm256_madd_epi16(sum[t][i], by));
}

/* What the zero points add to the sum of eight rows and a token. */
INLINE TARGET __m256i correction(const struct vq_tile_segment *g, int i, const int32_t *c,
				 const int32_t *d)
{
	__m256i su = load(g->corr + 8 * i), z = _mm256_set1_epi32(g->half);

	if (!d)
		return _mm256_madd_epi16(su, _mm256_set1_epi32(*c));
	if (g->zero)
		z = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(g->zero + 8 * i)));
	return _mm256_add_epi32(_mm256_mullo_epi32(z, _mm256_set1_epi32(*c)),
				_mm256_mullo_epi32(su, _mm256_set1_epi32(*d)));
}

/* The runs of a segment. */
INLINE TARGET void sum_segment(__m256i acc[TILE][VECS], const struct vq_tile_segment *g,
			       const int32_t *q, const uint32_t nt, const uint32_t run)
{
	const uint32_t most = run ? run : 8;
	uint32_t k, n = g->n_steps < most ? g->n_steps : most;

	add_run(acc, g->w, q, n, nt, run ? WHOLE : LOW, 1);
	if (!run)
		add_run(acc, g->w, q, n, nt, HIGH, 0);
	for (k = n; k < g->n_steps; k += n) {
		const uint8_t *w = g->w + (size_t)k * VQ_STEP;

		n = g->n_steps - k < most ? g->n_steps - k : most;
		add_run(acc, w, q + k * nt, n, nt, run ? WHOLE : LOW, 0);
		if (!run)
			add_run(acc, w, q + k * nt, n, nt, HIGH, 0);
	}
}

/* nt tokens times a segment, added to y [nt, 32].  nt, run (steps; 0: bytes, as nibbles) and table are constants at every
 * call. */
INLINE TARGET void tile_segment(const struct vq_tile_segment *g, const int32_t *q, const int32_t *c,
				const int32_t *d, const float *s, float *y, const uint32_t nt,
				const uint32_t run, const int table)
{
	__m256i acc[TILE][VECS];
	uint32_t t;
	int i;

	sum_segment(acc, g, q, nt, run);
#pragma GCC unroll 4
	for (i = 0; i < VECS; i++) {
		__m256 sw = scales_of(g, i, table);

#pragma GCC unroll 2
		for (t = 0; t < nt; t++) {
			__m256i v = correction(g, i, c + t, d ? d + t : NULL);
			__m256 f = _mm256_cvtepi32_ps(_mm256_add_epi32(acc[t][i], v));
			float *out = y + t * VQ_PANEL + 8 * i;

			_mm256_store_ps(out,
					_mm256_fmadd_ps(_mm256_mul_ps(_mm256_set1_ps(s[t]), sw), f,
							_mm256_load_ps(out)));
		}
	}
}

typedef void segment_fn(const struct vq_tile_segment *g, const int32_t *q, const int32_t *c,
			const int32_t *d, const float *s, float *y);

#define SEGMENTS(name, run, table)                                                                \
	TARGET static void name##_1(const struct vq_tile_segment *g, const int32_t *q,            \
				    const int32_t *c, const int32_t *d, const float *s, float *y) \
	{                                                                                         \
		tile_segment(g, q, c, d, s, y, 1, run, table);                                    \
	}                                                                                         \
	TARGET static void name##_2(const struct vq_tile_segment *g, const int32_t *q,            \
				    const int32_t *c, const int32_t *d, const float *s, float *y) \
	{                                                                                         \
		tile_segment(g, q, c, d, s, y, 2, run, table);                                    \
	}
SEGMENTS(codes4, 8, 0)
SEGMENTS(codes5, 4, 0)
SEGMENTS(codes6, 2, 0)
SEGMENTS(codes7, 1, 0)
SEGMENTS(codes8, 0, 0)
SEGMENTS(values, 0, 1)

/* What a segment's codes are once they are bytes. */
enum { UP_TO_4, UP_TO_5, UP_TO_6, UP_TO_7, UP_TO_8, VALUES };

static segment_fn *const segment_fns[6][TILE] = {{codes4_1, codes4_2}, {codes5_1, codes5_2},
						 {codes6_1, codes6_2}, {codes7_1, codes7_2},
						 {codes8_1, codes8_2}, {values_1, values_2}};

static int kind_of(const struct vq_packed *w)
{
	return w->value ? VALUES : w->bits <= 4 ? UP_TO_4 : (int)w->bits - 4;
}

static size_t n_bytes(const struct vq_tile_plan *pl)
{
	return pl->p->w->bits == 8 ? 0 : (size_t)pl->block_segs * pl->seg_steps * VQ_STEP;
}

/* g is a segment that prepare has seen, number i of its block. */
static inline void set_prepared(struct vq_tile_segment *g, const struct vq_tile_plan *pl,
				uint32_t i, const struct vq_tile_panel *buf)
{
	if (pl->p->w->bits != 8)
		g->w = buf->bytes + (size_t)i * pl->seg_steps * VQ_STEP;
	g->corr = buf->corr + (size_t)i * VQ_PANEL;
}

/* Segment s of a panel, number i of its block, as bytes and with the sums that its zero points need. */
TARGET static struct vq_tile_segment prepare(const struct vq_tile_plan *pl, uint32_t panel,
					     uint32_t s, uint32_t i,
					     const struct vq_tile_panel *buf)
{
	struct vq_tile_segment raw = vq_tile_segment_of(pl, panel, s), g = raw;
	uint8_t *bytes = buf->bytes + (size_t)i * pl->seg_steps * VQ_STEP;
	int32_t *su = buf->corr + (size_t)i * VQ_PANEL;
	uint32_t r;

	set_prepared(&g, pl, i, buf);
	if (pl->p->w->value)
		look_up(pl->p->w->bits, raw.w, raw.n_steps, raw.byte, bytes);
	else
		expand(pl->p->w->bits, raw.w, raw.n_steps, bytes);
	if (!pl->p->has_za)
		memset(su, 0, VQ_PANEL * sizeof(*su));
	else if (kind_of(pl->p->w) >= UP_TO_8)
		sum_codes(&g, 1, su);
	else
		sum_codes(&g, 0, su);
	for (r = 0; pl->narrow && r < VQ_PANEL; r++)
		su[r] = (int32_t)((uint32_t)su[r] << 16 | (g.zero ? g.zero[r] : (uint32_t)g.half));
	return g;
}

/* What memset does, which gcc makes of rep stos: too slow for a narrow layer. */
TARGET static void clear(uint32_t nt, float *y)
{
	uint32_t i;

	for (i = 0; i < nt * VQ_PANEL; i += 8)
		_mm256_store_ps(y + i, _mm256_setzero_ps());
}

/* y [nt, 32] into the matrix. */
TARGET static void store(const struct vq_product *p, uint32_t panel, uint32_t t0, uint32_t nt,
			 const float *y)
{
	uint32_t o = panel * VQ_PANEL, n = p->w->n_out - o, t, r;

	n = n < VQ_PANEL ? n : VQ_PANEL;
	for (t = 0; t < nt; t++, y += VQ_PANEL) {
		float *out = p->y + (size_t)(t0 + t) * p->w->n_out + o;

		for (r = 0; r + 8 <= n; r += 8) {
			__m256 v = _mm256_load_ps(y + r);

			if (p->bias)
				v = _mm256_add_ps(v, _mm256_loadu_ps(p->bias + o + r));
			if (p->add)
				v = _mm256_add_ps(_mm256_loadu_ps(out + r), v);
			_mm256_storeu_ps(out + r, v);
		}
		for (; r < n; r++) {
			float v = p->bias ? y[r] + p->bias[o + r] : y[r];

			out[r] = p->add ? out[r] + v : v;
		}
	}
}

static void job(const struct vq_tile_plan *pl, uint32_t panel, uint32_t chunk,
		const struct vq_tile_panel *buf)
{
	const struct vq_product *p = pl->p;
	uint32_t first = chunk * pl->chunk, left = p->a->n_rows - first, s, n, i, t;
	uint32_t end = first + (left < pl->chunk ? left : pl->chunk);

	clear(end - first, buf->y);
	for (s = 0; s < p->n_segs; s += n) {
		n = p->n_segs - s < pl->block_segs ? p->n_segs - s : pl->block_segs;
		for (i = 0; i < n; i++) {
			struct vq_tile_segment g = prepare(pl, panel, s + i, i, buf);

			for (t = first; t < end; t += TILE) {
				uint32_t nt = end - t < TILE ? end - t : TILE;
				struct vq_tile_acts a = vq_tile_acts_at(pl, s, n, t);

				segment_fns[kind_of(p->w)][nt - 1](
					&g, a.q + (size_t)i * pl->seg_steps * nt, a.c + i * nt,
					a.d ? a.d + i * nt : NULL, a.s + i * nt,
					buf->y + (size_t)(t - first) * VQ_PANEL);
			}
		}
	}
	store(p, panel, first, end - first, buf->y);
}

static int qgemm(const struct vq_product *p, struct vq_err *err)
{
	static const struct vq_tile_kind kind = {TILE, CHUNK, 1, n_bytes, job, BLOCK, NULL};

	return vq_tiles_run(p, &kind, err);
}

static int runs(void)
{
	/* and so F16C, which clang 14 cannot ask for */
	return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

const struct vq_kernels vq_kernels_avx2 = {
	.name = "avx2",
	.runs = runs,
	.act_quantize = vq_act_quantize_avx2,
	.act_fake = vq_act_fake_avx2,
	.transform = vq_transform_avx2,
	.qgemm = qgemm,
	.gemm = &vq_gemm_avx2,
	.gemm_bf16 = NULL,
	.attend = vq_attend_avx2,
	.joint_rows = vq_joint_rows_generic, /* four doubles a register do not pay */
	.ops = &vq_ops_avx2,
};
#endif
