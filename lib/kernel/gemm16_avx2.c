/* Float products with AVX2, FMA and F16C: a panel of 32 rows is packed as two of 16, each met by up to 6 tokens: 12
 * sums in 16 registers. */
#if defined(__x86_64__)
#include "kernel/gemm16_rows.h"

#include <immintrin.h>
#include <string.h>

#define TARGET __attribute__((target("avx2,fma,f16c")))
#define INLINE static inline __attribute__((always_inline))
#define TILE   6u
#define HALF   16u /* rows of half a panel */

/* r[i] lane j <-> r[j] lane i. */
INLINE TARGET void turn_8(__m256 r[8])
{
	__m256 q[8]; /* q[4 g + j], half l: rows 4 g .. 4 g + 3 of column 4 l + j */
	int g, j;

#pragma GCC unroll 2
	for (g = 0; g < 2; g++) {
		__m256 a = _mm256_unpacklo_ps(r[4 * g], r[4 * g + 1]);
		__m256 b = _mm256_unpacklo_ps(r[4 * g + 2], r[4 * g + 3]);
		__m256 c = _mm256_unpackhi_ps(r[4 * g], r[4 * g + 1]);
		__m256 d = _mm256_unpackhi_ps(r[4 * g + 2], r[4 * g + 3]);

		q[4 * g] = _mm256_shuffle_ps(a, b, 0x44);
		q[4 * g + 1] = _mm256_shuffle_ps(a, b, 0xee);
		q[4 * g + 2] = _mm256_shuffle_ps(c, d, 0x44);
		q[4 * g + 3] = _mm256_shuffle_ps(c, d, 0xee);
	}
#pragma GCC unroll 4
	for (j = 0; j < 4; j++) {
		r[j] = _mm256_permute2f128_ps(q[j], q[4 + j], 0x20);
		r[4 + j] = _mm256_permute2f128_ps(q[j], q[4 + j], 0x31);
	}
}

/* Eight numbers, or the first n of them and zeros, as float32. */
INLINE TARGET __m256 load_8(const uint8_t *w, const enum vq_dtype type, uint32_t n)
{
	const size_t size = type == VQ_F32 ? 4 : 2;
	uint8_t few[32] = {0};
	__m128i h;

	if (n < 8) {
		memcpy(few, w, n * size);
		w = few;
	}
	if (type == VQ_F32)
		return _mm256_loadu_ps((const float *)(const void *)w);
	h = _mm_loadu_si128((const __m128i *)(const void *)w);
	if (type == VQ_F16)
		return _mm256_cvtph_ps(h);
	return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}

INLINE TARGET void pack_rows(const uint8_t *w, const enum vq_dtype type, size_t stride, uint32_t n,
			     uint32_t n_in, float *out)
{
	const size_t size = type == VQ_F32 ? 4 : 2;
	uint32_t k, r8, i;
	__m256 r[8];

	for (r8 = 0; r8 < VQ_GEMM_ROWS; r8 += 8) {
		float *o = out + (size_t)(r8 / HALF) * n_in * HALF + r8 % HALF;

		for (k = 0; k < n_in; k += 8) {
			uint32_t left = n_in - k < 8 ? n_in - k : 8;

			for (i = 0; i < 8; i++)
				r[i] = r8 + i < n ? load_8(w + size * ((r8 + i) * stride + k), type,
							   left)
						  : _mm256_setzero_ps();
			turn_8(r);
			for (i = 0; i < left; i++, o += HALF)
				_mm256_store_ps(o, r[i]);
		}
	}
}

TARGET static void pack_w(const void *w, enum vq_dtype type, size_t stride, uint32_t n,
			  uint32_t n_in, void *out)
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

