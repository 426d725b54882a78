/* The body of attention of one instruction set: included by attend_avx2.c, attend_avx512.c ..., which define TARGET,
 * VECTOR, its LANES (a divisor of 16), the operations on it, SCORE_ROWS (rows at a time in products with keys: 12 or 6)
 * and SCORES and VALUES (vectors of keys and of a row of values at a time).
 *
 * A tile of keys is made float32 once for all rows, unless they are few.  Then rows go through it in sixes or twelves, whose scores stay in the
 * nearest cache: products with keys (a vector is that many keys), softmax, products with values. */
#include <string.h>

#include "kernel/attend_rows.h"

#define FEW   8u /* rows that read a tile as it is stored: a token and its group */
#define PANEL VQ_KEY_PANEL
#define TILE  VQ_ATTEND_KEYS
#define PARTS (PANEL / LANES) /* vectors of a panel */

typedef float four __attribute__((vector_size(16)));

/* Where a type's element i is, as floats. */
INLINE VECTOR load(const enum vq_kv_type type, const void *p, size_t i)
{
	return type == VQ_KV_F32   ? LOAD((const float *)p + i)
	       : type == VQ_KV_F16 ? LOAD_F16((const uint16_t *)p + i)
				   : LOAD_I8((const int8_t *)p + i);
}

INLINE void widen_as(const enum vq_kv_type type, const void *from, size_t at, size_t n, float *to)
{
	size_t i;

	for (i = 0; i < n; i += LANES)
		STORE(to + i, load(type, from, at + i));
}

INLINE void widen(enum vq_kv_type type, const void *from, size_t at, size_t n, float *to)
{
	if (type == VQ_KV_F16)
		widen_as(VQ_KV_F16, from, at, n, to);
	else
		widen_as(VQ_KV_I8, from, at, n, to);
}

/* --- products with keys --- */

/* s[r][u] of R rows and N vectors of keys; q [dim][R], s TILE floats a row. */
INLINE void few_scores(const enum vq_kv_type type, const float *q, const void *k, size_t at,
		       uint32_t dim, float *s, const uint32_t R, const uint32_t N)
{
	const size_t panel = (size_t)dim * PANEL;
	VECTOR acc[12][8];
	uint32_t i, r, j;

#pragma GCC unroll 12
	for (r = 0; r < R; r++)
#pragma GCC unroll 8
		for (j = 0; j < N; j++)
			acc[r][j] = SET1(0);
	for (i = 0; i < dim; i++) {
		VECTOR x[8];

#pragma GCC unroll 8
		for (j = 0; j < N; j++)
			x[j] = load(type, k,
				    at + j / PARTS * panel + (size_t)i * PANEL + j % PARTS * LANES);
#pragma GCC unroll 12
		for (r = 0; r < R; r++) {
			VECTOR b = SET1(q[(size_t)i * R + r]);

#pragma GCC unroll 8
			for (j = 0; j < N; j++)
				acc[r][j] = FMA(b, x[j], acc[r][j]);
		}
	}
#pragma GCC unroll 12
	for (r = 0; r < R; r++)
#pragma GCC unroll 8
		for (j = 0; j < N; j++)
			STORE(s + (size_t)r * TILE + j * LANES, acc[r][j]);
}

INLINE void scores(const enum vq_kv_type type, const float *q, const void *k, size_t first,
		   uint32_t dim, uint32_t panels, float *s, const uint32_t R, const uint32_t N)
{
	const uint32_t step = N / PARTS; /* panels */
	const size_t panel = (size_t)dim * PANEL;
	uint32_t at;

	for (at = 0; at + step <= panels; at += step)
		few_scores(type, q, k, first + at * panel, dim, s + (size_t)at * PANEL, R, N);
	for (; at < panels; at++)
		few_scores(type, q, k, first + at * panel, dim, s + (size_t)at * PANEL, R, PARTS);
}

/* --- softmax --- */

