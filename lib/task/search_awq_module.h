/* The module that AWQ's scales of a place are judged by, with the weights of a candidate. */
#ifndef VQ_TASK_SEARCH_AWQ_MODULE_H
#define VQ_TASK_SEARCH_AWQ_MODULE_H

#include "task/search_sblock.h"

#define VQ_AWQ_MOST 5 /* linears of a module that read its input */

/* The inspected module of a place: attention, the MLP, or of a parallel layer both. */
struct vq_awq_module {
	const struct vq_sblock *b;
	const struct vq_place *p;
	const struct vq_walk *at; /* full precision, before the place */
	struct vq_layer layer;    /* with the weights of a candidate; owns its experts */
	size_t n_rows;            /* of the place */
	/* Those that read the place's input, and their candidates; w owned */
	const struct vq_linear *full[VQ_AWQ_MOST];
	enum vq_lin which[VQ_AWQ_MOST];
	uint32_t n;
	float *w[VQ_AWQ_MOST];
	float *s;          /* [n_in] the candidate's scales; owned */
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

#endif
