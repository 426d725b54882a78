/* Blocks of GGUF files as numbers. */
#include "format/ggml_read.h"

#include <string.h>

#include "base/num.h"
#include "format/ggml_block.h"

static float half(const uint8_t *p)
{
	uint16_t h;

	memcpy(&h, p, sizeof(h));
	return vq_f16_to_f32(h);
}

/* --- blocks of 32 --- */

/* Codes of 16 bytes: low nibbles, then high ones; h, when not NULL: 32 more bits above them. */
static void nibbles(const uint8_t *q, const uint8_t *h, uint8_t *u)
{
	uint32_t bits = 0, j;

	if (h)
		memcpy(&bits, h, sizeof(bits));
	for (j = 0; j < 16; j++) {
		u[j] = (uint8_t)((q[j] & 15) | (bits >> j & 1) << 4);
		u[j + 16] = (uint8_t)(q[j] >> 4 | (bits >> (j + 16) & 1) << 4);
	}
}

static void around(const uint8_t *u, float d, int zero, float *x)
{
	uint32_t j;

	for (j = 0; j < VQ_GGML_BLOCK; j++)
		x[j] = (float)(u[j] - zero) * d;
}

static void above(const uint8_t *u, float d, float m, float *x)
{
	uint32_t j;

	for (j = 0; j < VQ_GGML_BLOCK; j++)
		x[j] = (float)u[j] * d + m;
}

static void q8_0(const uint8_t *b, float *x)
{
	const float d = half(b);
	uint32_t j;

	for (j = 0; j < VQ_GGML_BLOCK; j++)
		x[j] = (float)(int8_t)b[2 + j] * d;
}

/* --- super-blocks --- */

/* Codes of 2 bits in 64 bytes: twice 32 bytes, and in each all lowest bits first. */
static void pairs(const uint8_t *q, uint8_t *u)
{
	uint32_t i;

	for (i = 0; i < VQ_GGML_SUPER; i++)
		u[i] = q[i / 128 * 32 + i % 32] >> i % 128 / 32 * 2 & 3;
}

/* Codes of 4 bits in 128 bytes: four times 32 bytes, low nibbles first. */
static void fours(const uint8_t *q, uint8_t *u)
{
	uint32_t i;

	for (i = 0; i < VQ_GGML_SUPER; i++)
		u[i] = q[i / 64 * 32 + i % 32] >> i % 64 / 32 * 4 & 15;
}

static void q2_k(const uint8_t *b, float *x)
{
	const float d = half(b + 80), dmin = half(b + 82);
	uint8_t u[VQ_GGML_SUPER];
	uint32_t i;

	pairs(b + 16, u);
	for (i = 0; i < VQ_GGML_SUPER; i++)
		x[i] = d * (float)(b[i / 16] & 15) * (float)u[i] - dmin * (float)(b[i / 16] >> 4);
}

static void q3_k(const uint8_t *b, float *x)
{
	const uint8_t *s = b + 96;
	const float d = half(b + 108);
	uint8_t u[VQ_GGML_SUPER];
	float scale[16];
	uint32_t i;

	pairs(b + 32, u);
	for (i = 0; i < 16; i++)
		scale[i] = d * (float)((int)((i < 8 ? s[i] & 15 : s[i - 8] >> 4) |
					     (s[8 + i % 4] >> i / 4 * 2 & 3) << 4) -
				       32);
	for (i = 0; i < VQ_GGML_SUPER; i++)
		x[i] = scale[i / 16] * (float)(u[i] - (b[i % 32] >> i / 32 & 1 ? 0 : 4));
}

/* Eight scales and eight minima of 6 bits in 12 bytes. */
static void scales_6(const uint8_t *q, uint8_t *s, uint8_t *m)
{
	uint32_t j;

	for (j = 0; j < 4; j++) {
		s[j] = q[j] & 63;
		m[j] = q[j + 4] & 63;
		s[j + 4] = (uint8_t)((q[j + 8] & 15) | q[j] >> 6 << 4);
		m[j + 4] = (uint8_t)(q[j + 8] >> 4 | q[j + 4] >> 6 << 4);
	}
}

