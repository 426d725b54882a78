/* A calibration job: what is open, what was chosen. */
#ifndef VQ_TASK_CALIB_SAMPLES_H
#define VQ_TASK_CALIB_SAMPLES_H

#include "format/checkpoint.h"
#include "format/dataset.h"
#include "format/tokenizer.h"
#include "stream/writer.h"
#include "task/calib.h"
#include "task/calib_run.h"
#include "task/plan.h"

struct vq_calib {
	const struct vq_calib_opts *o;
	struct vq_ckpt *ckpt;
	struct vq_config cfg;
	struct vq_dataset data;
	uint32_t *picks; /* [run.n] items of data, ascending */
	struct vq_tokenizer *tok;
	struct vq_calib_meta meta;
	struct vq_calib_run run; /* the prompts are here */
	struct vq_writer *w;
};

/* Opens the data and the tokenizer, chooses o->n samples, fills meta and run.prompts.  The caller frees what is
 * there, after a failure too (all zero at first). */
VQ_MUST_CHECK int vq_calib_samples(struct vq_calib *c, struct vq_err *err);
void vq_calib_samples_free(struct vq_calib *c);

#endif
