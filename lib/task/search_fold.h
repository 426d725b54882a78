/* AWQ's scales folded into a transformer layer, as its authors fold them: the layer computes what it did, but the inputs
 * of its linears are divided by s, and the weights' columns multiplied.
 *
 *   slot   columns times s      divided by s
 *   qkv    q, k, v              norm1
 *   o      o                    rows of v; where queries share keys (grouped-query attention) o has no scales
 *   up     up, gate             norm2
 *   down   down                 rows of up; where there is no gate down has no scales
 *
 * In a vision tower, o has none either.  A parallel layer's one norm is divided by the scales of qkv, which
 * multiply up and gate too.  The experts of a sparse layer have scales of their own for down; those of up and gate are one for
 * all, since one norm feeds them, and multiply the columns of the router, which chooses as before. */
#ifndef VQ_TASK_SEARCH_FOLD_H
#define VQ_TASK_SEARCH_FOLD_H

#include "model/layer.h"
#include "quant/awq.h"

struct vq_fold {
	float *s[VQ_N_SLOTS];          /* [inputs of the slot] or NULL; owned */
	float *down[VQ_LIMIT_EXPERTS]; /* of each expert's down in a sparse layer, instead of s */
};

/* Where the scales of a place are kept. */
float **vq_fold_at(struct vq_fold *f, const struct vq_layer *l, enum vq_slot slot, uint32_t expert);

/* Whether the slot of a layer of the decoder, or of a vision tower, can have scales. */
int vq_fold_can(const struct vq_layer *l, enum vq_slot slot, int decoder);

/* Linear k of l (of an expert, where l is sparse and k of its MLP), which has its own weights, with the scales.  Borrows
 * from both. */
struct vq_awq_weight vq_fold_weight(const struct vq_fold *f, const struct vq_layer *l,
				    enum vq_lin k, uint32_t expert);

/* The norm, bias or router of l that `name` ("norm1.weight", "v_proj.bias", "router.weight", ...) is, if scales change it: 1 and
 * *out, as many numbers as it has, given; else 0. */
VQ_MUST_CHECK int vq_fold_floats(const struct vq_fold *f, const struct vq_layer *l,
				 const char *name, float **out, struct vq_err *err);

void vq_fold_free(struct vq_fold *f);

#endif
