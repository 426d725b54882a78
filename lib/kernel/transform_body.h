/* The body of the transforms of one instruction set: included by transform_avx2.c, transform_avx512.c and transform_neon.c, which define
 * TARGET, VECTOR, its LANES, the operations on it, within() (the stages of vq_fwht inside of one vector) and COLUMNS
 * (vectors of six sums that fit into the registers). */
#include <math.h>
#include <string.h>

#include "kernel/transform_rows.h"

#define ROWS 6 /* sums at a time */

/* --- scale and Hadamard --- */

TARGET static void scaled(const float *x, const float *scale, uint32_t n, float *out)
{
	uint32_t i;

	for (i = 0; scale && i + LANES <= n; i += LANES)
		STORE(out + i, MUL(LOAD(x + i), LOAD(scale + i)));
	for (; scale && i < n; i++)
		out[i] = x[i] * scale[i];
	if (!scale && out != x)
		memcpy(out, x, n * sizeof(*out));
}

/* The stages h and 2h of a block; times norm. */
INLINE void two_stages(float *x, uint32_t block, uint32_t h, VECTOR norm)
{
	uint32_t i, j;

	for (i = 0; i < block; i += 4 * h)
		for (j = i; j < i + h; j += LANES) {
			VECTOR a = LOAD(x + j), b = LOAD(x + j + h), c = LOAD(x + j + 2 * h),
			       d = LOAD(x + j + 3 * h);
			VECTOR ab = ADD(a, b), cd = ADD(c, d);

			a = SUB(a, b);
			c = SUB(c, d);
			STORE(x + j, MUL(ADD(ab, cd), norm));
			STORE(x + j + h, MUL(ADD(a, c), norm));
			STORE(x + j + 2 * h, MUL(SUB(ab, cd), norm));
			STORE(x + j + 3 * h, MUL(SUB(a, c), norm));
		}
}

/* Stage h, the last of a block. */
INLINE void last_stage(float *x, uint32_t h, VECTOR norm)
{
	uint32_t j;

	for (j = 0; j < h; j += LANES) {
		VECTOR a = LOAD(x + j), b = LOAD(x + j + h);

		STORE(x + j, MUL(ADD(a, b), norm));
		STORE(x + j + h, MUL(SUB(a, b), norm));
	}
}

/* The block is a multiple of LANES; 1 is a norm that changes nothing. */
TARGET static void hadamard(const struct vq_transform *t, const float *x, float *out)
{
	const VECTOR one = SET1(1), norm = SET1((float)(1 / sqrt(t->block)));
	const uint32_t block = t->block;
	uint32_t b, i, h;

	for (b = 0; b < t->n; b += block) {
		float *y = out + b;

		for (i = 0; i < block; i += LANES) {
			VECTOR v = LOAD(x + b + i);

			v = within(t->scale ? MUL(v, LOAD(t->scale + b + i)) : v);
			STORE(y + i, block == LANES ? MUL(v, norm) : v);
		}
		for (h = LANES; 4 * h <= block; h *= 4)
			two_stages(y, block, h, 4 * h == block ? norm : one);
		if (h < block)
			last_stage(y, h, norm);
	}
}

/* --- a matrix a block --- */

/* n_rows rows of x [n_rows, block] times the columns of m [block, block] that begin at m, n_cols vectors of them.
 * n_rows and n_cols are constants at every call. */
INLINE void product(const float *x, uint32_t block, const float *m, float *out, uint32_t stride,
		    const int n_rows, const int n_cols)
{
	VECTOR sum[ROWS][COLUMNS], w[COLUMNS];
	uint32_t i;
	int r, c;

#pragma GCC unroll 6
	for (r = 0; r < n_rows; r++)
#pragma GCC unroll 4
		for (c = 0; c < n_cols; c++)
			sum[r][c] = SET1(0);
	for (i = 0; i < block; i++, m += block) {
#pragma GCC unroll 4
		for (c = 0; c < n_cols; c++)
			w[c] = LOAD(m + c * LANES);
#pragma GCC unroll 6
		for (r = 0; r < n_rows; r++) {
			VECTOR v = SET1(x[(size_t)r * block + i]);

#pragma GCC unroll 4
			for (c = 0; c < n_cols; c++)
				sum[r][c] = FMA(v, w[c], sum[r][c]);
		}
	}
#pragma GCC unroll 6
	for (r = 0; r < n_rows; r++)
#pragma GCC unroll 4
		for (c = 0; c < n_cols; c++)
			STORE(out + (size_t)r * stride + c * LANES, sum[r][c]);
}

#define PRODUCT(name, n_rows, n_cols)                                                       \
	TARGET static void name(const float *x, uint32_t block, const float *m, float *out, \
				uint32_t stride)                                            \
	{                                                                                   \
		product(x, block, m, out, stride, n_rows, n_cols);                          \
	}
PRODUCT(rows_columns, ROWS, COLUMNS)
PRODUCT(rows_column, ROWS, 1)
PRODUCT(row_columns, 1, COLUMNS)
PRODUCT(row_column, 1, 1)

/* The block is a multiple of LANES. */
TARGET static void matrices(const struct vq_transform *t, const float *x, size_t n_rows, float *out)
{
	float v[ROWS * VQ_TRANSFORM_BLOCK]; /* a copy, since out may be x */
	const uint32_t block = t->block;
	const float *m = t->matrix;
	uint32_t b, j;
	size_t r, k, n;

	for (b = 0; b < t->n; b += block, m += (size_t)block * block)
		for (r = 0; r < n_rows; r += n) {
			n = n_rows - r < ROWS ? 1 : ROWS;
			for (k = 0; k < n; k++)
				scaled(x + (r + k) * t->n + b, t->scale ? t->scale + b : NULL,
				       block, v + k * block);
			for (j = 0; j + COLUMNS * LANES <= block; j += COLUMNS * LANES)
				(n == 1 ? row_columns : rows_columns)(v, block, m + j,
								      out + r * t->n + b + j, t->n);
			for (; j < block; j += LANES)
				(n == 1 ? row_column : rows_column)(v, block, m + j,
								    out + r * t->n + b + j, t->n);
		}
}

TARGET static void transform(const struct vq_transform *t, const float *x, size_t n_rows,
			     float *out)
{
	size_t r;

	if (t->block % LANES != 0)
		vq_transform_generic(t, x, n_rows, out);
	else if (t->block && t->matrix)
		matrices(t, x, n_rows, out);
	else
		for (r = 0; r < n_rows; r++, x += t->n, out += t->n)
			if (t->block)
				hadamard(t, x, out);
			else
				scaled(x, t->scale, t->n, out);
}
