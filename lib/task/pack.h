/* vqlm-pack: from searched streams to the packed model (vqlm-model(5)).
 *
 * Holds one tensor at a time.  Members: model.json, the tokenizer's files, preprocessor.json, then NAME.json and
 * NAME for every tensor in the order of the input, card.md (its table needs all sizes), manifest.json. */
#ifndef VQ_TASK_PACK_H
#define VQ_TASK_PACK_H

#include "base/err.h"

struct vq_pack_opts {
	const char *base_model; /* for the card; NULL: the stream's model name */
	const char *license;    /* for the card; NULL: "unknown" */
	int head8; /* token embedding and head: 8 bits a weight, symmetric, groups of 128 */
};

/* Reads all segments from in_fd, writes the packed model to out_fd. */
VQ_MUST_CHECK int vq_pack_run(const struct vq_pack_opts *o, int in_fd, const char *in_label,
			      int out_fd, const char *out_label, struct vq_err *err);

#endif