INLINE VECTOR exp2_of(VECTOR x)
{
	VECTOR t, r, p;

	x = MAX(SET1(VQ_EXP2_LOWEST), x);
	t = ADD(x, SET1(VQ_EXP2_MAGIC));
	r = SUB(x, SUB(t, SET1(VQ_EXP2_MAGIC)));
	p = FMA(SET1(VQ_EXP2_C6), r, SET1(VQ_EXP2_C5));
	p = FMA(p, r, SET1(VQ_EXP2_C4));
	p = FMA(p, r, SET1(VQ_EXP2_C3));
	p = FMA(p, r, SET1(VQ_EXP2_C2));
	p = FMA(p, r, SET1(VQ_EXP2_C1));
	p = FMA(p, r, SET1(1.0f));
	return ADD_EXPONENT(p, t);
}

/* 16 lanes, added by halves. */
INLINE float sum_of(const float *t)
{
	four x[4];

	memcpy(x, t, sizeof(x));
	x[0] = (x[0] + x[2]) + (x[1] + x[3]);
	return (x[0][0] + x[0][2]) + (x[0][1] + x[0][3]);
}

/* The largest of the scores s of `seen` keys and m; what follows them in `panels` panels becomes -infinity in the last
 * panel that is seen, 0 after it. */
INLINE float top_of(float *s, uint32_t seen, uint32_t panels, const float *k_scale, float m)
{
	uint32_t end = (seen + PANEL - 1) / PANEL * PANEL, i;
	VECTOR most = SET1(-INFINITY);
	float top;

	for (i = end; i < panels * PANEL; i += LANES)
		STORE(s + i, SET1(0));
	for (i = 0; k_scale && i < end; i += LANES)
		STORE(s + i, MUL(LOAD(s + i), LOAD(k_scale + i)));
	for (i = seen; i < end; i++)
		s[i] = -INFINITY;
	for (i = 0; i < end; i += LANES)
		most = MAX(LOAD(s + i), most);
	top = LARGEST(most); /* no NaN: MAX has taken none */
	return top > m ? top : m;
}

/* A panel of scores, `seen` of them, to factors of the values; their sum is added to the lanes of sum. */
INLINE void exp2_panel(float *s, VECTOR top, uint32_t seen, const float *v_scale, VECTOR sum[PARTS])
{
	uint32_t j;

#pragma GCC unroll 4
	for (j = 0; j < PARTS; j++) {
		VECTOR p = exp2_of(SUB(LOAD(s + j * LANES), top));

		if ((j + 1) * LANES > seen)
			p = KEEP(p, seen > j * LANES ? seen - j * LANES : 0);
		sum[j] = ADD(sum[j], p);
		if (v_scale)
			p = MUL(p, LOAD(v_scale + j * LANES));
		STORE(s + j * LANES, p);
	}
}

/* Scores to factors; out [16] is their sum in lanes. */
INLINE void exp2_row(float *s, float m, uint32_t seen, const float *v_scale, float *out)
{
	VECTOR sum[PARTS], top = SET1(m);
	uint32_t i, j;

#pragma GCC unroll 4
	for (j = 0; j < PARTS; j++)
		sum[j] = SET1(0);
	for (i = 0; i + PANEL <= seen; i += PANEL)
		exp2_panel(s + i, top, PANEL, v_scale ? v_scale + i : NULL, sum);
	if (i < seen)
		exp2_panel(s + i, top, seen - i, v_scale ? v_scale + i : NULL, sum);
#pragma GCC unroll 4
	for (j = 0; j < PARTS; j++)
		STORE(out + j * LANES, sum[j]);
}

/* --- products with values --- */

/* o[r][..] of R rows and N vectors. */
INLINE void few_values(const enum vq_kv_type type, const float *p, const void *v, size_t at,
		       size_t width, uint32_t n, const float *a, float *o, const uint32_t R,
		       const uint32_t N)
{
	VECTOR acc[6][8];
	uint32_t u, r, j;

#pragma GCC unroll 6
	for (r = 0; r < R; r++)
#pragma GCC unroll 8
		for (j = 0; j < N; j++)
			acc[r][j] = MUL(LOAD(o + r * width + j * LANES), SET1(a[r]));
	for (u = 0; u < n; u++) {
		VECTOR x[8];

#pragma GCC unroll 8
		for (j = 0; j < N; j++)
			x[j] = load(type, v, at + u * width + j * LANES);
#pragma GCC unroll 6
		for (r = 0; r < R; r++) {
			VECTOR b = SET1(p[(size_t)r * TILE + u]);

#pragma GCC unroll 8
			for (j = 0; j < N; j++)
				acc[r][j] = FMA(b, x[j], acc[r][j]);
		}
	}
#pragma GCC unroll 6
	for (r = 0; r < R; r++)
#pragma GCC unroll 8
		for (j = 0; j < N; j++)
			STORE(o + r * width + j * LANES, acc[r][j]);
}

