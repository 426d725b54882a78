/* vqlm-export: a packed model as a folder that other engines load.
 *
 * Integers and grids are written as they are: nothing is rounded again.  What a format cannot say is refused, or left
 * out where the caller chose so and told in vqlm.json beside the model.  Holds one tensor at a time, and while it measures
 * what one prompt takes; the folder appears when it is whole. */
#ifndef VQ_TASK_EXPORT_H
#define VQ_TASK_EXPORT_H

#include <stdint.h>
#include <stdio.h>

#include "base/err.h"

enum vq_export_format {
	VQ_EXPORT_AWQ,
	VQ_EXPORT_GPTQ,
	VQ_EXPORT_CT, /* compressed-tensors */
	VQ_EXPORT_BNB,
	VQ_EXPORT_GGUF
};
#define VQ_EXPORT_FORMATS "awq|gptq|compressed-tensors|bnb|gguf" /* in this order */

/* What becomes of quantized inputs. */
enum vq_export_acts {
	VQ_EXPORT_ACTS_REFUSE,
	VQ_EXPORT_ACTS_DROP,
	VQ_EXPORT_ACTS_DYNAMIC, /* int8, a range for each token */
	VQ_EXPORT_ACTS_STATIC   /* int8, the stored ranges made one */
};

struct vq_export_opts {
	int to, acts; /* of the above */
	int gptq_v2;  /* zero points as they are; else less 1 */
	int verify, force;
	unsigned parts; /* VQ_PART_*: what goes out as integers where the model has it so */
	uint64_t shard_bytes;
	const char *dir;

	/* Prompts to measure what quantized inputs become of (task/export_effect.h), or NULL; n of them, a seeded choice. */
	const char *data, *images; /* images NULL: beside data */
	uint32_t n;
	uint64_t seed;
};

/* Exports the packed model of that path; what was done goes to out, a line each.  VQ_E_DATA names the tensor that the
 * format cannot hold, VQ_E_NO says that what was read back differs, VQ_E_STOP that a signal asked to stop: no folder is
 * left then. */
VQ_MUST_CHECK int vq_export_run(const struct vq_export_opts *o, const char *path, FILE *out,
				struct vq_err *err);

#endif
