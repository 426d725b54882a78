/* A place: the linears of a layer (of an expert, where the layer has some) that share an input, with every rounding function that search may give them. */
#ifndef VQ_TASK_SEARCH_PLACE_H
#define VQ_TASK_SEARCH_PLACE_H

#include "model/model.h"
#include "quant/qvlm.h"
#include "task/search_held.h"

/* A weight rounded with one value: a clip, or a transform, or both; as the products read it. */
struct vq_cand {
	float ratio; /* of the ranges */
	int built;
	struct vq_packed packed; /* to be multiplied by quantized activations */
	void *planes;
	uint16_t *scale;
	uint8_t *zero;
	float *absmax; /* NF */
	float *w;      /* or, where activations stay float, dequantized */
};

struct vq_place_linear {
	const struct vq_held *rec;      /* its weight as it came; borrowed */
	struct vq_linear *full, *quant; /* in the two models; borrowed */
	enum vq_lin which;              /* of its layer */
	struct vq_cand cand[VQ_QVLM_VALUES];
	/* Of a method that chooses codes itself, until vq_place_round gives them away; or codes NULL */
	struct vq_codes codes;
	double error; /* of these codes: ||W' - W||^2 / ||W||^2 */
};

struct vq_place {
	uint32_t unit, slot; /* slot: of the layer, or which linear of the projector */
	uint32_t expert;     /* of a sparse layer's last two slots, else 0 */
	uint32_t n;
	struct vq_place_linear lin[3];
	struct vq_wgrid w; /* bits 16: the weights stay */
	uint32_t nf;       /* bits of NF codes instead of that grid, or 0 */
	struct vq_agrid a; /* bits 16: the input stays */
	float a_ratio[VQ_QVLM_VALUES];
	/* Where a stores ranges: [VQ_QVLM_VALUES, 2, a.n_ranges] of each transform, or of the input itself; owned */
	float *ranges[VQ_QVLM_VALUES];
	/* Of the input: none, one for all values of the weights, or one for each value.  Arrays owned.  Weights that are
	 * not quantized have none. */
	uint32_t n_transforms;
	struct vq_transform transform[VQ_QVLM_VALUES], back[VQ_QVLM_VALUES];
	/* 0: the same as a value before it */
	uint8_t a_usable[VQ_QVLM_VALUES], w_usable[VQ_QVLM_VALUES];
};

/* The place takes a transform over as that of value n_transforms, with the one that its weights go through,
 * W' = W T^-T; their arrays are from vq_alloc, or NULL.  Before anything is built.  Do not use with weights of 16
 * bits. */
void vq_place_transform(struct vq_place *p, const struct vq_transform *t,
			const struct vq_transform *back);
const struct vq_transform *vq_place_transform_of(const struct vq_place *p,
						 uint32_t v); /* or NULL */

/* The input x [n_rows, n_in] as the products see it with value v of the weights: transformed; quantized and
 * dequantized too with value a of the input's clip, or not (VQ_QVLM_VALUES).  out = x is fine.  Where ranges are by position the
 * rows are whole sequences. */
void vq_place_see(const struct vq_place *p, uint32_t a, uint32_t v, const float *x, size_t n_rows,
		  float *out);
/* The weight of linear i with value v before it is rounded: the model's own, or *buf (given), transformed. */
VQ_MUST_CHECK int vq_place_weight(const struct vq_place *p, uint32_t i, uint32_t v,
				  struct vq_tensor *w, float **buf, struct vq_err *err);

/* The grid of the input with value a of its clip and value v of the weights. */
struct vq_agrid vq_place_grid(const struct vq_place *p, uint32_t a, uint32_t v);
/* Stores the ranges that percentiles stand for, for n_rows rows; where lp is above 0, value 0 gets for each range the
 * percentile that moves its values least, sum |x' - x|^lp, and is the only usable one. */
VQ_MUST_CHECK int vq_place_measure_ranges(struct vq_place *p, const float *x, size_t n_rows,
					  double lp, struct vq_err *err);
/* Copies the ranges of g to value 0, in room for all values. */
VQ_MUST_CHECK int vq_place_take_ranges(struct vq_place *p, const struct vq_agrid *g,
				       struct vq_err *err);

/* The ratios that percentiles stand for: of the input x [n_rows, n_in] of the place; of its weights.  A quantizer that
 * is not there has one usable value, 0. */
VQ_MUST_CHECK int vq_place_measure_input(struct vq_place *p, const float *x, size_t n_rows,
					 struct vq_err *err);
VQ_MUST_CHECK int vq_place_measure_weights(struct vq_place *p, struct vq_err *err);
/* Instead: every ratio is 1, and the values of the weights are the transforms of the input. */
void vq_place_values_transform(struct vq_place *p);

/* Builds the candidates of value v of all linears. */
VQ_MUST_CHECK int vq_place_build(struct vq_place *p, uint32_t v, struct vq_err *err);
/* Frees all candidates but those of value v. */
void vq_place_keep(struct vq_place *p, uint32_t v);

/* The i-th linear with clips a and w (built); for use while the place lives. */
struct vq_linear vq_place_linear_of(const struct vq_place *p, uint32_t i, uint32_t a, uint32_t w);
/* Gives the quantized model's linears the clips a and w. */
void vq_place_set(struct vq_place *p, uint32_t a, uint32_t w);

/* Takes c over as the codes of linear i, and builds value v from them. */
VQ_MUST_CHECK int vq_place_take(struct vq_place *p, uint32_t i, uint32_t v, struct vq_codes *c,
				double error, struct vq_err *err);

/* Rounds linear i with clips a and w for the stream, once: codes are given (vq_codes_free). */
VQ_MUST_CHECK int vq_place_round(struct vq_place *p, uint32_t i, uint32_t a, uint32_t w,
				 struct vq_searched *q, struct vq_err *err);

void vq_place_free(struct vq_place *p); /* candidates, codes and ranges */

/* Makes value 0 what finished records say, to run them again: candidates are built from their codes. */
VQ_MUST_CHECK int vq_place_adopt(struct vq_place *p, const struct vq_held_list *done,
				 struct vq_err *err);

#endif
