/* Full-precision products through OpenBLAS. */
#include "kernel/blas.h"

#include <cblas.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/num.h"
#include "base/parse.h"
#include "kernel/ops.h"

/* A tile of y: ROWS tokens times COLS outputs.  Fixed, so that the sums inside OpenBLAS never depend on the
 * number of threads; wide enough that its packing of operands is paid for.  FEW tokens (decoding) are bound by
 * reading the weights: dot products with a row while it is in the nearest cache. */
#define ROWS 256u
#define COLS 512u
#define FEW  8u

extern char *openblas_get_corename(void); /* not declared by every cblas.h */

static void tile(const float *x, size_t rows, const float *w, uint32_t cols, uint32_t n_in,
		 const float *bias, float *y, uint32_t n_out)
{
	size_t i;

	for (i = 0; bias && i < rows; i++)
		memcpy(y + i * n_out, bias, cols * sizeof(float));
	cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)rows, (int)cols, (int)n_in, 1.0f,
		    x, (int)n_in, w, (int)n_in, bias ? 1.0f : 0.0f, y, (int)n_out);
}

static void dots(const float *x, size_t n, const float *w, uint32_t n_in, const float *bias,
		 float *y, uint32_t n_out, uint32_t o)
{
	size_t t;

	for (t = 0; t < n; t++)
		y[t * n_out + o] = vq_dot(x + t * n_in, w, n_in) + (bias ? bias[o] : 0.0f);
}

static int few(const float *x, size_t n, vq_rows_fn rows_fn, const void *w, uint32_t n_out,
	       uint32_t n_in, const float *bias, float *y, struct vq_err *err)
{
	long long job, n_jobs = (n_out + VQ_GEMM_ROWS - 1) / VQ_GEMM_ROWS;
	int failed = 0;

#pragma omp parallel if (n_jobs > 1)
	{
		float *buf = rows_fn ? vq_alloc_f32((size_t)VQ_GEMM_ROWS * n_in, NULL) : NULL;
		uint32_t o;

		if (rows_fn && !buf) {
#pragma omp atomic write
			failed = 1;
		}
#pragma omp for schedule(static)
		for (job = 0; job < n_jobs; job++) {
			uint32_t first = (uint32_t)job * VQ_GEMM_ROWS;
			uint32_t end = n_out - first < VQ_GEMM_ROWS ? n_out : first + VQ_GEMM_ROWS;

			if (rows_fn && !buf)
				continue;
			if (buf)
				rows_fn(w, first, end - first, n_in, buf);
			for (o = first; o < end; o++)
				dots(x, n,
				     buf ? buf + (size_t)(o - first) * n_in
					 : (const float *)w + (size_t)o * n_in,
				     n_in, bias, y, n_out, o);
		}
		vq_free(buf);
	}
	if (failed)
		return vq_fail(err, VQ_E_SYS, "memory: cannot have rows of %u weights", n_in);
	return VQ_OK;
}

/* rows_fn NULL: w is float32 and is read where it stands.  There is a parallel region even for one job: OpenBLAS
 * (its OpenMP build, 0.3.21) takes omp_get_max_threads() threads of its own outside parallel regions, whatever
 * openblas_set_num_threads said, and cuts the sums by them. */
