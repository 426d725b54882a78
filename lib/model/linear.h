/* A linear layer, y = x W^T + b, in whatever form its weight has: floating point (optionally with its input
 * quantized and dequantized, as search simulates it) or packed integers (the real thing). */
#ifndef VQ_MODEL_LINEAR_H
#define VQ_MODEL_LINEAR_H

#include "kernel/gemm16.h"
#include "kernel/qact.h"
#include "kernel/qgemm.h"
#include "kernel/transform.h"
#include "stream/tensor.h"

struct vq_linear {
	uint32_t n_out, n_in;
	enum vq_dtype dtype;            /* F32, F16, BF16 of w */
	const void *w;                  /* [n_out, n_in]; borrowed; NULL when packed is set */
	const float *bias;              /* [n_out] or NULL; borrowed */
	const struct vq_packed *packed; /* borrowed; NULL for floating point */
	struct vq_agrid act;            /* bits 16: input not quantized; its ranges borrowed */
	/* Of the input, before it is quantized; w and packed are transformed the other way.  NULL: none; borrowed */
	const struct vq_transform *transform;
	/* What packed's grids have to pass before they are first used; NULL: they have.  Borrowed. */
	struct vq_unchecked *unchecked;
	int exact;            /* packed is dequantized and multiplied in float */
	enum vq_gemm_way way; /* of a product with w */
};

/* The grids of a weight that stays in a mapped file are looked at when they are first read, not before. */
struct vq_unchecked {
	_Atomic int done;
	char label[384]; /* file and member */
};

/* VQ_E_DATA when p, on a uniform grid, has scales that are no numbers of 0 or more, or zero points beyond its codes:
 * inputs that are quantized would hide what comes of them.  Kernels stay within their memory either way. */
VQ_MUST_CHECK int vq_packed_check(const struct vq_packed *p, const char *label, struct vq_err *err);

/* y [n_rows, n_out] for each of n linears that share the input x [n_rows, n_in].  The input is transformed
 * and quantized once when all have the same transform (the same pointer) and activation grid.  Packed weights are multiplied
 * as integers when the grids allow it (vq_agrid_is_integer; no groups that straddle rows) and exact is not
 * set, else dequantized and multiplied in float.  Where ranges are by position, the rows are whole sequences, or it is
 * VQ_E_DATA. */
VQ_MUST_CHECK int vq_linear_apply(const struct vq_linear *const *l, uint32_t n, const float *x,
				  size_t n_rows, float *const *y, struct vq_err *err);

/* 1 when its product is one of integers. */
int vq_linear_is_integer(const struct vq_linear *l);

/* One linear. */
VQ_MUST_CHECK int vq_linear_one(const struct vq_linear *l, const float *x, size_t n_rows, float *y,
				struct vq_err *err);

/* y = f(l(x)) or, with a gate, f(gate(x)) * l(x), elementwise; gate NULL: none.  The activation function is fused with integer
 * products of the same input. */
VQ_MUST_CHECK int vq_linear_act(const struct vq_linear *l, const struct vq_linear *gate,
				enum vq_act_fn f, const float *x, size_t n_rows, float *y,
				struct vq_err *err);

/* y += linear(x): a layer's residual, added as the product is stored. */
VQ_MUST_CHECK int vq_linear_add(const struct vq_linear *l, const float *x, size_t n_rows, float *y,
				struct vq_err *err);

/* Rows [first, first + n) of a packed weight as float [n, n_in], s (u - z) or value[u] absmax; first at the
 * start of a panel. */
void vq_packed_rows(const void *packed, size_t first, uint32_t n, uint32_t n_in, float *out);

/* One row of a packed weight, the same numbers; out [p->n_in]. */
void vq_packed_row(const struct vq_packed *p, size_t row, float *out);

#endif
