/* Answers of a model: ours and LLaVA's. */
#ifndef VQ_FORMAT_ANSWERS_H
#define VQ_FORMAT_ANSWERS_H

#include <stdint.h>

#include "base/json.h"
#include "format/shards.h"

/* Four forms are read:
 *   ours     JSON Lines that open with {"vqlm": "answers", "producer", "model", "split", "ids": [...]} and
 *            end with {"vqlm": "totals", ...}; several such runs may follow one another that say the same but for
 *            "ids" and "shard": parts of one run
 *   lines    JSON Lines of {"question_id", "text"}
 *   judged   {"correct": [...], "incorrect": [...]} of {"question_id", "pred"}
 *   results  {"results": {id: choice}, "outputs": {id: text}}; outputs win where both are there */
struct vq_answer {
	char *id;
	char *text;        /* NULL: only the choice is known */
	int choice;        /* 0 = A; -1 unless the file gives no text */
	uint64_t line;     /* 0 in a one-object file */
	const char *label; /* its file; borrowed */
};

struct vq_answers {
	struct vq_answer *items;
	uint32_t n, room;
	int has_asked; /* the file says which ids were asked */
	json_t *asked; /* list of id strings */
	json_t *model; /* the opening lines' "model" and "producer", or NULL */
	json_t *producer;
	json_t *totals;  /* the last closing line, or NULL */
	json_t *map;     /* id -> position */
	json_t *opening; /* the first, or NULL */
	struct vq_shards shards;
};

/* Reads all of the files ("-" = standard input), one after the other as if they were one.  Duplicate ids, text that is no JSON
 * or no UTF-8, a line cut short, an opening without totals, openings of two runs, shards that are not all there, nothing
 * at all: VQ_E_DATA naming file and line.  The paths are kept until the close. */
VQ_MUST_CHECK int vq_answers_open(struct vq_answers *a, const char *const *paths, uint32_t n,
				  struct vq_err *err);
void vq_answers_close(struct vq_answers *a);

#endif
