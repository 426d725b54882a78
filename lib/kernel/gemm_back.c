/* y = g W and dW += g^T x, in tiles. */
#include "kernel/gemm_back.h"

#include "base/mem.h"
#include "kernel/blas.h"

/* A tile of y.  A thread converts the columns of W that it needs once and keeps them for all rows. */
#define ROWS 256u
#define COLS 256u

/* Columns c0..c0+cols of a 16-bit W as float [n_out, cols]. */
static int columns(const void *w, enum vq_dtype type, uint32_t n_out, uint32_t n_in, uint32_t c0,
		   uint32_t cols, float *buf)
{
	struct vq_tensor t = {type, 2, {n_out, n_in}, w};
	uint32_t o;

	for (o = 0; o < n_out; o++)
		if (vq_tensor_to_f32(&t, (size_t)o * n_in + c0, cols, buf + (size_t)o * cols,
				     NULL) < 0)
			return VQ_E_DATA;
	return VQ_OK;
}

int vq_gemm_back(const float *g, size_t n, const void *w, enum vq_dtype w_type, uint32_t n_out,
		 uint32_t n_in, float *y, struct vq_err *err)
{
	long long n_cols = (n_in + COLS - 1) / COLS, job;
	int failed = 0;

	if (w_type != VQ_F32 && w_type != VQ_F16 && w_type != VQ_BF16)
		return vq_fail(err, VQ_E_DATA, "product: want f32, f16 or bf16 weights, got %s",
			       vq_dtype_name(w_type));
#pragma omp parallel for schedule(dynamic, 1)
	for (job = 0; job < n_cols; job++) {
		uint32_t c0 = (uint32_t)job * COLS, cols = n_in - c0 < COLS ? n_in - c0 : COLS;
		const float *wt = (const float *)w + c0;
		float *buf = NULL;
		size_t r;

		if (w_type != VQ_F32) {
			buf = vq_alloc_f32((size_t)n_out * cols, NULL);
			wt = buf;
			if (!buf || columns(w, w_type, n_out, n_in, c0, cols, buf) < 0) {
#pragma omp atomic write
				failed = 1;
				vq_free(buf);
				continue;
			}
		}
		for (r = 0; r < n; r += ROWS)
			vq_gemm_nn((uint32_t)(n - r < ROWS ? n - r : ROWS), cols, n_out,
				   g + r * n_out, n_out, wt, buf ? cols : n_in, y + r * n_in + c0,
				   n_in);
		vq_free(buf);
	}
	if (failed)
		return vq_fail(err, VQ_E_SYS, "memory: cannot have a tile of %u x %u weights",
			       n_out, COLS);
	return VQ_OK;
}

void vq_gemm_weight_grad(const float *g, const float *x, size_t n, uint32_t n_out, uint32_t n_in,
			 float *dw)
{
	long long across = (n_in + COLS - 1) / COLS, down = (n_out + ROWS - 1) / ROWS, job;

#pragma omp parallel for schedule(dynamic, 1)
	for (job = 0; job < across * down; job++) {
		uint32_t o = (uint32_t)(job / across) * ROWS, i = (uint32_t)(job % across) * COLS;

		vq_gemm_tn(n_out - o < ROWS ? n_out - o : ROWS, n_in - i < COLS ? n_in - i : COLS,
			   (uint32_t)n, g + o, n_out, x + i, n_in, dw + (size_t)o * n_in + i, n_in);
	}
}
