/* The state of training adapters, in a file: a run that was stopped goes on from it to the same bytes. */
#ifndef VQ_TASK_HEAL_STATE_H
#define VQ_TASK_HEAL_STATE_H

#include "base/sha256.h"
#include "model/lora.h"
#include "task/heal.h"

struct vq_lora_state {
	char setup
		[VQ_SHA256_HEX]; /* of all that determines the course: model, blocks, samples, options */
	uint32_t step, best_step; /* done; the one whose adapters are best */
	double best_loss;
	float *best; /* [lora->n] */
};

/* Before the first step. */
VQ_MUST_CHECK int vq_lora_state_new(struct vq_lora_state *s, const struct vq_lora *l,
				    const struct vq_heal *h, struct vq_err *err);
void vq_lora_state_free(struct vq_lora_state *s); /* fine on zeroes */

/* Whole or not at all: path.part is renamed.  Reading fills s and l; a file that is not there leaves both as they are,
 * one of another setup, or damaged, is VQ_E_DATA.
 *
 * Bytes: "VQLMLORA", setup (64 letters), u32 step, u32 best_step, f64 best_loss, u64 n, then f32 [4, n]: value, moment1,
 * moment2, best; XXH64 of all before it.  Little-endian. */
VQ_MUST_CHECK int vq_lora_state_write(const struct vq_lora_state *s, const struct vq_lora *l,
				      const char *path, struct vq_err *err);
VQ_MUST_CHECK int vq_lora_state_read(struct vq_lora_state *s, struct vq_lora *l, const char *path,
				     struct vq_err *err);

#endif
