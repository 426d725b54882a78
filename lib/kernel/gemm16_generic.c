/* Float products in plain C: the meaning of the operation. */
#include "kernel/gemm16_rows.h"

#include <math.h>
#include <string.h>

#include "base/num.h"

static int runs(void)
{
	return 1;
}

static void pack_x(const float *x, size_t stride, uint32_t n, uint32_t n_in, void *out)
{
	float *o = out;
	uint32_t t, k;

	for (k = 0; k < n_in; k++)
		for (t = 0; t < n; t++)
			*o++ = x[t * stride + k];
}

/* Number i of w, which may stand at an odd address. */
static float number(const void *w, enum vq_dtype type, size_t i)
{
	uint16_t h;
	float f;

	if (type == VQ_F32) {
		memcpy(&f, (const uint8_t *)w + 4 * i, 4);
		return f;
	}
	memcpy(&h, (const uint8_t *)w + 2 * i, 2);
	return type == VQ_F16 ? vq_f16_to_f32(h) : vq_bf16_to_f32(h);
}

static void pack_w(const void *w, enum vq_dtype type, size_t stride, uint32_t n, uint32_t n_in,
		   void *out)
{
	float *o = out;
	uint32_t r, k;

	for (r = 0; r < VQ_GEMM_ROWS; r++)
		for (k = 0; k < n_in; k++)
			o[(size_t)k * VQ_GEMM_ROWS + r] =
				r < n ? number(w, type, r * stride + k) : 0.0f;
}

static void tile(const void *w, const void *x, uint32_t n, uint32_t n_in, int first, float *c)
{
	uint32_t t, r, k;

	if (first)
		memset(c, 0, n * VQ_GEMM_ROWS * sizeof(float));
	for (k = 0; k < n_in; k++) {
		const float *wk = (const float *)w + (size_t)k * VQ_GEMM_ROWS;
		const float *xk = (const float *)x + (size_t)k * n;

		for (t = 0; t < n; t++)
			for (r = 0; r < VQ_GEMM_ROWS; r++)
				c[t * VQ_GEMM_ROWS + r] =
					fmaf(xk[t], wk[r], c[t * VQ_GEMM_ROWS + r]);
	}
}

static void store(const struct vq_gemm_out *o, const float *c)
{
	uint32_t t, r;

	for (t = 0; t < o->n_tokens; t++)
		for (r = 0; r < o->n_rows; r++)
			vq_gemm_put(o, t, r, c[t * VQ_GEMM_ROWS + r]);
}

static void few(const void *w, enum vq_dtype type, uint32_t n_in, const void *x, size_t x_stride,
		const struct vq_gemm_out *o)
{
	uint32_t t, r, k, left;

	for (r = 0; r < o->n_rows; r++)
		for (t = 0; t < o->n_tokens; t++) {
			const float *xt = (const float *)x + t * x_stride;
			float sum[32] = {0};

			for (k = 0; k < n_in; k++)
				sum[k % 32] = fmaf(xt[k], number(w, type, (size_t)r * n_in + k),
						   sum[k % 32]);
			for (left = 16; left; left /= 2)
				for (k = 0; k < left; k++)
					sum[k] += sum[k + left];
			vq_gemm_put(o, t, r, sum[0]);
		}
}

const struct vq_gemm_kind vq_gemm_generic = {
	.runs = runs,
	.tile = 4,
	.bytes = 4,
	.multiple = 1,
	.block = 256,
	.pack_x = pack_x,
	.pack_w = pack_w,
	.tile_fn = tile,
	.store = store,
	.few = few,
	.pack_few = NULL,
};
