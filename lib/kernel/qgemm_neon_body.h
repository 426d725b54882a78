/* The body of the integer products of arm64: included by qgemm_neon.c and qgemm_neondot.c, which define TARGET (an
 * attribute), INLINE, TILE (tokens), PARTS (registers that hold the sums of four rows) and the functions dot, dot_lane,
 * total and sum_codes.
 *
 * Products are of signed bytes: codes of up to 7 bits are such; bytes (8-bit weights, tables) are taken less 128, and
 * so are their zero points.  A single token is multiplied with codes that are unpacked in registers; for more
 * a segment is unpacked once for all tokens of a chunk and stays in the first cache meanwhile. */
#include "kernel/qgemm_tiles.h"

#include <string.h>

#include "kernel/qact_rows.h"

#define CHUNK 64u
#define VECS  8  /* registers of 4 rows in a panel */
#define SUMS  16 /* registers of sums, which leave room for the rest */

/* The 128 codes of a step (qgemm.h) as signed bytes.  bits and is_table are constants at every call. */
INLINE void codes_of(const uint32_t bits, const int is_table, int8x16_t table, const uint8_t *in,
		     int8x16_t out[VECS])
{
	uint8x16_t e[VECS];
	int i;

#pragma GCC unroll 8
	for (i = 0; i < VECS; i++)
		e[i] = bits == 8 ? vld1q_u8(in + 16 * i) ^ 128 : vdupq_n_u8(0);
	if (bits & 4) {
#pragma GCC unroll 4
		for (i = 0; i < VECS / 2; i++) {
			uint8x16_t v = vld1q_u8(in + 16 * i);

			e[i] = v & 15;
			e[VECS / 2 + i] = v >> 4;
		}
		in += 64;
	}
	if (bits & 2) {
#pragma GCC unroll 8
		for (i = 0; i < VECS; i++)
			e[i] |= (vld1q_u8(in + i % 2 * 16) >> (i / 2 * 2) & 3) << (bits & 4);
		in += 32;
	}
	if (bits & 1) {
#pragma GCC unroll 8
		for (i = 0; i < VECS; i++)
			e[i] |= (vld1q_u8(in) >> i & 1) << (bits & 6);
	}
#pragma GCC unroll 8
	for (i = 0; i < VECS; i++)
		out[i] = is_table ? vqtbl1q_s8(table, e[i]) : vreinterpretq_s8_u8(e[i]);
}

INLINE int8x16_t table_of(const struct vq_tile_segment *g, const int is_table)
{
	return is_table ? vreinterpretq_s8_u8(vld1q_u8(g->byte) ^ 128) : vdupq_n_s8(0);
}

/* What turns the sums of four rows into products: zero points, sums of codes, scales. */
struct rows {
	int32x4_t z, su;
	float32x4_t sw;
};

/* Those of register i.  A segment of bytes has its zero points less 128. */
INLINE void rows_of(struct rows *r, const struct vq_tile_segment *g, int i, int32x4_t su,
		    const int bytes)
{
	uint32_t zero;

	r->su = su;
	if (g->zero) {
		memcpy(&zero, g->zero + 4 * i, sizeof(zero));
		r->z = vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(vmovl_u8(vcreate_u8(zero)))));
	} else {
		r->z = vdupq_n_s32(g->half);
	}
	r->z -= bytes ? 128 : 0;
	if (g->scale)
		r->sw = vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(g->scale + 4 * i)));
	else
		r->sw = vld1q_f32(g->absmax + 4 * i) * VQ_BYTE_STEP;
}

/* y [4] and the product of one token. */
INLINE void add_product(float *y, const int32x4_t acc[PARTS], const struct rows *r, int32_t c,
			int32_t d, float s)
{
	int32x4_t v = vmlaq_n_s32(vmlaq_n_s32(total(acc), r->z, c), r->su, d);

	vst1q_f32(y, vfmaq_f32(vld1q_f32(y), r->sw * s, vcvtq_f32_s32(v)));
}

/* --- one token --- */

