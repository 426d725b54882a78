/* AWQ (Lin et al., MLSys 2024): inputs that are large on average get larger weights, so that rounding hurts them less,
 * and what their weights were multiplied by is divided out of the input; then ranges are clipped.
 *
 *   xm_j = mean over tokens |x_tj|
 *   for r = 0, .05, ..., .95:   s_j = max(xm_j^r, 1e-4),  s = s / sqrt(max(s) min(s))
 *       Q(W diag(s)) diag(s)^-1 stands for W;  loss: mean squared error of the module's output, the caller's
 *   the first r with the smallest loss is taken; r = 0 is rounding to nearest
 *
 * "Duo" (AutoAWQ): s_j = max(xm_j^r / (wm_j^(1-r) + 1e-4), 1e-4), wm_j = mean over rows of |w_ij| / (max|w| of its
 * group + 1e-6); what is not finite is 1.
 *
 * Clipping, on the scaled weight and the divided input, for each row and group:  m = max|w| (1 - i/20), i = 0..9, and the
 * first m for which sum over tokens (x (Q(clamp(w, -m, m)) - w))^2 over the group's inputs alone is smallest.  The
 * clamp is symmetric although the grid is not. */
#ifndef VQ_QUANT_AWQ_H
#define VQ_QUANT_AWQ_H

#include "quant/grid.h"
#include "stream/tensor.h"

#define VQ_AWQ_RATIOS 20u
#define VQ_AWQ_CLIPS  10u
#define VQ_AWQ_TOKENS 512u

enum vq_awq_rule {
	VQ_AWQ_STREAM, /* quant/grid.h: float16 scales, ranges include 0 */
	VQ_AWQ_AUTHORS /* asymmetric: s = max(max - min, 1e-5) / (2^b - 1), the range need not include 0; in double */
};

struct vq_awq_opts {
	struct vq_wgrid grid;
	enum vq_awq_rule rule;
};

/* Q: w [rows, n] -> q, which may be w. */
void vq_awq_round(const struct vq_awq_opts *o, const double *w, uint32_t rows, uint32_t n,
		  double *q);

/* s [n] of ratio r / VQ_AWQ_RATIOS; wm NULL: not duo. */
void vq_awq_scales(const double *xm, const double *wm, uint32_t n, uint32_t r, double *s);

/* The module's loss with the scales s [n]. */
typedef int vq_awq_loss(void *ctx, const double *s, double *loss, struct vq_err *err);

struct vq_awq_choice {
	uint32_t ratio;             /* of VQ_AWQ_RATIOS */
	double loss[VQ_AWQ_RATIOS]; /* of all */
};

/* Tries all ratios; s [n] becomes the best one's scales.  VQ_E_DATA when no loss is a number. */
VQ_MUST_CHECK int vq_awq_search(const double *xm, const double *wm, uint32_t n, vq_awq_loss *f,
				void *ctx, double *s, struct vq_awq_choice *c, struct vq_err *err);

/* The bounds m [rows, n_groups] of w [rows, n], by x [tokens, n], for jobs of a parallel loop. */
VQ_MUST_CHECK int vq_awq_clip(const struct vq_awq_opts *o, const double *w, uint32_t rows,
			      uint32_t n, const double *x, uint32_t tokens, double *m,
			      struct vq_err *err);

/* --- whole weights; results do not depend on the number of threads --- */

/* W' = diag(1 / out) W diag(in), in float; each may be NULL. */
struct vq_awq_weight {
	const void *w; /* [n_out, n_in] F32, F16 or BF16, finite */
	enum vq_dtype type;
	uint32_t n_out, n_in;
	const float *in, *out;
};

/* Rows first..first + rows of W' as float. */
void vq_awq_rows(const struct vq_awq_weight *w, uint32_t first, uint32_t rows, float *to);

/* q [n_out, n_in] = Q(W'). */
VQ_MUST_CHECK int vq_awq_fake(const struct vq_awq_opts *o, const struct vq_awq_weight *w, float *q,
			      struct vq_err *err);

/* xm [n] of x [n_rows, n]. */
void vq_awq_input_mean(const float *x, size_t n_rows, uint32_t n, double *xm);

/* wm [n] of the rows of several weights together, which have the same inputs. */
VQ_MUST_CHECK int vq_awq_weight_mean(const struct vq_wgrid *g, const struct vq_awq_weight *w,
				     uint32_t n_weights, double *wm, struct vq_err *err);

/* The tokens that clips are searched by: every (n_rows / 512)-th row of x (512 to 1023 of them, or all), each divided by
 * s [n] unless that is NULL.  Given. */
double *vq_awq_tokens(const float *x, size_t n_rows, uint32_t n, const float *s, uint32_t *n_tokens,
		      struct vq_err *err);

/* The codes of W' by the rule VQ_AWQ_STREAM, after clipping by x [tokens, n_in] (NULL: not clipped).  c is allocated.
 * *error is ||Q - W'||^2 / ||W'||^2, *clip the mean over groups of m / max|w|. */
VQ_MUST_CHECK int vq_awq_fit(struct vq_codes *c, const struct vq_awq_weight *w, const double *x,
			     uint32_t tokens, double *error, double *clip, struct vq_err *err);

#endif
