/* The module that AWQ's scales of a place are judged by, with the weights of a candidate.
 *
 *   attention and o, or the MLP    from its first place on, as search_awq.h has them
 *   o, down                        the linear
 *   all the rest of the layer      where others read what the scales divide: from qkv on in a parallel layer, whose up
 *                                  and gate do, and from up on in a sparse one, whose experts and router do */
#ifndef VQ_TASK_SEARCH_AWQ_MODULE_H
#define VQ_TASK_SEARCH_AWQ_MODULE_H

#include "task/search_sblock.h"

/* A linear that reads the input that is divided. */
struct vq_awq_reader {
	const struct vq_linear *full;
	enum vq_lin which;
	uint32_t expert;
	float *w; /* [n_out, n_in] of a candidate; owned */
};

struct vq_awq_module {
	const struct vq_sblock *b;
	const struct vq_place *p;
	const struct vq_walk *at; /* full precision, before the place */
	int rest;                 /* the module is the rest of the layer */
	struct vq_layer layer;    /* with the weights of a candidate; owns its experts */
	const float *x, *r; /* [n_rows, n_in] and [n_rows] of those that go in; r NULL: all 1 */
	size_t n_rows;
	struct vq_awq_reader *readers; /* owned */
	uint32_t n;
	float *router; /* [n_experts, hidden] of the candidate, where it reads the input; owned */
	float *s;      /* [n_in] the candidate's scales; owned */
	float *target, *y; /* [n_rows, width]; owned */
	uint32_t width;
};

/* For place p, which the walk `at` in full precision stands before; all are kept until free, which is due on failure too. */
VQ_MUST_CHECK int vq_awq_module_new(struct vq_awq_module *m, const struct vq_sblock *b,
				    const struct vq_place *p, const struct vq_walk *at,
				    struct vq_err *err);
void vq_awq_module_free(struct vq_awq_module *m);

/* xm, and wm with duo: [n_in] each; see quant/awq.h. */
VQ_MUST_CHECK int vq_awq_module_means(const struct vq_awq_module *m, double *xm, double *wm,
				      struct vq_err *err);

/* A vq_awq_loss; ctx is the module. */
VQ_MUST_CHECK int vq_awq_module_loss(void *ctx, const double *s, double *loss, struct vq_err *err);

/* Places that a loss runs. */
uint32_t vq_awq_module_places(const struct vq_awq_module *m);

#endif
