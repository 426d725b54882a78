/* Products of bfloat16 with AVX-512 BF16.
 *
 * vdpbf16ps adds the products of two inputs to each of 16 float32 lanes.  A tile is one panel of 32 rows (two registers of
 * weights) times up to 12 tokens, 24 sums, so that the cost of loads is spread over 24 products a step; an
 * input's pair for a token is one 32-bit word that is broadcast as it is loaded. */
#if defined(__x86_64__)
#include "kernel/gemm16_avx512.h"

#define TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")))
#define INLINE static inline __attribute__((always_inline))
#define TILE   12u
#define AHEAD  2048u /* bytes from what is read to what is asked for: a half more bandwidth */

INLINE TARGET __m512i round_32(__m512 lo, __m512 hi)
{
	return (__m512i)_mm512_cvtne2ps_pbh(hi, lo);
}

/* 32 numbers, or those of mask. */
INLINE TARGET __m512i load_32(const uint8_t *w, const int f16, const int whole, __mmask32 mask)
{
	__m512i v = whole ? _mm512_loadu_si512(w) : _mm512_maskz_loadu_epi16(mask, w);

	if (!f16)
		return v;
	return round_32(_mm512_cvtph_ps(_mm512_castsi512_si256(v)),
			_mm512_cvtph_ps(_mm512_extracti64x4_epi64(v, 1)));
}

/* 32 inputs of 16 rows. */
INLINE TARGET void pack_16(const uint8_t *w, size_t bytes, int64_t n, const int f16,
			   const int whole, __mmask32 mask, uint32_t *out)
{
	__m512i r[16];
	int i;

#pragma GCC unroll 16
	for (i = 0; i < 16; i++)
		r[i] = whole   ? load_32(w + i * bytes, f16, 1, 0)
		       : i < n ? load_32(w + i * bytes, f16, 0, mask)
			       : _mm512_setzero_si512();
	vq_turn_16(r);
#pragma GCC unroll 16
	for (i = 0; i < 16; i++)
		_mm512_store_si512(out + (size_t)i * VQ_GEMM_ROWS, r[i]);
}

INLINE TARGET void pack_rows(const uint8_t *w, const int f16, size_t stride, uint32_t n,
			     uint32_t n_in, uint32_t *out)
{
	uint32_t k, half;

	for (k = 0; k < n_in; k += 32, out += 16 * VQ_GEMM_ROWS)
		for (half = 0; half < 32; half += 16) {
			const uint8_t *at = w + 2 * (half * stride + k);

			if (n == VQ_GEMM_ROWS && n_in - k >= 32)
				pack_16(at, 2 * stride, 16, f16, 1, 0, out + half);
			else
				pack_16(at, 2 * stride, (int64_t)n - half, f16, 0,
					vq_first(n_in - k, 32), out + half);
		}
}

TARGET static void pack_w(const void *w, enum vq_dtype type, size_t stride, uint32_t n,
			  uint32_t n_in, void *out)
{
	if (type == VQ_F16)
		pack_rows(w, 1, stride, n, n_in, out);
	else
		pack_rows(w, 0, stride, n, n_in, out);
}

TARGET static void pack_x(const float *x, size_t stride, uint32_t n, uint32_t n_in, void *out)
{
	uint32_t *o = out, k, i;
	__mmask16 tokens = (__mmask16)vq_first(n, 16);
	__m512i r[16];

	for (k = 0; k < n_in; k += 32) {
		uint32_t left = n_in - k, pairs = left >= 32 ? 16 : (left + 1) / 2;
		__mmask16 lo = (__mmask16)vq_first(left, 16),
			  hi = (__mmask16)vq_first((int64_t)left - 16, 16);

		for (i = 0; i < 16; i++)
			r[i] = i < n ? round_32(_mm512_maskz_loadu_ps(lo, x + i * stride + k),
						_mm512_maskz_loadu_ps(hi, x + i * stride + k + 16))
				     : _mm512_setzero_si512();
		vq_turn_16(r);
		for (i = 0; i < pairs; i++, o += n)
			_mm512_mask_storeu_epi32(o, tokens, r[i]);
	}
}

