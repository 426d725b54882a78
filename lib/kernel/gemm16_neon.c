/* Float products with NEON: a panel of 32 rows is packed as two of 16, each met by up to 6 tokens: 24 sums in 32
 * registers. */
#if defined(__aarch64__)
#include "kernel/gemm16_rows.h"

#include <arm_neon.h>
#include <string.h>

#define TARGET /* the base set */
#define INLINE static inline __attribute__((always_inline))
#define TILE   6u
#define HALF   16u /* rows of half a panel */
#define VECS   4   /* registers of these */

/* r[i] lane j <-> r[j] lane i. */
INLINE void turn_4(float32x4_t r[4])
{
	float64x2_t a = vreinterpretq_f64_f32(vtrn1q_f32(r[0], r[1]));
	float64x2_t b = vreinterpretq_f64_f32(vtrn2q_f32(r[0], r[1]));
	float64x2_t c = vreinterpretq_f64_f32(vtrn1q_f32(r[2], r[3]));
	float64x2_t d = vreinterpretq_f64_f32(vtrn2q_f32(r[2], r[3]));

	r[0] = vreinterpretq_f32_f64(vtrn1q_f64(a, c));
	r[1] = vreinterpretq_f32_f64(vtrn1q_f64(b, d));
	r[2] = vreinterpretq_f32_f64(vtrn2q_f64(a, c));
	r[3] = vreinterpretq_f32_f64(vtrn2q_f64(b, d));
}

/* Four numbers, or the first n of them and zeros, as float32. */
INLINE float32x4_t load_4(const uint8_t *w, const enum vq_dtype type, uint32_t n)
{
	const size_t size = type == VQ_F32 ? 4 : 2;
	uint8_t few[16] = {0};
	uint16x4_t h;

	if (n < 4) {
		memcpy(few, w, n * size);
		w = few;
	}
	if (type == VQ_F32)
		return vreinterpretq_f32_u8(vld1q_u8(w));
	h = vreinterpret_u16_u8(vld1_u8(w));
	if (type == VQ_F16)
		return vcvt_f32_f16(vreinterpret_f16_u16(h));
	return vreinterpretq_f32_u32(vshlq_n_u32(vmovl_u16(h), 16));
}

INLINE void pack_rows(const uint8_t *w, const enum vq_dtype type, size_t stride, uint32_t n,
		      uint32_t n_in, float *out)
{
	const size_t size = type == VQ_F32 ? 4 : 2;
	uint32_t k, r4, i;
	float32x4_t r[4];

	for (r4 = 0; r4 < VQ_GEMM_ROWS; r4 += 4) {
		float *o = out + (size_t)(r4 / HALF) * n_in * HALF + r4 % HALF;

		for (k = 0; k < n_in; k += 4) {
			uint32_t left = n_in - k < 4 ? n_in - k : 4;

			for (i = 0; i < 4; i++)
				r[i] = r4 + i < n ? load_4(w + size * ((r4 + i) * stride + k), type,
							   left)
						  : vdupq_n_f32(0);
			turn_4(r);
			for (i = 0; i < left; i++, o += HALF)
				vst1q_f32(o, r[i]);
		}
	}
}

static void pack_w(const void *w, enum vq_dtype type, size_t stride, uint32_t n, uint32_t n_in,
		   void *out)
{
	if (type == VQ_F16)
		pack_rows(w, VQ_F16, stride, n, n_in, out);
	else if (type == VQ_BF16)
		pack_rows(w, VQ_BF16, stride, n, n_in, out);
	else
		pack_rows(w, VQ_F32, stride, n, n_in, out);
}

static void pack_x(const float *x, size_t stride, uint32_t n, uint32_t n_in, void *out)
{
	float *o = out;
	uint32_t t, k;

	for (k = 0; k < n_in; k++)
		for (t = 0; t < n; t++)
			*o++ = x[t * stride + k];
}

