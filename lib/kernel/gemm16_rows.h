/* Private to gemm16*.c: what an instruction set brings to a float product.
 *
 * Rows of W are packed by panels of VQ_GEMM_ROWS, rows of x by tiles of at most `tile`, both so that the numbers of
 * one input (of bfloat16: two) stand together, in the order in which a tile's loop reads them. */
#ifndef VQ_KERNEL_GEMM16_ROWS_H
#define VQ_KERNEL_GEMM16_ROWS_H

#include "kernel/gemm16.h"

#define VQ_GEMM_MAX_TILE 12u

/* Where a tile of y goes. */
struct vq_gemm_out {
	float *y;          /* the first token's first output of the panel */
	size_t stride;     /* floats from a token to the next */
	uint32_t n_tokens; /* of the tile */
	uint32_t n_rows;   /* of the panel, 1..VQ_GEMM_ROWS; for few any number */
	const float *bias; /* of the panel, or NULL */
	int add;
};

struct vq_gemm_kind {
	int (*runs)(void);
	uint32_t tile;     /* tokens, at most VQ_GEMM_MAX_TILE */
	uint32_t bytes;    /* of a packed number */
	uint32_t multiple; /* packed inputs are a multiple of this; those past the end are 0 */
	uint32_t block;    /* inputs of a packed panel that the caches hold while tiles pass */
	/* x [n, stride], n_in inputs of it, to out [inputs, n]. */
	void (*pack_x)(const float *x, size_t stride, uint32_t n, uint32_t n_in, void *out);
	/* n rows of w, stride numbers apart, n_in inputs, to out [inputs, VQ_GEMM_ROWS]; absent rows are 0. */
	void (*pack_w)(const void *w, enum vq_dtype type, size_t stride, uint32_t n, uint32_t n_in,
		       void *out);
	/* c [n, VQ_GEMM_ROWS], aligned, plus (first: instead of) the product over n_in packed inputs. */
	void (*tile_fn)(const void *w, const void *x, uint32_t n, uint32_t n_in, int first,
			float *c);
	void (*store)(const struct vq_gemm_out *o, const float *c);
	/* Few tokens times n_rows whole rows of w, one after the other.  x [n_tokens, x_stride] is as pack_few
	 * makes a row of it, or NULL: as it comes. */
	void (*few)(const void *w, enum vq_dtype type, uint32_t n_in, const void *x,
		    size_t x_stride, const struct vq_gemm_out *o);
	void (*pack_few)(const float *x, uint32_t n_in,
			 void *out); /* to round_up(n_in, 32) numbers */
};

/* A sum of few becomes an output. */
static inline void vq_gemm_put(const struct vq_gemm_out *o, uint32_t token, uint32_t row, float v)
{
	float *y = o->y + token * o->stride + row;

	if (o->bias)
		v += o->bias[row];
	*y = o->add ? *y + v : v;
}

extern const struct vq_gemm_kind vq_gemm_generic;
#if defined(__x86_64__)
extern const struct vq_gemm_kind vq_gemm_avx2, vq_gemm_avx512, vq_gemm_avx512bf16;
void vq_gemm_store_avx512(const struct vq_gemm_out *o, const float *c);
#elif defined(__aarch64__)
extern const struct vq_gemm_kind vq_gemm_neon;
#endif

#endif
