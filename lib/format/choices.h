/* Questions with choices whose probabilities are compared: zero-shot tasks. */
#ifndef VQ_FORMAT_CHOICES_H
#define VQ_FORMAT_CHOICES_H

#include <stdint.h>

#include "base/json.h"
#include "base/sha256.h"

/* A task as lm-evaluation-harness has it. */
struct vq_choice_task {
	const char *name;
	uint32_t n;     /* questions of the split that is scored */
	int has_norm;   /* acc_norm is defined */
	int wants_norm; /* and is what the average of seven takes, as Shortened LLaMA's tables do */
	int is_one;     /* of the seven */
};

#define VQ_N_CHOICE_TASKS 8
#define VQ_N_ZERO_SHOT    7

extern const struct vq_choice_task vq_choice_tasks[VQ_N_CHOICE_TASKS];

/* "boolq, piqa, ...", for messages. */
const char *vq_choice_task_names(void);

/* Position of a task, or -1. */
int vq_choice_task_find(const char *name);

#define VQ_MAX_CONTINUATIONS 26

struct vq_choices_item {
	const char *id, *task; /* borrowed from the file's objects */
	uint32_t n, answer;    /* choices; the right one */
	const char *context[VQ_MAX_CONTINUATIONS], *choice[VQ_MAX_CONTINUATIONS];
	uint32_t chars
		[VQ_MAX_CONTINUATIONS]; /* Unicode characters of the choice without the space ahead */
};

struct vq_choices {
	struct vq_choices_item *items;
	uint32_t n, room;
	char sha256[VQ_SHA256_HEX]; /* of the file */
	json_t *objects, *ids;      /* what the items borrow; id -> 1 */
};

/* JSON Lines of {"id", "task", "context": text, or a list of one for each choice, "choices": [text...], "answer": position};
 * a choice continues its context as it stands, blank and all.  path "-": standard input.  Anything else: VQ_E_DATA
 * naming the line. */
VQ_MUST_CHECK int vq_choices_open(struct vq_choices *c, const char *path, struct vq_err *err);
void vq_choices_close(struct vq_choices *c); /* fine on zeroes */

#endif