/* 16 rows times n tokens, a constant. */
INLINE void half_tile(const float *w, const float *x, uint32_t n_in, int first, float *c,
		      const uint32_t n)
{
	float32x4_t sum[TILE][VECS], v[VECS];
	uint32_t k, t;
	int i;

#pragma GCC unroll 6
	for (t = 0; t < n; t++)
#pragma GCC unroll 4
		for (i = 0; i < VECS; i++)
			sum[t][i] =
				first ? vdupq_n_f32(0) : vld1q_f32(c + t * VQ_GEMM_ROWS + 4 * i);
	for (k = 0; k < n_in; k++, w += HALF, x += n) {
#pragma GCC unroll 4
		for (i = 0; i < VECS; i++)
			v[i] = vld1q_f32(w + 4 * i);
#pragma GCC unroll 6
		for (t = 0; t < n; t++)
#pragma GCC unroll 4
			for (i = 0; i < VECS; i++)
				sum[t][i] = vfmaq_n_f32(sum[t][i], v[i], x[t]);
	}
#pragma GCC unroll 6
	for (t = 0; t < n; t++)
#pragma GCC unroll 4
		for (i = 0; i < VECS; i++)
			vst1q_f32(c + t * VQ_GEMM_ROWS + 4 * i, sum[t][i]);
}

static void tile_fn(const void *w, const void *x, uint32_t n, uint32_t n_in, int first, float *c)
{
	uint32_t half;

	for (half = 0; half < 2; half++, c += HALF) {
		const float *wh = (const float *)w + (size_t)half * n_in * HALF;

		switch (n) {
		case 1: half_tile(wh, x, n_in, first, c, 1); break;
		case 2: half_tile(wh, x, n_in, first, c, 2); break;
		case 3: half_tile(wh, x, n_in, first, c, 3); break;
		case 4: half_tile(wh, x, n_in, first, c, 4); break;
		case 5: half_tile(wh, x, n_in, first, c, 5); break;
		default: half_tile(wh, x, n_in, first, c, 6); break;
		}
	}
}

/* The last panel may be short: its row by row. */
static void store(const struct vq_gemm_out *o, const float *c)
{
	uint32_t t, r;

	for (t = 0; t < o->n_tokens; t++, c += VQ_GEMM_ROWS) {
		float *y = o->y + t * o->stride;

		for (r = 0; r + 4 <= o->n_rows; r += 4) {
			float32x4_t v = vld1q_f32(c + r);

			if (o->bias)
				v = vaddq_f32(v, vld1q_f32(o->bias + r));
			vst1q_f32(y + r, o->add ? vaddq_f32(vld1q_f32(y + r), v) : v);
		}
		for (; r < o->n_rows; r++)
			vq_gemm_put(o, t, r, c[r]);
	}
}

/* A row times a token, 32 sums. */
INLINE float dot(const uint8_t *w, const enum vq_dtype type, uint32_t n_in, const float *x)
{
	const size_t size = type == VQ_F32 ? 4 : 2;
	float32x4_t s[8];
	float32x2_t h;
	uint32_t k;
	int i;

#pragma GCC unroll 8
	for (i = 0; i < 8; i++)
		s[i] = vdupq_n_f32(0);
	for (k = 0; k + 32 <= n_in; k += 32)
#pragma GCC unroll 8
		for (i = 0; i < 8; i++)
			s[i] = vfmaq_f32(s[i], vld1q_f32(x + k + 4 * i),
					 load_4(w + size * (k + 4 * (uint32_t)i), type, 4));
#pragma GCC unroll 8
	for (i = 0; i < 8; i++, k += 4) {
		uint32_t n = k >= n_in ? 0 : n_in - k < 4 ? n_in - k : 4;

		if (n)
			s[i] = vfmaq_f32(s[i], load_4((const uint8_t *)(x + k), VQ_F32, n),
					 load_4(w + size * k, type, n));
	}
#pragma GCC unroll 4
	for (i = 0; i < 4; i++)
		s[i] = vaddq_f32(s[i], s[i + 4]);
	s[0] = vaddq_f32(vaddq_f32(s[0], s[2]), vaddq_f32(s[1], s[3]));
	h = vadd_f32(vget_low_f32(s[0]), vget_high_f32(s[0]));
	return vget_lane_f32(h, 0) + vget_lane_f32(h, 1);
}

#include "kernel/gemm16_few.h"

static int runs(void)
{
	return 1;
}

const struct vq_gemm_kind vq_gemm_neon = {
	.runs = runs,
	.tile = TILE,
	.bytes = 4,
	.multiple = 1,
	.block = 256,
	.pack_x = pack_x,
	.pack_w = pack_w,
	.tile_fn = tile_fn,
	.store = store,
	.few = few,
	.pack_few = NULL,
};
#endif
