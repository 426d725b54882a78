/* What the right answers are: ScienceQA's problems.json with pid_splits.json, or a LLaVA conversation
 * file whose gpt turns hold the letter. */
#ifndef VQ_FORMAT_SCIENCEQA_H
#define VQ_FORMAT_SCIENCEQA_H

#include <stdint.h>

#include "base/json.h"
#include "format/dataset.h"

/* The classes of the ScienceQA table (Lu et al., NeurIPS 2022, tools/evaluate_acc.py): subject, context
 * (text, image, neither; a question may have both), grade, all. */
enum vq_sqa_class {
	VQ_SQA_NAT,
	VQ_SQA_SOC,
	VQ_SQA_LAN,
	VQ_SQA_TXT,
	VQ_SQA_IMG,
	VQ_SQA_NO,
	VQ_SQA_G1_6,
	VQ_SQA_G7_12,
	VQ_SQA_AVG,
	VQ_SQA_N_CLASSES
};

const char *vq_sqa_class_name(int c); /* "NAT" ... "Avg" */

struct vq_sqa_ref {
	const char *id;     /* borrowed from the file */
	uint32_t answer;    /* 0 = A */
	uint32_t n_choices; /* 0 = not known */
	uint32_t classes;   /* 1 << VQ_SQA_x */
	int in_split;
};

struct vq_sqa {
	struct vq_sqa_ref *refs;
	uint32_t n, n_split;    /* all; those of the split */
	uint32_t known;         /* classes that the file can tell */
	char *split;            /* NULL: the whole file */
	json_t *map;            /* id -> position */
	json_t *root;           /* problems.json, or */
	struct vq_dataset data; /* the conversations */
};

/* split: NULL takes "test" for problems.json and the whole of a conversation file.  Splits come from
 * pid_splits.json beside path, else from the problems' own "split".  Bad content, an unknown split, an id
 * of the split without a problem: VQ_E_DATA; path absent: VQ_E_SYS. */
VQ_MUST_CHECK int vq_sqa_open(struct vq_sqa *s, const char *path, const char *split,
			      struct vq_err *err);
void vq_sqa_close(struct vq_sqa *s);

/* Position of a question, or -1. */
int64_t vq_sqa_find(const struct vq_sqa *s, const char *id);

#endif
