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
#include "task/infer_lines.h"

struct run {
	const struct vq_infer *o;
	struct vq_loaded l;
	struct vq_lines lines;
	struct vq_rounds rounds;
	uint32_t max_tokens;
	struct vq_output out; /* of a conversation or a single answer */
	double t0, t_loaded;
	size_t printed; /* bytes of a single answer that have gone out */
};

/* --- rounds --- */

static int write_answers(struct run *r, struct vq_err *err)
{
	struct vq_lines *f = &r->lines;
	uint32_t i;
	int rc = VQ_OK;

	for (i = 0; rc >= 0 && i < r->rounds.n; i++) {
		const struct vq_answering *a = &r->rounds.v[i];

		if (f->asks.v[f->next + i].line) {
			rc = vq_lines_put_old(f, f->next + i, err);
			continue;
		}
		rc = vq_lines_put(f, vq_infer_answer(a), err);
		if (rc >= 0 && f->logits)
			rc = vq_lines_put_logits(f, a->ask->id, a->logits, 0, r->l.vocab, err);
	}
	return rc;
}

/* The next questions; what could be answered before a failure is written. */
static int one_round(void *ctx, struct vq_err *err)
{
	struct run *r = ctx;
	struct vq_lines *f = &r->lines;
	struct vq_err late = {0};
	int rc = vq_round(&r->rounds, f->asks.v + f->next, f->asks.n - f->next, &late);
	int written = write_answers(r, err);

	f->next += r->rounds.n;
	vq_peak_anon();
	if (written < 0)
		return written;
	return rc < 0 ? vq_fail(err, rc, "%s", late.text) : VQ_OK;
}

/* --- the two ways to answer --- */

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
	return vq_lines_put(&r->lines,
			    vq_infer_totals(&r->l, &r->lines.asks, &sum, r->rounds.workers,
					    r->t_loaded - r->t0, vq_now() - r->t0),
			    err);
}

static int answer_all(struct run *r, struct vq_err *err)
{
	json_t *head = vq_infer_opening(r->o, &r->l, &r->lines.asks, r->max_tokens);
	int rc = vq_lines_open(&r->lines, &r->l, head, err);

	if (rc < 0)
		return rc;
	rc = vq_lines_all(&r->lines, one_round, r, err);
	if (rc >= 0)
		rc = put_totals(r, err);
	return vq_lines_close(&r->lines, rc, err);
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
	struct run r = {.o = o, .lines = {.o = o, .things = "questions"}};
	int talk = !o->data && !o->question && isatty(STDIN_FILENO) && isatty(STDOUT_FILENO);
	int rc;

	vq_stop_catch();
	/* How many questions there are tells how the model is best held. */
	rc = o->question || talk ? VQ_OK : vq_asks_open(&r.lines.asks, o, err);
	if (rc < 0)
		return rc;
	r.t0 = vq_now();
	rc = vq_loaded_open(&r.l, o, o->question ? 1 : talk ? UINT32_MAX : r.lines.asks.n, err);
	r.t_loaded = vq_now();
	if (rc >= 0)
		rc = open_rounds(&r, err);
	if (rc >= 0)
		rc = talk          ? converse(&r, err)
		     : o->question ? answer_one(&r, err)
				   : answer_all(&r, err);
	vq_lines_free(&r.lines);
	vq_rounds_close(&r.rounds);
	vq_loaded_close(&r.l);
	return rc;
}
