/* vq_gemm_kind.few of a set whose rows and tokens meet one by one: included by gemm16_avx2.c and gemm16_neon.c, which
 * define TARGET and dot (a row times a token; inlined, so that the type is a constant in it). */
#include "kernel/gemm16_rows.h"

TARGET static void few(const void *w, enum vq_dtype type, uint32_t n_in, const void *x,
		       size_t x_stride, const struct vq_gemm_out *o)
{
	const size_t size = type == VQ_F32 ? 4 : 2;
	uint32_t r, t;

	for (r = 0; r < o->n_rows; r++)
		for (t = 0; t < o->n_tokens; t++) {
			const uint8_t *row = (const uint8_t *)w + r * size * n_in;
			const float *xt = (const float *)x + t * x_stride;

			vq_gemm_put(o, t, r,
				    type == VQ_F16    ? dot(row, VQ_F16, n_in, xt)
				    : type == VQ_BF16 ? dot(row, VQ_BF16, n_in, xt)
						      : dot(row, VQ_F32, n_in, xt));
		}
}