static int tiles(const float *x, size_t n, vq_rows_fn rows_fn, const void *w, uint32_t n_out,
		 uint32_t n_in, const float *bias, float *y, struct vq_err *err)
{
	uint32_t n_cols = (n_out + COLS - 1) / COLS;
	size_t n_rows = (n + ROWS - 1) / ROWS, n_buf = rows_fn ? (size_t)COLS * n_in : 0;
	int failed = 0;
	long long job, n_jobs = (long long)(n_cols * n_rows);

	if (n <= FEW)
		return few(x, n, rows_fn, w, n_out, n_in, bias, y, err);
#pragma omp parallel
	{
		float *buf = n_buf ? vq_alloc_f32(n_buf, NULL) : NULL;
		uint32_t in_buf = UINT32_MAX; /* which column tile buf holds */

		if (n_buf && !buf) {
#pragma omp atomic write
			failed = 1;
		}
#pragma omp for schedule(dynamic, 1)
		for (job = 0; job < n_jobs; job++) {
			uint32_t c = (uint32_t)((size_t)job / n_rows), c0 = c * COLS;
			size_t r0 = (size_t)job % n_rows * ROWS,
			       rows = n - r0 < ROWS ? n - r0 : ROWS;
			uint32_t cols = n_out - c0 < COLS ? n_out - c0 : COLS;

			if (n_buf && !buf)
				continue;
			if (n_buf && c != in_buf)
				rows_fn(w, c0, cols, n_in, buf);
			in_buf = c;
			tile(x + r0 * n_in, rows, buf ? buf : (const float *)w + (size_t)c0 * n_in,
			     cols, n_in, bias ? bias + c0 : NULL, y + r0 * n_out + c0, n_out);
		}
		vq_free(buf);
	}
	if (failed)
		return vq_fail(err, VQ_E_SYS, "memory: cannot have a tile of %zu weights", n_buf);
	return VQ_OK;
}

static void f16_rows(const void *w, size_t first, uint32_t n, uint32_t n_in, float *out)
{
	vq_f16_to_f32_n(out, (const uint16_t *)w + first * n_in, (size_t)n * n_in);
}

static void bf16_rows(const void *w, size_t first, uint32_t n, uint32_t n_in, float *out)
{
	vq_bf16_to_f32_n(out, (const uint16_t *)w + first * n_in, (size_t)n * n_in);
}

/* Through bytes, for weights that a file holds at an odd address. */
static void unaligned_rows(const void *w, size_t first, uint32_t n, uint32_t n_in, float *out,
			   enum vq_dtype type)
{
	struct vq_tensor t = {
		type, 2, {n, n_in}, (const uint8_t *)w + first * n_in * vq_dtype_size(type)};

	/* The type is one that converts: this cannot fail. */
	(void)!vq_tensor_to_f32(&t, 0, (size_t)n * n_in, out, NULL);
}

static void odd_f16_rows(const void *w, size_t first, uint32_t n, uint32_t n_in, float *out)
{
	unaligned_rows(w, first, n, n_in, out, VQ_F16);
}

static void odd_bf16_rows(const void *w, size_t first, uint32_t n, uint32_t n_in, float *out)
{
	unaligned_rows(w, first, n, n_in, out, VQ_BF16);
}

static void odd_f32_rows(const void *w, size_t first, uint32_t n, uint32_t n_in, float *out)
{
	unaligned_rows(w, first, n, n_in, out, VQ_F32);
}

int vq_gemm(const float *x, size_t n, const void *w, enum vq_dtype w_type, uint32_t n_out,
	    uint32_t n_in, const float *bias, float *y, struct vq_err *err)
{
	int odd = (uintptr_t)w % (vq_dtype_size(w_type) ? vq_dtype_size(w_type) : 1) != 0;
	vq_rows_fn rows;

	switch (w_type) {
	case VQ_F32: rows = odd ? odd_f32_rows : NULL; break;
	case VQ_F16: rows = odd ? odd_f16_rows : f16_rows; break;
	case VQ_BF16: rows = odd ? odd_bf16_rows : bf16_rows; break;
	default:
		return vq_fail(err, VQ_E_DATA, "product: want f32, f16 or bf16 weights, got %s",
			       vq_dtype_name(w_type));
	}
	return tiles(x, n, rows, w, n_out, n_in, bias, y, err);
}

int vq_gemm_rows(const float *x, size_t n, vq_rows_fn rows, const void *w, uint32_t n_out,
		 uint32_t n_in, const float *bias, float *y, struct vq_err *err)
{
	return tiles(x, n, rows, w, n_out, n_in, bias, y, err);
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
}