INLINE void values(const enum vq_kv_type type, const float *p, const void *v, size_t first,
		   size_t width, uint32_t n, const float *a, float *o, const uint32_t R,
		   const uint32_t N)
{
	size_t at = 0;

	for (; at + N * LANES <= width; at += N * LANES)
		few_values(type, p, v, first + at, width, n, a, o + at, R, N);
	if (N > 4)
		for (; at + 4 * LANES <= width; at += 4 * LANES)
			few_values(type, p, v, first + at, width, n, a, o + at, R, 4);
	for (; at < width; at += LANES)
		few_values(type, p, v, first + at, width, n, a, o + at, R, 1);
}

/* --- rows through a tile --- */

/* Some rows on their way: their number is one of 12, 6, 4, 2, 1. */
struct block {
	const struct vq_attend *a;
	struct vq_attend_room *x;
	uint32_t first_row, first_key, n_keys;
	enum vq_kv_type type; /* of the tile */
	const void *k, *v;    /* the tile: elements k_at.. and v_at.. */
	size_t k_at, v_at;
};

INLINE void scores_as(const enum vq_kv_type type, const struct block *b, uint32_t rows,
		      uint32_t panels)
{
	uint32_t dim = b->a->keys->dim;
	const float *q = b->x->q + (size_t)b->first_row * dim;
	float *s = b->x->s;

	switch (rows) {
	case 6: scores(type, q, b->k, b->k_at, dim, panels, s, 6, SCORES(6)); break;
	case 4: scores(type, q, b->k, b->k_at, dim, panels, s, 4, SCORES(4)); break;
	case 2: scores(type, q, b->k, b->k_at, dim, panels, s, 2, SCORES(2)); break;
	default: scores(type, q, b->k, b->k_at, dim, panels, s, 1, SCORES(1));
	}
}

TARGET static void scores_of(const struct block *b, uint32_t rows, uint32_t panels)
{
#if SCORE_ROWS == 12
	uint32_t dim = b->a->keys->dim;

	if (rows == 12) {
		scores(VQ_KV_F32, b->x->q + (size_t)b->first_row * dim, b->k, b->k_at, dim, panels,
		       b->x->s, 12, SCORES(12));
		return;
	}
#endif
	switch (b->type) {
	case VQ_KV_F32: scores_as(VQ_KV_F32, b, rows, panels); break;
	case VQ_KV_F16: scores_as(VQ_KV_F16, b, rows, panels); break;
	case VQ_KV_I8: scores_as(VQ_KV_I8, b, rows, panels); break;
	}
}

INLINE void values_as(const enum vq_kv_type type, const struct block *b, uint32_t at, uint32_t n,
		      uint32_t rows, const float *a)
{
	size_t width = vq_keys_width(b->a->keys->dim);
	const float *p = b->x->s + (size_t)at * TILE;
	float *o = b->x->o + (b->first_row + at) * width;

	switch (rows) {
	case 6: values(type, p, b->v, b->v_at, width, n, a, o, 6, VALUES(6)); break;
	case 4: values(type, p, b->v, b->v_at, width, n, a, o, 4, VALUES(4)); break;
	case 2: values(type, p, b->v, b->v_at, width, n, a, o, 2, VALUES(2)); break;
	default: values(type, p, b->v, b->v_at, width, n, a, o, 1, VALUES(1));
	}
}

