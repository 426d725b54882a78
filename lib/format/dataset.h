/* Questions: LLaVA conversation JSON ([{"id", "image"?, "conversations": [{"from", "value"}...]}...]), LLaVA's
 * question files ({"question_id", "image"?, "text"} a line), and JSON Lines of either. */
#ifndef VQ_FORMAT_DATASET_H
#define VQ_FORMAT_DATASET_H

#include <stdint.h>

#include "base/json.h"

struct vq_item {
	const char *id;    /* borrowed from the data set; numbers are turned into text */
	const char *text;  /* first human turn; "<image>" marks where the picture goes */
	const char *image; /* path as written in the file, or NULL */
	const char *label; /* first gpt turn ("C"), or NULL */
};

struct vq_dataset {
	struct vq_item *items;
	uint32_t n;
	char *dir;       /* of the data file, or the --images folder: images are relative to it */
	char sha256[65]; /* of the file */
	struct vq_dataset_priv *priv;
};

/* images: --images DIR or NULL.  Duplicate ids, no conversation, no human turn: VQ_E_DATA with the place
 * (file, item or line, id).  A question file says nothing about where the picture goes: as in LLaVA, an
 * "<image>\n" is put first where an item has a picture and its text no "<image>".  A path that cannot be
 * opened is VQ_E_SYS. */
VQ_MUST_CHECK int vq_dataset_open(struct vq_dataset *d, const char *path, const char *images,
				  struct vq_err *err);
void vq_dataset_close(struct vq_dataset *d);

/* Path of an item's picture; NULL and no error when it has none.  Given. */
char *vq_dataset_image(const struct vq_dataset *d, const struct vq_item *it, struct vq_err *err);

/* ScienceQA's problems.json and pid_splits.json: format/scienceqa.h. */

#define VQ_MAX_CHOICES 26 /* one a letter */

/* The choices of a question: its last lines "A. ", "B. ", ... (a choice may span lines), or "(A) ... (B) ..." in
 * the form with "Options:".  0 when there are none. */
uint32_t vq_count_choices(const char *text);

#endif
