/* Products of float inputs with weights that are float16, bfloat16 or float32.
 *
 * float32: weights are converted exactly.  y = fmaf(x[k], w[k], y) over the inputs k in ascending order from y = 0,
 * then y + bias; with add, what y held plus that.  Up to VQ_GEMM_FEW rows of x (decoding, which is bound by
 * reading the weights) are summed as the weights stand in memory: 32 such sums, of the inputs k, k + 32, ...,
 * the upper half of which is added to the lower until one is left.  The same bits in every kernel set.
 *
 * bf16: inputs and weights are rounded to bfloat16 (nearest, ties to even) and multiplied by the CPU's own
 * instruction (two products a step, sums in float32), in the same orders: twice the speed.  Beside exact products of the rounded
 * numbers |error| <= n_in 2^-23 sum |x w|, as float32 has it; what rounding adds is <= 2^-7.9 sum |x w| and
 * mostly cancels.  Subnormal bfloat16 numbers count as 0.
 *
 * In both a row of y is the same in every call with more than VQ_GEMM_FEW rows, in every call with fewer, and for any
 * number of threads. */
#ifndef VQ_KERNEL_GEMM16_H
#define VQ_KERNEL_GEMM16_H

#include "stream/tensor.h"

#define VQ_GEMM_FEW 4u

enum vq_gemm_way { VQ_GEMM_FLOAT32, VQ_GEMM_BF16 };

/* A weight in a form of its own: writes its rows first.. first + n as float to out [n, n_in]; first is a multiple of
 * VQ_GEMM_ROWS and n at most that.  It is called from several threads at once. */
#define VQ_GEMM_ROWS 32u
typedef void (*vq_rows_fn)(const void *w, size_t first, uint32_t n, uint32_t n_in, float *out);

struct vq_gemm {
	uint32_t n_out, n_in;
	enum vq_dtype type; /* F32, F16 or BF16 of w [n_out, n_in], at any address ... */
	vq_rows_fn rows;    /* ... or, not NULL, what reads w; type is then not looked at */
	const void *w;      /* borrowed */
	const float *bias;  /* [n_out] or NULL; borrowed */
	int add;            /* y += product instead of y = product */
	enum vq_gemm_way
		way; /* bf16 wants 16-bit weights and vq_gemm_has_bf16, else it is float32 */
};

/* y [n, n_out] = x [n, n_in] W^T (+ bias).  VQ_E_DATA: another type; VQ_E_SYS: no memory. */
VQ_MUST_CHECK int vq_gemm_run(const struct vq_gemm *g, const float *x, size_t n, float *y,
			      struct vq_err *err);

/* The same in float32 with a bias or NULL, for weights of a type. */
VQ_MUST_CHECK int vq_gemm(const float *x, size_t n, const void *w, enum vq_dtype w_type,
			  uint32_t n_out, uint32_t n_in, const float *bias, float *y,
			  struct vq_err *err);

/* 1 when this CPU and the chosen kernel set multiply bfloat16. */
int vq_gemm_has_bf16(void);

/* "float32", "bf16" */
const char *vq_gemm_way_name(enum vq_gemm_way way);

#endif
