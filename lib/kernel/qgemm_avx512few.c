/* Integer products of a few tokens (decoding) with AVX-512 VNNI: everything happens in registers in one pass over the
 * planes, for there the weights are read from memory and each byte counts. */
#if defined(__x86_64__)
#include "kernel/qgemm_avx512.h"

/* A whole panel times nt tokens in one pass over its planes: sums su too, looks codes up in the table.  nt, bits and
 * table are constants at every call. */
INLINE TARGET void few_tokens(const struct vq_tile_plan *pl, uint32_t panel, float *y,
			      const uint32_t nt, const uint32_t bits, const int table)
{
	const uint32_t n_segs = pl->p->n_segs, w_every = pl->p->w_every;
	const __m512i one = _mm512_set1_epi8(1);
	struct vq_tile_acts a = vq_tile_acts_at(pl, 0, n_segs, 0);
	struct vq_tile_segment g = vq_tile_segment_of(pl, panel, 0);
	const __m512i values = table ? table_of(g.byte) : one;
	uint32_t s, k, t, same = 0, left = pl->n_steps, n;
	__m512i z0, z1;
	__m512 sum[VQ_FEW][2], s0, s1;

#pragma GCC unroll 4
	for (t = 0; t < nt; t++)
		sum[t][0] = sum[t][1] = _mm512_setzero_ps();
	for (s = 0; s < n_segs; s++, left -= n, a.c += nt, a.s += nt) {
		__m512i acc[VQ_FEW][2], u0 = _mm512_setzero_si512(), u1 = u0;

		n = left < pl->seg_steps ? left : pl->seg_steps;
#pragma GCC unroll 4
		for (t = 0; t < nt; t++)
			acc[t][0] = acc[t][1] = _mm512_setzero_si512();
		for (k = 0; k < n; k++, a.q += nt, g.w += 16 * bits) {
			__m512i w0, w1;

			codes_of(bits, g.w, &w0, &w1);
			if (table) {
				w0 = _mm512_shuffle_epi8(values, w0);
				w1 = _mm512_shuffle_epi8(values, w1);
			}
			DPBUSD(u0, w0, one);
			DPBUSD(u1, w1, one);
#pragma GCC unroll 4
			for (t = 0; t < nt; t++) {
				__m512i v = _mm512_set1_epi32(a.q[t]);

				DPBUSD(acc[t][0], w0, v);
				DPBUSD(acc[t][1], w1, v);
			}
		}
		if (same == 0) {
			zeros_of(g.zero, g.half, &z0, &z1);
			scales_of(&g, table, &s0, &s1);
			g.zero = g.zero ? g.zero + VQ_PANEL : NULL;
			if (table)
				g.absmax += VQ_PANEL;
			else
				g.scale += VQ_PANEL;
		}
		same = same + 1 < w_every ? same + 1 : 0;
#pragma GCC unroll 4
		for (t = 0; t < nt; t++) {
			__m512i ct = _mm512_set1_epi32(a.c[t]), dt;
			__m512 st = _mm512_set1_ps(a.s[t]);

			if (a.d) {
				dt = _mm512_set1_epi32(a.d[t]);
			} else { /* apart again: two products cost little here */
				dt = _mm512_srai_epi32(ct, 16);
				ct = _mm512_srai_epi32(_mm512_slli_epi32(ct, 16), 16);
			}
			acc[t][0] = _mm512_add_epi32(acc[t][0],
						     _mm512_add_epi32(_mm512_mullo_epi32(z0, ct),
								      _mm512_mullo_epi32(u0, dt)));
			acc[t][1] = _mm512_add_epi32(acc[t][1],
						     _mm512_add_epi32(_mm512_mullo_epi32(z1, ct),
								      _mm512_mullo_epi32(u1, dt)));
			sum[t][0] = _mm512_fmadd_ps(_mm512_mul_ps(st, s0),
						    _mm512_cvtepi32_ps(acc[t][0]), sum[t][0]);
			sum[t][1] = _mm512_fmadd_ps(_mm512_mul_ps(st, s1),
						    _mm512_cvtepi32_ps(acc[t][1]), sum[t][1]);
		}
		a.d = a.d ? a.d + nt : NULL;
	}
#pragma GCC unroll 4
	for (t = 0; t < nt; t++) {
		_mm512_store_ps(y + t * VQ_PANEL, sum[t][0]);
		_mm512_store_ps(y + t * VQ_PANEL + 16, sum[t][1]);
	}
}

typedef void few_fn(const struct vq_tile_plan *pl, uint32_t panel, float *y);

#define FEW_FN(name, nt, bits, table)                                                           \
	TARGET static void name##_##nt(const struct vq_tile_plan *pl, uint32_t panel, float *y) \
	{                                                                                       \
		few_tokens(pl, panel, y, nt, bits, table);                                      \
	}
#define FEW_FNS(name, bits, table)   \
	FEW_FN(name, 1, bits, table) \
	FEW_FN(name, 2, bits, table) \
	FEW_FN(name, 3, bits, table) \
	FEW_FN(name, 4, bits, table)
FEW_FNS(few2, 2, 0)
FEW_FNS(few3, 3, 0)
FEW_FNS(few4, 4, 0)
FEW_FNS(few5, 5, 0)
FEW_FNS(few6, 6, 0)
FEW_FNS(few7, 7, 0)
FEW_FNS(few8, 8, 0)
FEW_FNS(few_values2, 2, 1)
FEW_FNS(few_values3, 3, 1)
FEW_FNS(few_values4, 4, 1)

#define ROW_4(n) n##_1, n##_2, n##_3, n##_4

static few_fn *const few[7][VQ_FEW] = {{ROW_4(few2)}, {ROW_4(few3)}, {ROW_4(few4)}, {ROW_4(few5)},
				       {ROW_4(few6)}, {ROW_4(few7)}, {ROW_4(few8)}};
static few_fn *const few_values[3][VQ_FEW] = {
	{ROW_4(few_values2)}, {ROW_4(few_values3)}, {ROW_4(few_values4)}};

void vq_qgemm_few_avx512(const struct vq_tile_plan *pl, uint32_t panel, float *y)
{
	const struct vq_packed *w = pl->p->w;

	(w->value ? few_values : few)[w->bits - 2][pl->p->a->n_rows - 1](pl, panel, y);
}
#endif
