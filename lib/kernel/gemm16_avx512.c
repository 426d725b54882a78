/* Float products with AVX-512: a tile is one panel of 32 rows times up to 12 tokens, 24 sums. */
#if defined(__x86_64__)
#include "kernel/gemm16_avx512.h"

#define TARGET VQ_GEMM_TARGET
#define INLINE static inline __attribute__((always_inline))
#define TILE   12u
#define AHEAD  2048u /* bytes from what is read to what is asked for: a half more bandwidth */

/* 16 numbers, or those of mask, as float32. */
INLINE TARGET __m512i load_16(const uint8_t *w, enum vq_dtype type, __mmask16 mask)
{
	__m256i h;

	if (type == VQ_F32)
		return _mm512_maskz_loadu_epi32(mask, w);
	h = _mm256_maskz_loadu_epi16(mask, w);
	if (type == VQ_F16)
		return _mm512_castps_si512(_mm512_cvtph_ps(h));
	return _mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16);
}

INLINE TARGET void pack_rows(const uint8_t *w, const enum vq_dtype type, size_t stride, uint32_t n,
			     uint32_t n_in, float *out)
{
	const size_t size = type == VQ_F32 ? 4 : 2;
	uint32_t k, half, i;
	__m512i r[16];

	for (k = 0; k < n_in; k += 16, out += 16 * VQ_GEMM_ROWS)
		for (half = 0; half < VQ_GEMM_ROWS; half += 16) {
			__mmask16 mask = (__mmask16)vq_first(n_in - k, 16);

#pragma GCC unroll 16
			for (i = 0; i < 16; i++)
				r[i] = half + i < n ? load_16(w + size * ((half + i) * stride + k),
							      type, mask)
						    : _mm512_setzero_si512();
			vq_turn_16(r);
#pragma GCC unroll 16
			for (i = 0; i < 16; i++)
				_mm512_store_si512(out + (size_t)i * VQ_GEMM_ROWS + half, r[i]);
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

TARGET static void pack_x(const float *x, size_t stride, uint32_t n, uint32_t n_in, void *out)
{
	float *o = out;
	uint32_t k, i;
	__mmask16 tokens = (__mmask16)vq_first(n, 16);
	__m512i r[16];

	for (k = 0; k < n_in; k += 16) {
		uint32_t left = n_in - k < 16 ? n_in - k : 16;
		__mmask16 mask = (__mmask16)vq_first(left, 16);

		for (i = 0; i < 16; i++)
			r[i] = i < n ? _mm512_maskz_loadu_epi32(mask, x + i * stride + k)
				     : _mm512_setzero_si512();
		vq_turn_16(r);
		for (i = 0; i < left; i++, o += n)
			_mm512_mask_storeu_epi32(o, tokens, r[i]);
	}
}

INLINE TARGET void tile(const float *w, const float *x, uint32_t n_in, int first, float *c,
			const uint32_t n)
{
	__m512 sum[TILE][2];
	uint32_t k, t;

#pragma GCC unroll 12
	for (t = 0; t < n; t++) {
		sum[t][0] = first ? _mm512_setzero_ps() : _mm512_load_ps(c + t * VQ_GEMM_ROWS);
		sum[t][1] = first ? _mm512_setzero_ps() : _mm512_load_ps(c + t * VQ_GEMM_ROWS + 16);
	}
	for (k = 0; k < n_in; k++, w += VQ_GEMM_ROWS, x += n) {
		__m512 w0 = _mm512_load_ps(w), w1 = _mm512_load_ps(w + 16);

#pragma GCC unroll 12
		for (t = 0; t < n; t++) {
			__m512 b = _mm512_set1_ps(x[t]);

			sum[t][0] = _mm512_fmadd_ps(b, w0, sum[t][0]);
			sum[t][1] = _mm512_fmadd_ps(b, w1, sum[t][1]);
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
	switch (n) {
#define TOKENS(i) \
	case i: tile(w, x, n_in, first, c, i); break
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
	default: tile(w, x, n_in, first, c, 12); break;
#undef TOKENS
	}
}

/* A row times n tokens. */
INLINE TARGET void few_row(const uint8_t *w, const enum vq_dtype type, uint32_t n_in,
			   const float *x, size_t x_stride, const struct vq_gemm_out *o,
			   uint32_t row, const uint32_t n)
{
	const size_t size = type == VQ_F32 ? 4 : 2;
	__m512 lo[VQ_GEMM_FEW], hi[VQ_GEMM_FEW];
	uint32_t k, t;

#pragma GCC unroll 4
	for (t = 0; t < n; t++)
		lo[t] = hi[t] = _mm512_setzero_ps();
	for (k = 0; k + 32 <= n_in; k += 32) {
		_mm_prefetch((const char *)(w + size * k + AHEAD), _MM_HINT_T0);
		__m512 w0 = _mm512_castsi512_ps(load_16(w + size * k, type, 0xffff));
		__m512 w1 = _mm512_castsi512_ps(load_16(w + size * (k + 16), type, 0xffff));

#pragma GCC unroll 4
		for (t = 0; t < n; t++) {
			const float *xt = x + t * x_stride + k;

			lo[t] = _mm512_fmadd_ps(_mm512_loadu_ps(xt), w0, lo[t]);
			hi[t] = _mm512_fmadd_ps(_mm512_loadu_ps(xt + 16), w1, hi[t]);
		}
	}
	if (k < n_in) {
		__mmask16 m0 = (__mmask16)vq_first(n_in - k, 16),
			  m1 = (__mmask16)vq_first((int64_t)(n_in - k) - 16, 16);
		__m512 w0 = _mm512_castsi512_ps(load_16(w + size * k, type, m0));
		__m512 w1 = _mm512_castsi512_ps(load_16(w + size * (k + 16), type, m1));

#pragma GCC unroll 4
		for (t = 0; t < n; t++) {
			const float *xt = x + t * x_stride + k;

			lo[t] = _mm512_fmadd_ps(_mm512_maskz_loadu_ps(m0, xt), w0, lo[t]);
			hi[t] = _mm512_fmadd_ps(_mm512_maskz_loadu_ps(m1, xt + 16), w1, hi[t]);
		}
	}
#pragma GCC unroll 4
	for (t = 0; t < n; t++)
		vq_gemm_put(o, t, row, vq_sum_lanes(_mm512_add_ps(lo[t], hi[t])));
}

INLINE TARGET void few_rows(const uint8_t *w, const enum vq_dtype type, uint32_t n_in,
			    const float *x, size_t x_stride, const struct vq_gemm_out *o)
{
	const size_t size = type == VQ_F32 ? 4 : 2;
	uint32_t r;

	for (r = 0; r < o->n_rows; r++, w += size * n_in)
		switch (o->n_tokens) {
		case 1: few_row(w, type, n_in, x, x_stride, o, r, 1); break;
		case 2: few_row(w, type, n_in, x, x_stride, o, r, 2); break;
		case 3: few_row(w, type, n_in, x, x_stride, o, r, 3); break;
		default: few_row(w, type, n_in, x, x_stride, o, r, 4); break;
		}
}

TARGET static void few(const void *w, enum vq_dtype type, uint32_t n_in, const void *x,
		       size_t x_stride, const struct vq_gemm_out *o)
{
	if (type == VQ_F16)
		few_rows(w, VQ_F16, n_in, x, x_stride, o);
	else if (type == VQ_BF16)
		few_rows(w, VQ_BF16, n_in, x, x_stride, o);
	else
		few_rows(w, VQ_F32, n_in, x, x_stride, o);
}

VQ_GEMM_TARGET void vq_gemm_store_avx512(const struct vq_gemm_out *o, const float *c)
{
	__mmask16 m0 = (__mmask16)vq_first(o->n_rows, 16),
		  m1 = (__mmask16)vq_first((int64_t)o->n_rows - 16, 16);
	__m512 b0 = _mm512_setzero_ps(), b1 = b0;
	float *y = o->y;
	uint32_t t;

	if (o->bias) {
		b0 = _mm512_maskz_loadu_ps(m0, o->bias);
		b1 = _mm512_maskz_loadu_ps(m1, o->bias + 16);
	}
	for (t = 0; t < o->n_tokens; t++, y += o->stride, c += VQ_GEMM_ROWS) {
		__m512 v0 = _mm512_load_ps(c), v1 = _mm512_load_ps(c + 16);

		if (o->bias) {
			v0 = _mm512_add_ps(v0, b0);
			v1 = _mm512_add_ps(v1, b1);
		}
		if (o->add) {
			v0 = _mm512_add_ps(_mm512_maskz_loadu_ps(m0, y), v0);
			v1 = _mm512_add_ps(_mm512_maskz_loadu_ps(m1, y + 16), v1);
		}
		_mm512_mask_storeu_ps(y, m0, v0);
		_mm512_mask_storeu_ps(y + 16, m1, v1);
	}
}

static int runs(void)
{
	return 1; /* where the set runs */
}

const struct vq_gemm_kind vq_gemm_avx512 = {
	.runs = runs,
	.tile = TILE,
	.bytes = 4,
	.multiple = 1,
	.block = 256,
	.pack_x = pack_x,
	.pack_w = pack_w,
	.tile_fn = tile_fn,
	.store = vq_gemm_store_avx512,
	.few = few,
	.pack_few = NULL,
};
#else
typedef int vq_gemm16_avx512_unused;
#endif
