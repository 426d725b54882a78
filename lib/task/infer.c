/* Questions in batches, answers in JSON Lines; or one question in plain text. */
#include "task/infer.h"

#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/stop.h"
#include "kernel/cpu.h"
#include "model/products.h"
#include "stream/history.h"
#include "stream/writer.h"
#include "task/infer_parts.h"

struct run {
	const struct vq_infer *o;
	struct vq_loaded l;
	struct vq_asks asks;
	struct vq_rounds rounds;
	uint32_t max_tokens;
	uint32_t next; /* question that comes next */
	struct vq_output out, logits_out;
	struct vq_writer *logits;
	double t0, t_loaded;
	size_t printed; /* bytes of a single answer that have gone out */
	char *aside;    /* the answers that are taken over, when they were in the output's place */
};

/* --- records --- */

static int put_line(struct run *r, json_t *j, struct vq_err *err)
{
	char *text = j ? vq_json_text(j, err) : NULL;
	int rc = VQ_E_SYS;

	if (!j)
		vq_fail(err, VQ_E_SYS, "memory: cannot make a record");
	if (text) {
		size_t n = strlen(text);

		text[n] = '\n'; /* its zero byte is not needed again: a line is one write */
		rc = vq_write_full(r->out.fd, text, n + 1, r->out.label, err);
	}
	vq_free(text);
	json_decref(j);
	return rc;
}

/* --- rounds --- */

static int put_logits(struct run *r, const struct vq_answering *a, struct vq_err *err)
{
	struct vq_tensor t = {VQ_F32, 1, {r->l.vocab}, a->logits};
	char name[VQ_NAME_MAX + 1];

	if (snprintf(name, sizeof(name), "logits/%s", a->ask->id) >= (int)sizeof(name))
		return vq_fail(err, VQ_E_DATA,
			       "question '%.40s...': its id is too long for a record", a->ask->id);
	return vq_writer_put_tensor(r->logits, VQ_KIND_TENSOR, name, &t, NULL, err);
}

static int write_answers(struct run *r, struct vq_err *err)
{
	uint32_t i;
	int rc = VQ_OK;

	for (i = 0; rc >= 0 && i < r->rounds.n; i++) {
		const struct vq_answering *a = &r->rounds.v[i];
		const char *line = r->asks.v[r->next + i].line;

		if (!line) {
			rc = put_line(r, vq_infer_answer(a), err);
			if (rc >= 0 && r->logits)
				rc = put_logits(r, a, err);
			continue;
		}
		rc = vq_write_full(r->out.fd, line, strlen(line), r->out.label, err);
		if (rc >= 0)
			rc = vq_write_full(r->out.fd, "\n", 1, r->out.label, err);
	}
	return rc;
}

static int stopped(const struct run *r, struct vq_err *err)
{
	if (r->out.part)
		return vq_fail(err, VQ_E_STOP,
			       "stopped after %u of %u questions; --resume %s goes on", r->next,
			       r->asks.n, r->out.part);
	return vq_fail(err, VQ_E_STOP, "stopped after %u of %u questions", r->next, r->asks.n);
}

/* The next questions; what could be answered before a failure is written. */
static int one_round(struct run *r, struct vq_err *err)
{
	struct vq_err late = {0};
	int rc = vq_round(&r->rounds, r->asks.v + r->next, r->asks.n - r->next, &late);
	int written = write_answers(r, err);

	r->next += r->rounds.n;
	vq_peak_anon();
	if (written < 0)
		return written;
	return rc < 0 ? vq_fail(err, rc, "%s", late.text) : VQ_OK;
}

static int all_rounds(struct run *r, struct vq_err *err)
{
	struct vq_progress p;
	int rc = VQ_OK;

	vq_progress_start(&p, "questions", r->asks.n);
	while (rc >= 0 && r->next < r->asks.n) {
		rc = vq_stop_asked() ? stopped(r, err) : one_round(r, err);
		vq_progress_step(&p, r->next);
	}
	vq_progress_end(&p);
	return rc;
}

/* --- the two ways to answer --- */

