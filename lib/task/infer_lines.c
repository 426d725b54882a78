/* JSON Lines of a run that may be cut and resumed. */
#include "task/infer_lines.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/stop.h"
#include "stream/history.h"

int vq_lines_put(struct vq_lines *f, json_t *j, struct vq_err *err)
{
	char *text = j ? vq_json_text(j, err) : NULL;
	int rc = VQ_E_SYS;

	if (!j)
		vq_fail(err, VQ_E_SYS, "memory: cannot make a record");
	if (text) {
		size_t n = strlen(text);

		text[n] = '\n'; /* its zero byte is not needed again: a line is one write */
		rc = vq_write_full(f->out.fd, text, n + 1, f->out.label, err);
	}
	vq_free(text);
	json_decref(j);
	return rc;
}

int vq_lines_put_old(struct vq_lines *f, uint32_t i, struct vq_err *err)
{
	const char *line = f->asks.v[i].line;
	int rc = vq_write_full(f->out.fd, line, strlen(line), f->out.label, err);

	return rc < 0 ? rc : vq_write_full(f->out.fd, "\n", 1, f->out.label, err);
}

/* --- logits --- */

static int open_logits(struct vq_lines *f, const struct vq_loaded *l, struct vq_err *err)
{
	json_t *head;
	int rc = vq_output_open(&f->logits_out, f->o->logits, err);

	if (rc < 0)
		return rc;
	head = vq_header_new("vqlm-infer", l->identity, err);
	rc = head ? vq_writer_open(&f->logits, f->logits_out.fd, f->logits_out.label, f->o->level,
				   err)
		  : VQ_E_SYS;
	if (rc >= 0)
		rc = vq_writer_begin(f->logits, head, err);
	if (rc < 0 && !f->logits)
		vq_output_abort(&f->logits_out, 0);
	json_decref(head);
	return rc;
}

static int close_logits(struct vq_lines *f, int rc, struct vq_err *err)
{
	if (rc >= 0)
		rc = vq_writer_end(f->logits, err);
	vq_writer_close(f->logits);
	f->logits = NULL;
	if (rc >= 0)
		return vq_output_commit(&f->logits_out, err);
	vq_output_abort(&f->logits_out, 0);
	return rc;
}

int vq_lines_put_logits(struct vq_lines *f, const char *id, const float *logits, uint32_t n_rows,
			uint32_t vocab, struct vq_err *err)
{
	struct vq_tensor t = {VQ_F32, 1, {vocab}, logits};
	char name[VQ_NAME_MAX + 1];

	if (n_rows)
		t = (struct vq_tensor){VQ_F32, 2, {n_rows, vocab}, logits};
	if (snprintf(name, sizeof(name), "logits/%s", id) >= (int)sizeof(name))
		return vq_fail(err, VQ_E_DATA,
			       "question '%.40s...': its id is too long for a record", id);
	return vq_writer_put_tensor(f->logits, VQ_KIND_TENSOR, name, &t, NULL, err);
}

/* --- opening, running, closing --- */

/* The earlier answers are read before the output opens, which may be the same file; f->aside keeps them until the
 * new one is whole. */
static int resume(struct vq_lines *f, const json_t *head, struct vq_err *err)
{
	char *text = vq_json_text(head, err); /* numbers as a file has them */
	json_t *written = text ? vq_json_parse(text, strlen(text), "opening", err) : NULL;
	int rc = written ? vq_output_aside(&f->aside, f->o->output, f->o->resume, err) : VQ_E_SYS;

	if (rc >= 0)
		rc = vq_asks_resume(&f->asks, f->aside ? f->aside : f->o->resume, written, err);

	vq_free(text);
	json_decref(written);
	return rc;
}

int vq_lines_open(struct vq_lines *f, const struct vq_loaded *l, json_t *head, struct vq_err *err)
{
	int rc = head ? VQ_OK : vq_fail(err, VQ_E_SYS, "memory: cannot make a record");

	if (rc >= 0 && f->o->resume)
		rc = resume(f, head, err);
	if (rc >= 0 && f->o->logits)
		rc = open_logits(f, l, err);
	if (rc >= 0)
		rc = vq_output_open(&f->out, f->o->output, err);
	if (rc < 0) {
		json_decref(head);
		return f->logits ? close_logits(f, rc, err) : rc;
	}
	rc = vq_lines_put(f, head, err);
	return rc < 0 ? vq_lines_close(f, rc, err) : rc;
}

static int stopped(const struct vq_lines *f, struct vq_err *err)
{
	if (f->out.part)
		return vq_fail(err, VQ_E_STOP, "stopped after %u of %u %s; --resume %s goes on",
			       f->next, f->asks.n, f->things, f->out.part);
	return vq_fail(err, VQ_E_STOP, "stopped after %u of %u %s", f->next, f->asks.n, f->things);
}

int vq_lines_all(struct vq_lines *f, vq_lines_step step, void *ctx, struct vq_err *err)
{
	struct vq_progress p;
	int rc = VQ_OK;

	vq_progress_start(&p, f->things, f->asks.n);
	while (rc >= 0 && f->next < f->asks.n) {
		rc = vq_stop_asked() ? stopped(f, err) : step(ctx, err);
		vq_progress_step(&p, f->next);
	}
	vq_progress_end(&p);
	return rc;
}

int vq_lines_close(struct vq_lines *f, int rc, struct vq_err *err)
{
	if (f->logits)
		rc = close_logits(f, rc, err);
	if (rc < 0) {
		vq_output_abort(&f->out, 1);
		return rc;
	}
	rc = vq_output_commit(&f->out, err);
	if (rc >= 0 && f->aside)
		unlink(f->aside);
	return rc;
}

int vq_lines_run(struct vq_lines *f, const struct vq_lines_scored *s, json_t *head,
		 vq_lines_step step, void *ctx, struct vq_err *err)
{
	int rc = vq_lines_open(f, s->l, head, err);

	if (rc < 0)
		return rc;
	rc = vq_lines_all(f, step, ctx, err);
	if (rc >= 0)
		rc = vq_lines_put(f,
				  vq_infer_totals(s->l, &f->asks, s->times, 1, s->t_loaded - s->t0,
						  vq_now() - s->t0),
				  err);
	return vq_lines_close(f, rc, err);
}

void vq_lines_free(struct vq_lines *f)
{
	vq_free(f->aside);
	vq_asks_close(&f->asks);
}
