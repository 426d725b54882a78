/* Healing: what is left of a pruned model is brought nearer to the whole one on samples, by new weights in the places of
 * old ones.  Nothing of the architecture changes.
 *
 * The whole model is the teacher.  Rows that are asked for something (vq_prune_target) are measured by the divergence of
 * the next token's distribution from the teacher's (vq_loss).  Every eighth sample is held out and chooses what is kept. */
#ifndef VQ_TASK_HEAL_H
#define VQ_TASK_HEAL_H

#include "model/gradient.h"
#include "model/lora.h"
#include "task/calib_weights.h"
#include "task/prune_cut.h"
#include "task/prune_run.h"

struct vq_heal {
	const struct vq_prune_opts *o;
	const struct vq_ckpt *ckpt;
	const struct vq_prune_run *run; /* the whole model and the samples */
	const struct vq_blocks *kept;
	struct vq_model cut; /* the model that is left; blocks may be given other weights */
	int32_t *asked;      /* [rows] what vq_loss has as targets */
	float *teacher;      /* [rows, d] hidden states after the whole model's last block */
	/* New weights of cut's linears by number (vq_layer_linear_at), f32 [n_out, n_in], or NULL; owned. */
	float **weight;      /* [kept->n, n_linears] */
	uint32_t n_linears;  /* of the layer that has most */
	struct vq_lora lora; /* adapters of cut's linears instead, to be merged; n 0: none */
};

/* Runs the whole model.  At least two samples, or it is VQ_E_USAGE.  All are borrowed until vq_heal_close. */
VQ_MUST_CHECK int vq_heal_open(struct vq_heal *h, const struct vq_prune_opts *o,
			       const struct vq_ckpt *k, const struct vq_prune_run *run,
			       const struct vq_blocks *kept, struct vq_err *err);
void vq_heal_close(struct vq_heal *h); /* fine on zeroes */

int vq_heal_is_held(uint32_t sample, uint32_t n_samples);

/* Some of the samples, laid out one after the other. */
struct vq_heal_part {
	struct vq_batch b;
	uint32_t *start, *samples;
	uint32_t n, n_asked;
	int32_t *asked;
	float *teacher, *h; /* [rows, d]; h: what enters the decoder */
};

VQ_MUST_CHECK int vq_heal_part_new(struct vq_heal_part *p, const struct vq_heal *h,
				   const uint32_t *samples, uint32_t n, struct vq_err *err);
void vq_heal_part_free(struct vq_heal_part *p);
/* The samples that are held out (1), or not (0). */
VQ_MUST_CHECK int vq_heal_part_split(struct vq_heal_part *p, const struct vq_heal *h, int held,
				     struct vq_err *err);

/* Mean divergence of the model that is left, as it is now; p->h is lost.  enter and ctx: of vq_gradient, or NULL. */
VQ_MUST_CHECK int vq_heal_loss(const struct vq_heal *h, struct vq_heal_part *p,
			       int (*enter)(void *ctx, uint32_t layer, struct vq_layer *l,
					    struct vq_err *err),
			       void *ctx, double *loss, struct vq_err *err);

/* Linear `number` of a layer of cut gets the weight w, f32, which h owns from now on; what it had from here before is freed. */
void vq_heal_set(struct vq_heal *h, uint32_t layer, uint32_t number, float *w);

/* For vq_calib_weights: the new weights under their names. */
struct vq_weight_edit vq_heal_edit(struct vq_heal *h);

/* --- the ways to heal --- */

struct vq_healing {
	const char *name; /* as --heal has it */
	int (*run)(struct vq_heal *h, struct vq_err *err);
};

extern const struct vq_healing vq_healings[];
extern const size_t vq_n_healings;
#define VQ_HEALINGS "linear|lora" /* their names, for messages */

const struct vq_healing *vq_healing_by_name(const char *name); /* NULL: unknown */

/* task/heal_linear.c, task/heal_lora.c */
VQ_MUST_CHECK int vq_heal_linear(struct vq_heal *h, struct vq_err *err);
VQ_MUST_CHECK int vq_heal_lora(struct vq_heal *h, struct vq_err *err);

#endif
