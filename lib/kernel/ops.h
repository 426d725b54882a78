/* What happens between the products: norms, softmax, activation functions, rotary embedding; float32.
 *
 * Every instruction set gives the same bits: sums run over 16 fixed lanes that are added in one order, and
 * nothing is fused.  vq_exp is within 2 units in the last place of the true value (tested over all of its
 * range); results under 2^-126 are 0, NaN stays NaN.  vq_gelu_erf(x) is within 4e-7 |x| of the true value (tested). */
#ifndef VQ_KERNEL_OPS_H
#define VQ_KERNEL_OPS_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* out = x / sqrt(mean(x^2) + eps) * w over each row of n; out = x is fine (also below).
 * Zhang and Sennrich, NeurIPS 2019. */
void vq_rmsnorm(const float *x, size_t n_rows, uint32_t n, const float *w, float eps, float *out);

/* out = (x - mean) / sqrt(var + eps) * w + b; var divides by n.  Ba, Kiros and Hinton, 2016. */
void vq_layernorm(const float *x, size_t n_rows, uint32_t n, const float *w, const float *b,
		  float eps, float *out);

/* One row becomes exp(x - max) / sum; on the calling thread. */
void vq_softmax(float *x, size_t n);

enum vq_act_fn { VQ_ACT_SILU, VQ_ACT_QUICK_GELU, VQ_ACT_GELU_ERF, VQ_ACT_GELU_TANH };
#define VQ_N_ACT_FNS 4

/* out = f(x) * mul, elementwise; mul NULL: f(x); out = x or mul is fine.
 *   silu        x / (1 + exp(-x))
 *   quick_gelu  x / (1 + exp(-1.702 x))
 *   gelu_tanh   x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2
 *   gelu_erf    x (1 + erf(x / sqrt 2)) / 2      Hendrycks and Gimpel, 2016 */
void vq_activate(enum vq_act_fn f, const float *x, const float *mul, size_t n, float *out);

/* out = exp(x). */
void vq_exp(const float *x, size_t n, float *out);

/* sum x[i] y[i], on the calling thread. */
float vq_dot(const float *x, const float *y, size_t n);

/* h += x. */
void vq_add(float *h, const float *x, size_t n);

/* cos and sin [n_pos, head_dim / 2] of positions first.. for vq_rotary: angle = position * theta^(-2i /
 * head_dim), in float32 as the Hugging Face models were trained. */
void vq_rotary_table(float *cos_out, float *sin_out, uint32_t first, uint32_t n_pos,
		     uint32_t head_dim, float theta);

/* Rotates n_heads heads of one token in place; c and s are its rows [head_dim / 2] of the table.  Element i
 * pairs with i + head_dim / 2 (the order of Hugging Face checkpoints).  Su et al., 2021. */
void vq_rotary(float *x, uint32_t n_heads, uint32_t head_dim, const float *c, const float *s);

/* --- private: one row of the table an instruction set --- */
struct vq_ops {
	const char *name;
	void (*rmsnorm)(const float *x, uint32_t n, const float *w, float eps, float *out);
	void (*layernorm)(const float *x, uint32_t n, const float *w, const float *b, float eps,
			  float *out);
	void (*softmax)(float *x, size_t n);
	/* vq_activate on the calling thread. */
	void (*activate[VQ_N_ACT_FNS])(const float *x, const float *mul, size_t n, float *out);
	void (*exp)(const float *x, size_t n, float *out);
	float (*dot)(const float *x, const float *y, size_t n);
	void (*rotary)(float *x, uint32_t n_heads, uint32_t head_dim, const float *c,
		       const float *s);
};

extern const struct vq_ops vq_ops_generic, vq_ops_avx2, vq_ops_avx512;

#endif