static int open_logits(struct run *r, struct vq_err *err)
{
	json_t *head;
	int rc = vq_output_open(&r->logits_out, r->o->logits, err);

	if (rc < 0)
		return rc;
	head = vq_header_new("vqlm-infer", r->l.identity, err);
	rc = head ? vq_writer_open(&r->logits, r->logits_out.fd, r->logits_out.label, r->o->level,
				   err)
		  : VQ_E_SYS;
	if (rc >= 0)
		rc = vq_writer_begin(r->logits, head, err);
	if (rc < 0 && !r->logits)
		vq_output_abort(&r->logits_out, 0);
	json_decref(head);
	return rc;
}

static int close_logits(struct run *r, int rc, struct vq_err *err)
{
	if (rc >= 0)
		rc = vq_writer_end(r->logits, err);
	vq_writer_close(r->logits);
	if (rc >= 0)
		return vq_output_commit(&r->logits_out, err);
	vq_output_abort(&r->logits_out, 0);
	return rc;
}

static int put_totals(struct run *r, struct vq_err *err)
{
	struct vq_run_times sum = {0};
	uint32_t i;

	for (i = 0; i < r->rounds.workers; i++) {
		const struct vq_run_times *t = &r->rounds.b[i].times;

		sum.vision += t->vision;
		sum.prefill += t->prefill;
		sum.decode += t->decode;
		sum.pictures += t->pictures;
		sum.prompt_tokens += t->prompt_tokens;
		sum.decoded_tokens += t->decoded_tokens;
	}
	return put_line(r,
			vq_infer_totals(&r->l, &r->asks, &sum, r->rounds.workers,
					r->t_loaded - r->t0, vq_now() - r->t0),
			err);
}

/* The earlier answers are read before the output opens, which may be the same file; r->aside keeps them until the
 * new one is whole. */
static int resume(struct run *r, const json_t *head, struct vq_err *err)
{
	char *text = vq_json_text(head, err); /* numbers as a file has them */
	json_t *written = text ? vq_json_parse(text, strlen(text), "opening", err) : NULL;
	int rc = written ? vq_output_aside(&r->aside, r->o->output, r->o->resume, err) : VQ_E_SYS;

	if (rc >= 0)
		rc = vq_asks_resume(&r->asks, r->aside ? r->aside : r->o->resume, written, err);

	vq_free(text);
	json_decref(written);
	return rc;
}

static int answer_all(struct run *r, struct vq_err *err)
{
	json_t *head = vq_infer_opening(r->o, &r->l, &r->asks, r->max_tokens);
	int rc = head ? VQ_OK : vq_fail(err, VQ_E_SYS, "memory: cannot make a record");

	if (rc >= 0 && r->o->resume)
		rc = resume(r, head, err);
	if (rc >= 0 && r->o->logits)
		rc = open_logits(r, err);
	if (rc >= 0)
		rc = vq_output_open(&r->out, r->o->output, err);
	if (rc < 0) {
		json_decref(head);
		return r->logits ? close_logits(r, rc, err) : rc;
	}
	rc = put_line(r, head, err);
	if (rc >= 0)
		rc = all_rounds(r, err);
	if (rc >= 0)
		rc = put_totals(r, err);
	if (r->logits)
		rc = close_logits(r, rc, err);
	if (rc < 0) {
		vq_output_abort(&r->out, 1);
		return rc;
	}
	rc = vq_output_commit(&r->out, err);
	if (rc >= 0 && r->aside)
		unlink(r->aside);
	return rc;
}

static int print_more(void *ctx, const struct vq_answering *a, struct vq_err *err)
{
	struct run *r = ctx;
	size_t from = r->printed;

	if (vq_stop_asked())
		return vq_fail(err, VQ_E_STOP, "stopped");
	if (a->text.n <= from)
		return VQ_OK;
	r->printed = a->text.n;
	return vq_write_full(r->out.fd, a->text.s + from, a->text.n - from, r->out.label, err);
}

/* A question in plain text, its answer as it comes. */
static int talk(struct run *r, struct vq_ask *q, struct vq_err *err)
{
	int rc;

	r->printed = 0;
	rc = vq_round(&r->rounds, q, 1, err);
	if (rc >= 0 && r->o->score)
		rc = print_more(r, &r->rounds.v[0], err);
	return rc < 0 ? rc : vq_write_full(r->out.fd, "\n", 1, r->out.label, err);
}