/* A segment added to y [32]; pad is what its sums of codes have too much; bits, is_table and has_za are constants. */
INLINE void single(const struct vq_tile_segment *g, const int32_t *q, int32_t c, int32_t d, float s,
		   int32_t pad, float *y, const uint32_t bits, const int is_table, const int has_za)
{
	const int8x16_t table = table_of(g, is_table);
	const struct vq_tile_segment own = *g; /* which y cannot overlap */
	int32x4_t acc[VECS][PARTS], su[VECS];
	const uint8_t *w = g->w;
	uint32_t k;
	int i, p;

#pragma GCC unroll 8
	for (i = 0; i < VECS; i++) {
		su[i] = vdupq_n_s32(0);
#pragma GCC unroll 2
		for (p = 0; p < PARTS; p++)
			acc[i][p] = su[i];
	}
	for (k = 0; k < g->n_steps; k++, w += 16 * bits) {
		int8x16_t b = vreinterpretq_s8_s32(vld1q_dup_s32(q + k)), e[VECS];

		codes_of(bits, is_table, table, w, e);
#pragma GCC unroll 8
		for (i = 0; i < VECS; i++) {
			dot(acc[i], e[i], b);
			if (has_za)
				sum_codes(&su[i], e[i]);
		}
	}
#pragma GCC unroll 8
	for (i = 0; i < VECS; i++) {
		struct rows r;

		rows_of(&r, &own, i, su[i] - pad, is_table || bits == 8);
		add_product(y + 4 * i, acc[i], &r, c, d, s);
	}
}

/* --- a tile of tokens --- */

/* A segment's codes into out [n_steps, 128], and their sums less pad into su [32]; bits and is_table are constants. */
INLINE void unpack(const struct vq_tile_segment *g, int32_t pad, int8_t *out, int32_t *su,
		   const uint32_t bits, const int is_table)
{
	const int8x16_t table = table_of(g, is_table);
	const uint8_t *w = g->w;
	int32x4_t sum[VECS];
	uint32_t k;
	int i;

#pragma GCC unroll 8
	for (i = 0; i < VECS; i++)
		sum[i] = vdupq_n_s32(0);
	for (k = 0; k < g->n_steps; k++, w += 16 * bits, out += VQ_STEP) {
		int8x16_t e[VECS];

		codes_of(bits, is_table, table, w, e);
#pragma GCC unroll 8
		for (i = 0; i < VECS; i++) {
			vst1q_s8(out + 16 * i, e[i]);
			sum_codes(&sum[i], e[i]);
		}
	}
#pragma GCC unroll 8
	for (i = 0; i < VECS; i++)
		vst1q_s32(su + 4 * i, sum[i] - pad);
}

/* Registers first .. first + n of an unpacked segment times nt tokens, added to y [nt, 32]; nt and n are constants.
 * From four tokens on the codes of four come in one register, those of the last four in the second. */
INLINE void some_rows(const struct vq_tile_segment *g, const struct vq_tile_acts *a, float *y,
		      const uint32_t nt, const int first, const int n, const int bytes)
{
	const int8_t *w = (const int8_t *)g->w + 16 * first;
	const struct vq_tile_segment own = *g; /* which y cannot overlap */
	const struct vq_tile_acts act = *a;
	const int32_t *q = a->q;
	int32x4_t acc[TILE][VECS][PARTS];
	uint32_t k, t;
	int i, p;

#pragma GCC unroll 8
	for (t = 0; t < nt; t++)
#pragma GCC unroll 8
		for (i = 0; i < n; i++)
#pragma GCC unroll 2
			for (p = 0; p < PARTS; p++)
				acc[t][i][p] = vdupq_n_s32(0);
	for (k = 0; k < g->n_steps; k++, q += nt, w += VQ_STEP) {
		int8x16_t e[VECS], b[2];

		if (nt >= 4) {
			b[0] = vreinterpretq_s8_s32(vld1q_s32(q));
			b[1] = vreinterpretq_s8_s32(vld1q_s32(q + nt - 4));
		}
#pragma GCC unroll 8
		for (i = 0; i < n; i++)
			e[i] = vld1q_s8(w + 16 * i);
#pragma GCC unroll 8
		for (t = 0; t < nt; t++) {
			if (nt < 4)
				b[0] = vreinterpretq_s8_s32(vld1q_dup_s32(q + t));
#pragma GCC unroll 8
			for (i = 0; i < n; i++)
				if (nt < 4)
					dot(acc[t][i], e[i], b[0]);
				else if (t < 4)
					dot_lane(acc[t][i], e[i], b[0], (int)t);
				else
					dot_lane(acc[t][i], e[i], b[1], (int)(t - (nt - 4)));
		}
	}
#pragma GCC unroll 8
	for (i = 0; i < n; i++) {
		struct rows r;

		rows_of(&r, &own, first + i, vld1q_s32(own.corr + 4 * (first + i)), bytes);
#pragma GCC unroll 8
		for (t = 0; t < nt; t++)
			add_product(y + t * VQ_PANEL + 4 * (first + i), acc[t][i], &r, act.c[t],
				    act.d[t], act.s[t]);
	}
}