TARGET static void values_of(const struct block *b, uint32_t at, uint32_t n, uint32_t rows,
			     const float *a)
{
	switch (b->type) {
	case VQ_KV_F32: values_as(VQ_KV_F32, b, at, n, rows, a); break;
	case VQ_KV_F16: values_as(VQ_KV_F16, b, at, n, rows, a); break;
	case VQ_KV_I8: values_as(VQ_KV_I8, b, at, n, rows, a); break;
	}
}

/* The scores of a block's rows for n keys of the tile become factors of the values; a[r]: what the sums of row r so far
 * are to be multiplied with.  Each step for all rows before the next: within a row they wait for each other. */
INLINE void softmax(const struct block *b, uint32_t rows, uint32_t n, float a[PANEL])
{
	const struct vq_keys *h = b->a->keys;
	const float *k_scale = h->type == VQ_KV_I8 ? h->k_scale + b->first_key : NULL;
	const float *v_scale = h->type == VQ_KV_I8 ? h->v_scale + b->first_key : NULL;
	uint32_t panels = (n + PANEL - 1) / PANEL, seen[SCORE_ROWS], r;
	float *m = b->x->m + b->first_row, *l = b->x->l + b->first_row;
	float sum[SCORE_ROWS][PANEL];

	for (r = 0; r < PANEL; r++)
		a[r] = 0;
	for (r = 0; r < rows; r++) {
		uint32_t end = vq_attend_seen(b->a, b->first_row + r);
		float top;

		seen[r] = end < b->first_key ? 0 : end - b->first_key;
		seen[r] = seen[r] < n ? seen[r] : n;
		top = top_of(b->x->s + (size_t)r * TILE, seen[r], panels, k_scale, m[r]);
		a[r] = m[r] - top;
		m[r] = top;
	}
	for (r = 0; r < PANEL; r += LANES)
		STORE(a + r, exp2_of(LOAD(a + r)));
	for (r = 0; r < rows; r++)
		exp2_row(b->x->s + (size_t)r * TILE, m[r], seen[r], v_scale, sum[r]);
	for (r = 0; r < rows; r++) {
		a[r] = seen[r] ? a[r] : 1; /* not NaN where nothing was seen so far */
		l[r] = fmaf(l[r], a[r], sum_of(sum[r]));
	}
}

TARGET static void run_block(const struct block *b, uint32_t rows)
{
	uint32_t last = vq_attend_seen(b->a, b->first_row + rows - 1), n, r;
	float a[PANEL];

	if (last <= b->first_key)
		return;
	n = last - b->first_key < b->n_keys ? last - b->first_key : b->n_keys;
	scores_of(b, rows, (n + PANEL - 1) / PANEL);
	softmax(b, rows, n, a);
	for (r = 0; r < rows; r += rows < 6 ? rows : 6)
		values_of(b, r, n, rows < 6 ? rows : 6, a + r);
}

static uint32_t block_rows(uint32_t left)
{
	return left >= SCORE_ROWS ? SCORE_ROWS : left >= 6 ? 6 : left >= 4 ? 4 : left >= 2 ? 2 : 1;
}

static const float *query(const struct vq_attend *a, uint32_t row)
{
	return a->q + row / a->group * a->stride + (size_t)(row % a->group) * a->keys->dim;
}

/* Elements i .. i + 3 of four rows, times c, to places `stride` apart. */
INLINE void turn(const float *const q[4], size_t i, float c, float *to, size_t stride)
{
	four x[4], y[4];
	uint32_t r;

#pragma GCC unroll 4
	for (r = 0; r < 4; r++) {
		memcpy(&x[r], q[r] + i, sizeof(four));
		x[r] *= c;
	}
	y[0] = __builtin_shufflevector(x[0], x[2], 0, 4, 1, 5);
	y[1] = __builtin_shufflevector(x[0], x[2], 2, 6, 3, 7);
	y[2] = __builtin_shufflevector(x[1], x[3], 0, 4, 1, 5);
	y[3] = __builtin_shufflevector(x[1], x[3], 2, 6, 3, 7);
	x[0] = __builtin_shufflevector(y[0], y[2], 0, 4, 1, 5);
	x[1] = __builtin_shufflevector(y[0], y[2], 2, 6, 3, 7);
	x[2] = __builtin_shufflevector(y[1], y[3], 0, 4, 1, 5);
	x[3] = __builtin_shufflevector(y[1], y[3], 2, 6, 3, 7);
#pragma GCC unroll 4
	for (r = 0; r < 4; r++)
		memcpy(to + r * stride, &x[r], sizeof(four));
}