/* high: 32 bytes whose bit k is above the codes of part k; or NULL. */
static void q45_k(const uint8_t *b, const uint8_t *high, const uint8_t *low, float *x)
{
	const float d = half(b), dmin = half(b + 2);
	uint8_t u[VQ_GGML_SUPER], s[8], m[8];
	uint32_t i;

	fours(low, u);
	scales_6(b + 4, s, m);
	if (high)
		for (i = 0; i < VQ_GGML_SUPER; i++)
			u[i] |= (uint8_t)((high[i % 32] >> i / 32 & 1) << 4);
	for (i = 0; i < VQ_GGML_SUPER; i++)
		x[i] = d * (float)s[i / 32] * (float)u[i] - dmin * (float)m[i / 32];
}

static void q6_k(const uint8_t *b, float *x)
{
	const uint8_t *high = b + 128, *s = b + 192;
	const float d = half(b + 208);
	uint32_t i, low, up;

	for (i = 0; i < VQ_GGML_SUPER; i++) {
		low = b[i / 128 * 64 + i % 64] >> i % 128 / 64 * 4 & 15;
		up = high[i / 128 * 32 + i % 32] >> i % 128 / 32 * 2 & 3;
		x[i] = d * (float)(int8_t)s[i / 16] * (float)((int)(low | up << 4) - 32);
	}
}

/* --- all --- */

int vq_ggml_has_values(uint32_t type)
{
	switch (type) {
	case VQ_GGML_Q4_0:
	case VQ_GGML_Q4_1:
	case VQ_GGML_Q5_0:
	case VQ_GGML_Q5_1:
	case VQ_GGML_Q8_0:
	case VQ_GGML_Q2_K:
	case VQ_GGML_Q3_K:
	case VQ_GGML_Q4_K:
	case VQ_GGML_Q5_K:
	case VQ_GGML_Q6_K: return 1;
	default: return 0;
	}
}

void vq_ggml_values(uint32_t type, const uint8_t *b, float *x)
{
	uint8_t u[VQ_GGML_BLOCK];

	switch (type) {
	case VQ_GGML_Q4_0:
		nibbles(b + 2, NULL, u);
		around(u, half(b), 8, x);
		break;
	case VQ_GGML_Q4_1:
		nibbles(b + 4, NULL, u);
		above(u, half(b), half(b + 2), x);
		break;
	case VQ_GGML_Q5_0:
		nibbles(b + 6, b + 2, u);
		around(u, half(b), 16, x);
		break;
	case VQ_GGML_Q5_1:
		nibbles(b + 8, b + 4, u);
		above(u, half(b), half(b + 2), x);
		break;
	case VQ_GGML_Q8_0: q8_0(b, x); break;
	case VQ_GGML_Q2_K: q2_k(b, x); break;
	case VQ_GGML_Q3_K: q3_k(b, x); break;
	case VQ_GGML_Q4_K: q45_k(b, NULL, b + 16, x); break;
	case VQ_GGML_Q5_K: q45_k(b, b + 16, b + 48, x); break;
	case VQ_GGML_Q6_K: q6_k(b, x); break;
	default: break;
	}
}

int vq_ggml_halves(uint32_t type, const uint8_t *blocks, size_t n, uint16_t *h)
{
	const struct vq_ggml_layout *l = vq_ggml_layout(type);
	float x[VQ_GGML_SUPER];
	int fine = 1;
	size_t i, j;

	for (i = 0; i < n; i++, h += l->n) {
		vq_ggml_values(type, blocks + i * l->bytes, x);
		vq_f32_to_f16_n(h, x, l->n);
		for (j = 0; j < l->n; j++)
			fine &= (h[j] & 0x7c00) != 0x7c00;
	}
	return fine;
}