INLINE void tile(const struct vq_tile_segment *g, const struct vq_tile_acts *a, float *y,
		 const uint32_t nt, int bytes)
{
	const int n = SUMS / PARTS / (nt > 4 ? 8 : nt > 2 ? 4 : 2);
	int first;

	for (first = 0; first < VECS; first += n)
		some_rows(g, a, y, nt, first, n, bytes);
}

/* --- the functions of each width and each number of tokens --- */

typedef void single_fn(const struct vq_tile_segment *g, const int32_t *q, int32_t c, int32_t d,
		       float s, int32_t pad, float *y);
typedef void unpack_fn(const struct vq_tile_segment *g, int32_t pad, int8_t *out, int32_t *su);
typedef void tile_fn(const struct vq_tile_segment *g, const struct vq_tile_acts *a, float *y,
		     int bytes);

#define SINGLE(name, bits, is_table, has_za)                                                  \
	TARGET static void name(const struct vq_tile_segment *g, const int32_t *q, int32_t c, \
				int32_t d, float s, int32_t pad, float *y)                    \
	{                                                                                     \
		single(g, q, c, d, s, pad, y, bits, is_table, has_za);                        \
	}
#define WIDTH(name, bits, is_table)                                                    \
	SINGLE(single_##name, bits, is_table, 0)                                       \
	SINGLE(single_za_##name, bits, is_table, 1)                                    \
	TARGET static void unpack_##name(const struct vq_tile_segment *g, int32_t pad, \
					 int8_t *out, int32_t *su)                     \
	{                                                                              \
		unpack(g, pad, out, su, bits, is_table);                               \
	}
WIDTH(2, 2, 0)
WIDTH(3, 3, 0)
WIDTH(4, 4, 0)
WIDTH(5, 5, 0)
WIDTH(6, 6, 0)
WIDTH(7, 7, 0)
WIDTH(8, 8, 0)
WIDTH(table_2, 2, 1)
WIDTH(table_3, 3, 1)
WIDTH(table_4, 4, 1)

struct width {
	single_fn *single[2]; /* by has_za */
	unpack_fn *unpack;
};

#define FUNCTIONS(name)                                          \
	{                                                        \
		{single_##name, single_za_##name}, unpack_##name \
	}
static const struct width plain[] = {FUNCTIONS(2), FUNCTIONS(3), FUNCTIONS(4), FUNCTIONS(5),
				     FUNCTIONS(6), FUNCTIONS(7), FUNCTIONS(8)};
static const struct width tables[] = {FUNCTIONS(table_2), FUNCTIONS(table_3), FUNCTIONS(table_4)};

static const struct width *width_of(const struct vq_packed *w)
{
	return (w->value ? tables : plain) + (w->bits - 2);
}

#define TOKENS(nt)                                                                      \
	TARGET static void tile_##nt(const struct vq_tile_segment *g,                   \
				     const struct vq_tile_acts *a, float *y, int bytes) \
	{                                                                               \
		tile(g, a, y, nt, bytes);                                               \
	}
TOKENS(1)
TOKENS(2)
TOKENS(3)
TOKENS(4)
#if TILE > 4
TOKENS(5)
TOKENS(6)
TOKENS(7)
TOKENS(8)
#endif

static tile_fn *const tile_fns[TILE] = {
	tile_1, tile_2, tile_3, tile_4,
#if TILE > 4
	tile_5, tile_6, tile_7, tile_8,
#endif
};

/* --- a panel times a chunk --- */

static size_t n_bytes(const struct vq_tile_plan *pl)
{
	return pl->p->a->n_rows == 1 ? 0 : (size_t)pl->seg_steps * VQ_STEP;
}

/* nt tokens from t0 on: their sums of panel into the matrix. */
TARGET static void store(const struct vq_product *p, uint32_t panel, uint32_t t0, uint32_t nt,
			 const float *y)
{
	uint32_t o = panel * VQ_PANEL, n = p->w->n_out - o, t, r;

	n = n < VQ_PANEL ? n : VQ_PANEL;
	for (t = 0; t < nt; t++, y += VQ_PANEL) {
		float *out = p->y + (size_t)(t0 + t) * p->w->n_out + o;

		for (r = 0; r + 4 <= n; r += 4) {
			float32x4_t v = vld1q_f32(y + r);

			if (p->bias)
				v += vld1q_f32(p->bias + o + r);
			if (p->add)
				v = vld1q_f32(out + r) + v;
			vst1q_f32(out + r, v);
		}
		for (; r < n; r++) {
			float v = p->bias ? y[r] + p->bias[o + r] : y[r];

			out[r] = p->add ? out[r] + v : v;
		}
	}
}

/* The activations of segment s of the tile of nt tokens at t0. */
static struct vq_tile_acts acts_of(const struct vq_tile_plan *pl, uint32_t s, uint32_t t0,
				   uint32_t nt)
{
	size_t at = (size_t)t0 * pl->p->n_segs + (size_t)s * nt;

	return (struct vq_tile_acts){pl->a.q + (size_t)t0 * pl->n_steps +
					     (size_t)s * pl->seg_steps * nt,
				     pl->a.c + at, pl->a.d + at, pl->a.s + at};
}

/* What the padding of inputs adds to the sums of codes of segment s: code 0, as a signed byte, is not always 0. */
static int32_t pad_of(const struct vq_tile_plan *pl, uint32_t s)
{
	const struct vq_packed *w = pl->p->w;
	int32_t zero = w->value ? w->byte[0] - 128 : w->bits == 8 ? -128 : 0;

	return s + 1 < pl->p->n_segs ? 0 : zero * (int32_t)(4 * pl->n_steps - w->n_in);
}

static void job(const struct vq_tile_plan *pl, uint32_t panel, uint32_t chunk,
		const struct vq_tile_panel *buf)
{
	const struct vq_product *p = pl->p;
	const struct width *f = width_of(p->w);
	uint32_t t0 = chunk * CHUNK, n = p->a->n_rows - t0 < CHUNK ? p->a->n_rows - t0 : CHUNK, s,
		 t;
	int bytes = p->w->value || p->w->bits == 8;
	float y[CHUNK * VQ_PANEL] __attribute__((aligned(64)));

	memset(y, 0, (size_t)n * VQ_PANEL * sizeof(*y));
	for (s = 0; s < p->n_segs; s++) {
		struct vq_tile_segment g = vq_tile_segment_of(pl, panel, s);

		if (n == 1) {
			struct vq_tile_acts a = acts_of(pl, s, t0, 1);

			f->single[p->has_za](&g, a.q, *a.c, *a.d, *a.s, pad_of(pl, s), y);
			continue;
		}
		f->unpack(&g, pad_of(pl, s), (int8_t *)buf->bytes, buf->corr);
		g.w = buf->bytes;
		g.corr = buf->corr;
		for (t = 0; t < n; t += TILE) {
			uint32_t nt = n - t < TILE ? n - t : TILE;
			struct vq_tile_acts a = acts_of(pl, s, t0 + t, nt);

			tile_fns[nt - 1](&g, &a, y + t * VQ_PANEL, bytes);
		}
	}
	store(p, panel, t0, n, y);
}

static int qgemm(const struct vq_product *p, struct vq_err *err)
{
	static const struct vq_tile_kind kind = {TILE, CHUNK, 0, n_bytes, job, 0, NULL};

	return vq_tiles_run(p, &kind, err);
}