/* A block's rows to q [dim][rows]: in fours, and what is left of rows and of elements. */
INLINE void turn_block(const struct vq_attend *a, uint32_t row, uint32_t rows, float c, float *to)
{
	uint32_t dim = a->keys->dim, r, i;

	for (r = 0; r + 4 <= rows; r += 4) {
		const float *const q[4] = {query(a, row + r), query(a, row + r + 1),
					   query(a, row + r + 2), query(a, row + r + 3)};

		for (i = 0; i + 4 <= dim; i += 4)
			turn(q, i, c, to + (size_t)i * rows + r, rows);
	}
	for (r = 0; r < rows; r++) {
		const float *q = query(a, row + r);

		for (i = r < rows / 4 * 4 ? dim / 4 * 4 : 0; i < dim; i++)
			to[(size_t)i * rows + r] = q[i] * c;
	}
}

/* Queries scaled and turned, [dim][rows] a block; sums empty. */
TARGET static void begin(const struct vq_attend *a, const struct vq_attend_room *x)
{
	uint32_t dim = a->keys->dim, row, rows;
	float c = vq_attend_scale(dim);

	for (row = 0; row < a->n_rows; row += rows) {
		rows = block_rows(a->n_rows - row);
		turn_block(a, row, rows, c, x->q + (size_t)row * dim);
	}
	for (row = 0; row < a->n_rows; row++) {
		x->m[row] = -INFINITY;
		x->l[row] = 0;
	}
	memset(x->o, 0, (size_t)a->n_rows * vq_keys_width(dim) * sizeof(float));
}

TARGET static void finish(const struct vq_attend *a, const struct vq_attend_room *x)
{
	uint32_t dim = a->keys->dim, r, i;

	for (r = 0; r < a->n_rows; r++) {
		float *out = a->out + r / a->group * a->stride + (size_t)(r % a->group) * dim;
		const float *o = x->o + (size_t)r * vq_keys_width(dim), c = 1.0f / x->l[r];

		for (i = 0; i + LANES <= dim; i += LANES)
			STORE(out + i, MUL(LOAD(o + i), SET1(c)));
		for (; i < dim; i++)
			out[i] = o[i] * c;
	}
}

/* The tile's elements: where they are when few rows read them, or floats in the room. */
TARGET static void open_tile(struct block *b)
{
	const struct vq_keys *h = b->a->keys;
	size_t width = vq_keys_width(h->dim);
	size_t panels = (b->n_keys + PANEL - 1) / PANEL * PANEL;

	b->type = h->type;
	b->k = h->k;
	b->v = h->v;
	b->k_at = (size_t)b->first_key * h->dim;
	b->v_at = (size_t)b->first_key * width;
	if (h->type == VQ_KV_F32 || b->a->n_rows <= FEW)
		return;
	widen(h->type, h->k, b->k_at, panels * h->dim, b->x->k);
	widen(h->type, h->v, b->v_at, b->n_keys * width, b->x->v);
	b->type = VQ_KV_F32;
	b->k = b->x->k;
	b->v = b->x->v;
	b->k_at = b->v_at = 0;
}

TARGET static void attend(const struct vq_attend *a)
{
	struct vq_attend_room x = vq_attend_divide(a);
	uint32_t end = vq_attend_seen(a, a->n_rows - 1), rows;
	struct block b = {.a = a, .x = &x};

	begin(a, &x);
	for (; b.first_key < end; b.first_key += TILE) {
		b.n_keys = end - b.first_key < TILE ? end - b.first_key : TILE;
		open_tile(&b);
		for (b.first_row = 0; b.first_row < a->n_rows; b.first_row += rows) {
			rows = block_rows(a->n_rows - b.first_row);
			run_block(&b, rows);
		}
	}
	finish(a, &x);
}
