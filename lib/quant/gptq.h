/* GPTQ (Frantar et al., ICLR 2023): columns are rounded one after the other, and what each loses is made up for by
 * those to come, by the inverse of H = X^T X.
 *
 *   H_jj += damp mean(diag H),  U upper with H^-1 = U^T U
 *   e = (w_c - q(w_c)) / U_cc,   w_j -= e U_cj  for j > c
 *   loss = sum e^2 / 2 = tr((Q - W) H (Q - W)^T) / 2
 *
 * An input that is always 0 (dead) has H_jj = 1 and w_j = 0, as in the authors' code.  Act-order: columns in the order
 * of falling H_jj; groups are then those of the original columns, with grids fitted to the original weights
 * (static groups), so that codes and scales stay in natural order.
 *
 * GPTAQ (Li et al., ICML 2025): aims at the output of the full-precision input,
 *   P = alpha striu(D U^T) U,   w_j += w_c P_cj  for j > c, w_c before rounding
 *
 * Clip: the range of each group shrinks by the factor of 1, .98 .. .5 with the least sum of H_jj (q(w_j) - w_j)^2, the
 * first of equals.
 *
 * Polish: coordinate descent on the same objective with the grids fixed (QuantEase, Behdin et al. 2023),
 *   q_j <- round((B_j - (Q H)_j + q_j H_jj) / H_jj),   B = W (H + alpha D) */
#ifndef VQ_QUANT_GPTQ_H
#define VQ_QUANT_GPTQ_H

#include "quant/grid.h"
#include "quant/hessian.h"
#include "stream/tensor.h"

enum vq_gptq_rule {
	VQ_GPTQ_STREAM, /* quant/grid.h: float16 scales */
	VQ_GPTQ_AUTHORS /* s = range / (2^b - 1), symmetric too; an empty range is [-1, 1]; in double */
};

struct vq_gptq_opts {
	struct vq_wgrid grid;
	enum vq_gptq_rule rule;
	double damp;    /* of mean(diag H): .01 */
	uint32_t block; /* columns between updates of all the rest: 128; changes the speed alone */
	int act_order;
	int stale; /* ranges of groups inside a block as they were at its start: the authors' code */
	int clip;
	double alpha;    /* of GPTAQ; 0 without */
	uint32_t polish; /* rounds of coordinate descent */
};

/* What all linears with the same input share. */
struct vq_gptq {
	uint32_t n;
	double damp;    /* that the factorization succeeded with */
	uint32_t *perm; /* [n] column at each step */
	uint8_t *dead;  /* [n] */
	double *diag;   /* [n] H_jj, natural order; 1 for a dead input */
	double *u;      /* [n, n] upper triangle, in the order of steps; below it 0 */
	double *p;      /* [n, n] in the order of steps; NULL without alpha */
	double *h;      /* [n, n] damped, whole, natural order; NULL without polish */
	double *target; /* [n, n] H + alpha D; NULL without both */
};

/* h is left as it is.  Where the factorization fails damping is raised tenfold, up to 1; VQ_E_DATA when it fails
 * then too (activations that are not finite).  alpha wants h->d. */
VQ_MUST_CHECK int vq_gptq_prepare(struct vq_gptq *g, const struct vq_hessian *h,
				  const struct vq_gptq_opts *o, struct vq_err *err);
void vq_gptq_free(struct vq_gptq *g); /* fine on zeroes */

struct vq_gptq_step {
	double s, z; /* value = s (code - z) */
};

/* Some rows of a weight, for jobs of a parallel loop.  w [rows, n]; codes [rows, n] and steps [rows, n_groups], in
 * natural order, are set; *loss grows by theirs (before polishing). */
VQ_MUST_CHECK int vq_gptq_rows(const struct vq_gptq *g, const struct vq_gptq_opts *o,
			       const double *w, uint32_t rows, uint8_t *codes,
			       struct vq_gptq_step *steps, double *loss, struct vq_err *err);

/* Coordinate descent alone, from any codes. */
VQ_MUST_CHECK int vq_gptq_polish(const struct vq_gptq *g, const struct vq_gptq_opts *o,
				 const double *w, uint32_t rows, uint8_t *codes,
				 const struct vq_gptq_step *steps, struct vq_err *err);

/* A whole weight of type F32, F16 or BF16 with finite elements, by the rule VQ_GPTQ_STREAM.  c is allocated with
 * o->grid.  *loss as above, *error is ||W' - W||^2 / ||W||^2.  The result does not depend on the number of threads. */
VQ_MUST_CHECK int vq_gptq_fit(struct vq_codes *c, const void *w, enum vq_dtype type,
			      const struct vq_gptq *g, const struct vq_gptq_opts *o, double *loss,
			      double *error, struct vq_err *err);

#endif