/* Somebody types. */
static int converse(struct run *r, struct vq_err *err)
{
	char id[] = "1", *line = NULL;
	size_t room = 0;
	int rc = vq_output_open(&r->out, r->o->output, err);

	if (rc < 0)
		return rc;
	r->rounds.b[0].max_tokens = r->o->max_tokens ? r->o->max_tokens : 256;
	r->rounds.b[0].on_text = print_more;
	r->rounds.b[0].ctx = r;
	for (;;) {
		struct vq_ask q = {.id = id};
		ssize_t n;

		fputs("> ", stderr);
		n = getline(&line, &room, stdin);
		if (n <= 0 || rc < 0)
			break;
		line[strcspn(line, "\n")] = '\0';
		q.text = line;
		rc = talk(r, &q, err);
	}
	free(line);
	if (rc >= 0)
		return vq_output_commit(&r->out, err);
	vq_output_abort(&r->out, 1);
	return rc;
}

static int answer_one(struct run *r, struct vq_err *err)
{
	char id[] = "1";
	struct vq_ask q = {.id = id};
	struct vq_str text = {0};
	int rc = vq_output_open(&r->out, r->o->output, err);

	if (rc < 0)
		return rc;
	if (r->o->image && access(r->o->image, R_OK) != 0)
		rc = vq_fail_errno(err, VQ_E_SYS, "%s: cannot open", r->o->image);
	if (r->o->image && !strstr(r->o->question, "<image>"))
		vq_str_puts(&text, "<image>\n");
	vq_str_puts(&text, r->o->question);
	q.text = text.s;
	q.image = (char *)r->o->image; /* only read */
	r->rounds.b[0].on_text = print_more;
	r->rounds.b[0].ctx = r;
	if (rc >= 0 && text.failed)
		rc = vq_fail(err, VQ_E_SYS, "memory: cannot keep the question");
	if (rc >= 0)
		rc = talk(r, &q, err);
	vq_str_free(&text);
	if (rc >= 0)
		return vq_output_commit(&r->out, err);
	vq_output_abort(&r->out, 0);
	return rc;
}

static int open_rounds(struct run *r, struct vq_err *err)
{
	int rc;

	vq_mem_keep_freed();
	rc = vq_rounds_open(&r->rounds, r->o, &r->l, err);
	if (rc < 0)
		return rc;
	vq_info("%s: %.1f MiB of weights, %s; kernels %s, %u batch%s at a time", r->o->model,
		(double)r->l.weight_bytes / 1048576, r->l.held, vq_cpu_name(), r->rounds.workers,
		r->rounds.workers == 1 ? "" : "es");
	r->max_tokens = r->rounds.b[0].max_tokens;
	return VQ_OK;
}

int vq_infer_run(const struct vq_infer *o, struct vq_err *err)
{
	struct run r = {.o = o};
	int talk = !o->data && !o->question && isatty(STDIN_FILENO) && isatty(STDOUT_FILENO);
	int rc;

	vq_stop_catch();
	/* How many questions there are tells how the model is best held. */
	rc = o->question || talk ? VQ_OK : vq_asks_open(&r.asks, o, err);
	if (rc < 0)
		return rc;
	r.t0 = vq_now();
	rc = vq_loaded_open(&r.l, o, o->question ? 1 : talk ? UINT32_MAX : r.asks.n, err);
	if (rc >= 0 && o->exact)
		vq_model_exact(&r.l.model);
	if (rc >= 0)
		vq_model_products(&r.l.model, vq_infer_products(o, &r.l));
	r.t_loaded = vq_now();
	if (rc >= 0)
		rc = open_rounds(&r, err);
	if (rc >= 0)
		rc = talk          ? converse(&r, err)
		     : o->question ? answer_one(&r, err)
				   : answer_all(&r, err);
	vq_free(r.aside);
	vq_asks_close(&r.asks);
	vq_rounds_close(&r.rounds);
	vq_loaded_close(&r.l);
	return rc;
}