INLINE TARGET void tile(const uint32_t *w, const uint32_t *x, uint32_t n_pairs, int first, float *c,
			const uint32_t n)
{
	__m512 sum[TILE][2];
	uint32_t k, t;

#pragma GCC unroll 12
	for (t = 0; t < n; t++) {
		sum[t][0] = first ? _mm512_setzero_ps() : _mm512_load_ps(c + t * VQ_GEMM_ROWS);
		sum[t][1] = first ? _mm512_setzero_ps() : _mm512_load_ps(c + t * VQ_GEMM_ROWS + 16);
	}
	for (k = 0; k < n_pairs; k++, w += VQ_GEMM_ROWS, x += n) {
		__m512bh w0 = (__m512bh)_mm512_load_si512(w),
			 w1 = (__m512bh)_mm512_load_si512(w + 16);

#pragma GCC unroll 12
		for (t = 0; t < n; t++) {
			__m512bh b = (__m512bh)_mm512_set1_epi32((int)x[t]);

			sum[t][0] = _mm512_dpbf16_ps(sum[t][0], w0, b);
			sum[t][1] = _mm512_dpbf16_ps(sum[t][1], w1, b);
		}
	}
#pragma GCC unroll 12
	for (t = 0; t < n; t++) {
		_mm512_store_ps(c + t * VQ_GEMM_ROWS, sum[t][0]);
		_mm512_store_ps(c + t * VQ_GEMM_ROWS + 16, sum[t][1]);
	}
}

TARGET static void tile_fn(const void *w, const void *x, uint32_t n, uint32_t n_in, int first,
			   float *c)
{
	uint32_t pairs = n_in / 2;

	switch (n) {
#define TOKENS(i) \
	case i: tile(w, x, pairs, first, c, i); break
		TOKENS(1);
		TOKENS(2);
		TOKENS(3);
		TOKENS(4);
		TOKENS(5);
		TOKENS(6);
		TOKENS(7);
		TOKENS(8);
		TOKENS(9);
		TOKENS(10);
		TOKENS(11);
	default: tile(w, x, pairs, first, c, 12); break;
#undef TOKENS
	}
}

TARGET static void pack_few(const float *x, uint32_t n_in, void *out)
{
	uint16_t *o = out;
	uint32_t k;

	for (k = 0; k < n_in; k += 32) {
		__mmask16 lo = (__mmask16)vq_first(n_in - k, 16),
			  hi = (__mmask16)vq_first((int64_t)(n_in - k) - 16, 16);

		_mm512_storeu_si512(o + k, round_32(_mm512_maskz_loadu_ps(lo, x + k),
						    _mm512_maskz_loadu_ps(hi, x + k + 16)));
	}
}

/* A row times n tokens. */
INLINE TARGET void few_row(const uint8_t *w, const int f16, uint32_t n_in, const uint16_t *x,
			   size_t x_stride, const struct vq_gemm_out *o, uint32_t row,
			   const uint32_t n)
{
	__m512 sum[VQ_GEMM_FEW];
	uint32_t k, t;

#pragma GCC unroll 4
	for (t = 0; t < n; t++)
		sum[t] = _mm512_setzero_ps();
	for (k = 0; k < n_in; k += 32) {
		_mm_prefetch((const char *)(w + 2 * k + AHEAD), _MM_HINT_T0);
		__m512bh v = (__m512bh)(n_in - k >= 32 ? load_32(w + 2 * k, f16, 1, 0)
						       : load_32(w + 2 * k, f16, 0,
								 vq_first(n_in - k, 32)));

#pragma GCC unroll 4
		for (t = 0; t < n; t++)
			sum[t] = _mm512_dpbf16_ps(
				sum[t], v, (__m512bh)_mm512_loadu_si512(x + t * x_stride + k));
	}
#pragma GCC unroll 4
	for (t = 0; t < n; t++)
		vq_gemm_put(o, t, row, vq_sum_lanes(sum[t]));
}

INLINE TARGET void few_rows(const uint8_t *w, const int f16, uint32_t n_in, const uint16_t *x,
			    size_t x_stride, const struct vq_gemm_out *o)
{
	uint32_t r;

	for (r = 0; r < o->n_rows; r++, w += 2 * (size_t)n_in)
		switch (o->n_tokens) {
		case 1: few_row(w, f16, n_in, x, x_stride, o, r, 1); break;
		case 2: few_row(w, f16, n_in, x, x_stride, o, r, 2); break;
		case 3: few_row(w, f16, n_in, x, x_stride, o, r, 3); break;
		default: few_row(w, f16, n_in, x, x_stride, o, r, 4); break;
		}
}

TARGET static void few(const void *w, enum vq_dtype type, uint32_t n_in, const void *x,
		       size_t x_stride, const struct vq_gemm_out *o)
{
	if (type == VQ_F16)
		few_rows(w, 1, n_in, x, x_stride, o);
	else
		few_rows(w, 0, n_in, x, x_stride, o);
}

static int runs(void)
{
	return __builtin_cpu_supports("avx512bf16") != 0;
}

const struct vq_gemm_kind vq_gemm_avx512bf16 = {
	.runs = runs,
	.tile = TILE,
	.bytes = 2,
	.multiple = 2,
	.block = 512,
	.pack_x = pack_x,
	.pack_w = pack_w,
	.tile_fn = tile_fn,
	.store = vq_gemm_store_avx512,
	.few = few,
	.pack_few = pack_few,
};
#else
typedef int vq_gemm16_avx512bf16_unused;
#endif