/* 16 rows. */
INLINE TARGET void half_tile(const float *w, const float *x, uint32_t n_in, int first, float *c,
			     const uint32_t n)
{
	__m256 sum[TILE][2];
	uint32_t k, t;

#pragma GCC unroll 6
	for (t = 0; t < n; t++) {
		sum[t][0] = first ? _mm256_setzero_ps() : _mm256_load_ps(c + t * VQ_GEMM_ROWS);
		sum[t][1] = first ? _mm256_setzero_ps() : _mm256_load_ps(c + t * VQ_GEMM_ROWS + 8);
	}
	for (k = 0; k < n_in; k++, w += HALF, x += n) {
		__m256 w0 = _mm256_load_ps(w), w1 = _mm256_load_ps(w + 8);

#pragma GCC unroll 6
		for (t = 0; t < n; t++) {
			__m256 b = _mm256_broadcast_ss(x + t);

			sum[t][0] = _mm256_fmadd_ps(b, w0, sum[t][0]);
			sum[t][1] = _mm256_fmadd_ps(b, w1, sum[t][1]);
		}
	}
#pragma GCC unroll 6
	for (t = 0; t < n; t++) {
		_mm256_store_ps(c + t * VQ_GEMM_ROWS, sum[t][0]);
		_mm256_store_ps(c + t * VQ_GEMM_ROWS + 8, sum[t][1]);
	}
}

TARGET static void tile_fn(const void *w, const void *x, uint32_t n, uint32_t n_in, int first,
			   float *c)
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
TARGET static void store(const struct vq_gemm_out *o, const float *c)
{
	uint32_t t, r;

	for (t = 0; t < o->n_tokens; t++, c += VQ_GEMM_ROWS) {
		float *y = o->y + t * o->stride;

		for (r = 0; r + 8 <= o->n_rows; r += 8) {
			__m256 v = _mm256_load_ps(c + r);

			if (o->bias)
				v = _mm256_add_ps(v, _mm256_loadu_ps(o->bias + r));
			_mm256_storeu_ps(y + r,
					 o->add ? _mm256_add_ps(_mm256_loadu_ps(y + r), v) : v);
		}
		for (; r < o->n_rows; r++) {
			float v = o->bias ? c[r] + o->bias[r] : c[r];

			y[r] = o->add ? y[r] + v : v;
		}
	}
}

/* A row times a token, 32 sums. */
INLINE TARGET float dot(const uint8_t *w, const enum vq_dtype type, uint32_t n_in, const float *x)
{
	const size_t size = type == VQ_F32 ? 4 : 2;
	__m256 s[4];
	__m128 h;
	uint32_t k, i;

#pragma GCC unroll 4
	for (i = 0; i < 4; i++)
		s[i] = _mm256_setzero_ps();
	for (k = 0; k + 32 <= n_in; k += 32)
#pragma GCC unroll 4
		for (i = 0; i < 4; i++)
			s[i] = _mm256_fmadd_ps(_mm256_loadu_ps(x + k + 8 * i),
					       load_8(w + size * (k + 8 * i), type, 8), s[i]);
#pragma GCC unroll 4
	for (i = 0; i < 4; i++, k += 8) {
		uint32_t n = k >= n_in ? 0 : n_in - k < 8 ? n_in - k : 8;

		if (n)
			s[i] = _mm256_fmadd_ps(load_8((const uint8_t *)(x + k), VQ_F32, n),
					       load_8(w + size * k, type, n), s[i]);
	}
	s[0] = _mm256_add_ps(_mm256_add_ps(s[0], s[2]), _mm256_add_ps(s[1], s[3]));
	h = _mm_add_ps(_mm256_castps256_ps128(s[0]), _mm256_extractf128_ps(s[0], 1));
	h = _mm_add_ps(h, _mm_movehl_ps(h, h));
	return _mm_cvtss_f32(_mm_add_ss(h, _mm_movehdup_ps(h)));
}

#include "kernel/gemm16_few.h"

static int runs(void)
{
	return 1; /* where the set runs */
}

const struct vq_gemm_kind vq_gemm_avx2 = {
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
#else
typedef int vq_gemm16_avx2_unused;
#endif
