/* The output of a long run: an opening record, a line for each thing asked, totals; beside it, when wanted, a stream of
 * logits.  A run that was cut can be resumed from it. */
#ifndef VQ_TASK_INFER_LINES_H
#define VQ_TASK_INFER_LINES_H

#include "base/io.h"
#include "stream/writer.h"
#include "task/infer_parts.h"

struct vq_lines {
	const struct vq_infer *o;
	const char *things; /* "questions" */
	struct vq_asks asks;
	uint32_t next; /* of the asks: the one whose line comes next */
	struct vq_output out, logits_out;
	struct vq_writer *logits; /* NULL: not wanted */
	char *aside; /* the lines that are taken over, when they were in the output's place */
};

/* One step of the work: writes the lines of the asks from f->next on, as many as it likes but one, and moves f->next on;
 * also before a failure, for what was done until then. */
typedef int (*vq_lines_step)(void *ctx, struct vq_err *err);

/* Takes over what o->resume has (its opening must be head), opens the outputs and writes head, which is given. */
VQ_MUST_CHECK int vq_lines_open(struct vq_lines *f, const struct vq_loaded *l, json_t *head,
				struct vq_err *err);

/* A line; j is given, NULL: there was no memory for it. */
VQ_MUST_CHECK int vq_lines_put(struct vq_lines *f, json_t *j, struct vq_err *err);

/* The line of ask i that an earlier run wrote. */
VQ_MUST_CHECK int vq_lines_put_old(struct vq_lines *f, uint32_t i, struct vq_err *err);

/* Logits [n_rows, vocab] as record "logits/ID"; n_rows 0: [vocab]. */
VQ_MUST_CHECK int vq_lines_put_logits(struct vq_lines *f, const char *id, const float *logits,
				      uint32_t n_rows, uint32_t vocab, struct vq_err *err);

/* Steps until every ask has its line.  VQ_E_STOP after a signal, between two steps. */
VQ_MUST_CHECK int vq_lines_all(struct vq_lines *f, vq_lines_step step, void *ctx,
			       struct vq_err *err);

/* After all of it went well (rc >= 0) the outputs get their names; else what was written stays for --resume.
 * Returns rc or what went wrong at the end. */
VQ_MUST_CHECK int vq_lines_close(struct vq_lines *f, int rc, struct vq_err *err);

/* What the totals of a run that scores want to know. */
struct vq_lines_scored {
	const struct vq_loaded *l;
	const struct vq_run_times *times;
	double t0, t_loaded; /* vq_now() before and after loading */
};

/* Such a run whole: opens with head (given), steps, totals, closes. */
VQ_MUST_CHECK int vq_lines_run(struct vq_lines *f, const struct vq_lines_scored *s, json_t *head,
			       vq_lines_step step, void *ctx, struct vq_err *err);

void vq_lines_free(struct vq_lines *f); /* fine on zeroes */

#endif
