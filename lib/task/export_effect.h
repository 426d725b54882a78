/* What an export's inputs change: prompts through the packed model as it is, and with the inputs that the folder's readers
 * have. */
#ifndef VQ_TASK_EXPORT_EFFECT_H
#define VQ_TASK_EXPORT_EFFECT_H

#include "task/export_parts.h"

/* Runs x->o->n prompts of x->o->data, a seeded choice, through both, weights the same integers, all else float32; says the
 * figures and keeps them as x->effect:
 *   {"linears": whose inputs differ, "int8": those of them with 8 bits, the others' are floating point,
 *    "data_sha256", "n", "seed", "kl_mean", "kl_max": KL divergence of
 *    the next-token distribution from the packed model's in nats, "same_top": share of prompts with the same likeliest
 *    token, "engine": what of the engine is not in it, or null}
 * A file that cannot be read: VQ_E_SYS; a bad one, or one with fewer prompts: VQ_E_DATA.  One prompt at a time: threads
 * change nothing. */
VQ_MUST_CHECK int vq_export_effect(struct vq_export *x, struct vq_err *err);

/* Its section of the card: the figures, that nobody measured, or nothing where no input is quantized. */
void vq_export_effect_card(struct vq_str *b, const struct vq_export *x);

#endif
