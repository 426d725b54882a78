/* Full-precision products through OpenBLAS. */
#include "kernel/blas.h"

#include <cblas.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/parse.h"

/* A tile of y: ROWS tokens times COLS outputs.  Fixed, so that the sums inside OpenBLAS never depend on the
 * number of threads; wide enough that its packing of operands is paid for. */
#define ROWS 256u
#define COLS 512u

extern char *openblas_get_corename(void); /* not declared by every cblas.h */

/* Rows first..first+n of a 16-bit weight as float. */
static int weight_tile(const void *w, enum vq_dtype type, size_t first, size_t n, uint32_t n_in,
		       float *buf)
{
	struct vq_tensor t = {
		type, 2, {n, n_in}, (const uint8_t *)w + first * n_in * vq_dtype_size(type)};

	return vq_tensor_to_f32(&t, 0, n * n_in, buf, NULL);
}

static void tile(const float *x, size_t rows, const float *w, uint32_t cols, uint32_t n_in,
		 const float *bias, float *y, uint32_t n_out)
{
	size_t i;

	for (i = 0; bias && i < rows; i++)
		memcpy(y + i * n_out, bias, cols * sizeof(float));
	cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)rows, (int)cols, (int)n_in, 1.0f,
		    x, (int)n_in, w, (int)n_in, bias ? 1.0f : 0.0f, y, (int)n_out);
}

int vq_gemm(const float *x, size_t n, const void *w, enum vq_dtype w_type, uint32_t n_out,
	    uint32_t n_in, const float *bias, float *y, struct vq_err *err)
{
	uint32_t n_cols = (n_out + COLS - 1) / COLS;
	size_t n_rows = (n + ROWS - 1) / ROWS, n_buf = w_type == VQ_F32 ? 0 : (size_t)COLS * n_in;
	int failed = 0;
	long long job;

	if (w_type != VQ_F32 && w_type != VQ_F16 && w_type != VQ_BF16)
		return vq_fail(err, VQ_E_DATA, "product: want f32, f16 or bf16 weights, got %s",
			       vq_dtype_name(w_type));
#pragma omp parallel
	{
		float *buf = n_buf ? vq_alloc_f32(n_buf, NULL) : NULL;
		uint32_t in_buf = UINT32_MAX; /* which column tile buf holds */

		if (n_buf && !buf) {
#pragma omp atomic write
			failed = 1;
		}
#pragma omp for schedule(dynamic, 1)
		for (job = 0; job < (long long)(n_cols * n_rows); job++) {
			uint32_t c = (uint32_t)((size_t)job / n_rows), c0 = c * COLS;
			size_t r0 = (size_t)job % n_rows * ROWS,
			       rows = n - r0 < ROWS ? n - r0 : ROWS;
			uint32_t cols = n_out - c0 < COLS ? n_out - c0 : COLS;
			const float *wt = (const float *)w + (size_t)c0 * n_in;

			if (n_buf && !buf)
				continue;
			if (n_buf && c != in_buf && weight_tile(w, w_type, c0, cols, n_in, buf) < 0)
				continue; /* the type was checked above: cannot happen */
			if (n_buf) {
				in_buf = c;
				wt = buf;
			}
			tile(x + r0 * n_in, rows, wt, cols, n_in, bias ? bias + c0 : NULL,
			     y + r0 * n_out + c0, n_out);
		}
		vq_free(buf);
	}
	if (failed)
		return vq_fail(err, VQ_E_SYS, "memory: cannot have a tile of %zu weights", n_buf);
	return VQ_OK;
}

void vq_gemm_nt(uint32_t m, uint32_t n, uint32_t k, float alpha, const float *a, size_t lda,
		const float *b, size_t ldb, float *c, size_t ldc)
{
	cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)m, (int)n, (int)k, alpha, a,
		    (int)lda, b, (int)ldb, 0.0f, c, (int)ldc);
}

void vq_gemm_nn(uint32_t m, uint32_t n, uint32_t k, const float *a, size_t lda, const float *b,
		size_t ldb, float *c, size_t ldc)
{
	cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)m, (int)n, (int)k, 1.0f, a,
		    (int)lda, b, (int)ldb, 0.0f, c, (int)ldc);
}

const char *vq_blas_core(void)
{
	return openblas_get_corename();
}

void vq_threads_setup(uint32_t n)
{
	const char *slurm = getenv("SLURM_CPUS_PER_TASK");

	if (n == 0 && (!slurm || vq_parse_u32(&n, slurm, 1, 1024) < 0))
		n = (uint32_t)omp_get_num_procs();
	omp_set_num_threads((int)n);
	openblas_set_num_threads(1);
}
