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
#include "stream/history.h"
#include "stream/writer.h"
#include "task/infer_parts.h"

#define MAX_BATCH 32u /* questions */

/* Models up to this many bytes of weights answer several batches at a time. */
#define SMALL_MODEL ((uint64_t)64 << 20)

/* A batch of questions. */
struct group {
	struct vq_answering v[MAX_BATCH];
	uint32_t n, open; /* open: not answered by a resumed run */
	double seconds;
	int rc;
	struct vq_err err;
};

struct run {
	const struct vq_infer *o;
	struct vq_loaded l;
	struct vq_asks asks;
	struct vq_batcher *b; /* [workers] */
	uint32_t workers, max_rows, max_tokens;
	uint32_t next;               /* question that comes next */
	struct vq_answering waiting; /* its prompt, when it did not fit the last batch */
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

/* --- batches --- */

static int build(struct run *r, struct vq_answering *a, struct vq_ask *q, struct vq_err *err)
{
	int rc = vq_prompt_build(&a->prompt, &r->l.model.cfg, r->l.tok, q->text, q->image, err);

	if (rc < 0)
		return vq_err_prefix(err, "question '%s'", q->id);
	a->ask = q;
	q->n_prompt = a->prompt.n_tokens;
	return VQ_OK;
}

/* The next batch, from r->next on.  What is in a batch depends on the data alone: a question that a resumed
 * run has answered takes its place in it, so that the sums of the others are cut as they were. */
static int fill(struct run *r, struct group *g, struct vq_err *err)
{
	uint32_t rows = 0, i;
	int rc = VQ_OK;

	for (g->n = g->open = 0; g->n < MAX_BATCH && r->next < r->asks.n; r->next++) {
		struct vq_ask *q = &r->asks.v[r->next];
		struct vq_answering *a = &g->v[g->n];

		*a = r->waiting;
		memset(&r->waiting, 0, sizeof(r->waiting));
		if (!q->line && !a->ask)
			rc = build(r, a, q, err);
		if (rc < 0)
			return rc;
		if (g->n > 0 && rows + q->n_prompt > r->max_rows) {
			r->waiting = *a;
			memset(a, 0, sizeof(*a));
			break;
		}
		a->ask = q;
		rows += q->n_prompt;
		g->open += !q->line;
		g->n++;
	}
	for (i = 0; g->open && i < g->n; i++)
		if (g->v[i].ask->line) {
			rc = build(r, &g->v[i], g->v[i].ask, err);
			if (rc < 0)
				return rc;
		}
	return VQ_OK;
}

static int put_logits(struct run *r, const struct vq_answering *a, struct vq_err *err)
{
	struct vq_tensor t = {VQ_F32, 1, {r->l.vocab}, a->logits};
	char name[VQ_NAME_MAX + 1];

	if (snprintf(name, sizeof(name), "logits/%s", a->ask->id) >= (int)sizeof(name))
		return vq_fail(err, VQ_E_DATA,
			       "question '%.40s...': its id is too long for a record", a->ask->id);
	return vq_writer_put_tensor(r->logits, VQ_KIND_TENSOR, name, &t, NULL, err);
}

static int write_answers(struct run *r, const struct group *g, struct vq_err *err)
{
	uint32_t i;
	int rc = VQ_OK;

	for (i = 0; rc >= 0 && i < g->n; i++) {
		const char *line = g->v[i].ask->line;

		if (!line) {
			rc = put_line(r, vq_infer_answer(&g->v[i], g->seconds * 1000 / g->n), err);
			if (rc >= 0 && r->logits)
				rc = put_logits(r, &g->v[i], err);
			continue;
		}
		rc = vq_write_full(r->out.fd, line, strlen(line), r->out.label, err);
		if (rc >= 0)
			rc = vq_write_full(r->out.fd, "\n", 1, r->out.label, err);
	}
	return rc;
}

static void run_group(struct vq_batcher *b, struct group *g)
{
	double t0 = vq_now();

	g->rc = g->open ? vq_batch_run(b, g->v, g->n, &g->err) : VQ_OK;
	g->seconds = vq_now() - t0;
}

/* Several batches of a small model at a time, each on one thread: its layers are too little work to share out.
 * A result does not depend on that, since work is cut the same way everywhere. */
static void run_groups(struct run *r, struct group *g, uint32_t n)
{
	long long i;

	if (r->workers == 1) {
		for (i = 0; i < n; i++)
			run_group(&r->b[0], &g[i]);
		return;
	}
#pragma omp parallel for schedule(dynamic, 1)
	for (i = 0; i < (long long)n; i++)
		run_group(&r->b[omp_get_thread_num()], &g[i]);
}

static void clear(struct group *g)
{
	uint32_t i;

	for (i = 0; i < MAX_BATCH; i++)
		vq_answering_free(&g->v[i]);
	memset(g, 0, sizeof(*g));
}

static int stopped(const struct run *r, struct vq_err *err)
{
	if (r->out.part)
		return vq_fail(err, VQ_E_STOP,
			       "stopped after %u of %u questions; --resume %s goes on", r->next,
			       r->asks.n, r->out.part);
	return vq_fail(err, VQ_E_STOP, "stopped after %u of %u questions", r->next, r->asks.n);
}

/* Batches for every worker: filled one after the other, run, written in order. */
static int one_round(struct run *r, struct group *g, uint32_t most, struct vq_err *err)
{
	uint32_t n = 0, i;
	int rc = VQ_OK, built = VQ_OK;

	while (built >= 0 && n < most && r->next < r->asks.n)
		built = fill(r, &g[n++], err);
	if (built < 0)
		n--; /* those before it can still be answered */
	run_groups(r, g, n);
	for (i = 0; rc >= 0 && i < n; i++) {
		rc = g[i].rc;
		if (rc < 0)
			vq_fail(err, rc, "%s", g[i].err.text);
		else
			rc = write_answers(r, &g[i], err);
	}
	for (i = 0; i < most; i++)
		clear(&g[i]);
	vq_peak_anon();
	return built < 0 ? built : rc;
}

static int all_batches(struct run *r, struct vq_err *err)
{
	uint32_t most = r->workers == 1 ? 1 : 2 * r->workers;
	struct group *g = vq_calloc(most, sizeof(*g), err);
	struct vq_progress p;
	int rc = g ? VQ_OK : VQ_E_SYS;

	vq_progress_start(&p, "questions", r->asks.n);
	while (rc >= 0 && r->next < r->asks.n) {
		rc = vq_stop_asked() ? stopped(r, err) : one_round(r, g, most, err);
		vq_progress_step(&p, r->next);
	}
	vq_progress_end(&p);
	vq_answering_free(&r->waiting);
	vq_free(g);
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

	for (i = 0; i < r->workers; i++) {
		const struct vq_run_times *t = &r->b[i].times;

		sum.vision += t->vision;
		sum.prefill += t->prefill;
		sum.decode += t->decode;
		sum.pictures += t->pictures;
		sum.prompt_tokens += t->prompt_tokens;
		sum.decoded_tokens += t->decoded_tokens;
	}
	return put_line(r,
			vq_infer_totals(&r->l, &r->asks, &sum, r->workers, r->t_loaded - r->t0,
					vq_now() - r->t0),
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
		rc = all_batches(r, err);
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
	struct vq_answering a = {0};
	int rc = build(r, &a, q, err);

	r->printed = 0;
	if (rc >= 0)
		rc = vq_batch_run(&r->b[0], &a, 1, err);
	if (rc >= 0 && r->o->score)
		rc = print_more(r, &a, err);
	if (rc >= 0)
		rc = vq_write_full(r->out.fd, "\n", 1, r->out.label, err);
	vq_answering_free(&a);
	return rc;
}

/* Somebody types. */
static int converse(struct run *r, struct vq_err *err)
{
	char id[] = "1", *line = NULL;
	size_t room = 0;
	int rc = vq_output_open(&r->out, r->o->output, err);

	if (rc < 0)
		return rc;
	r->b[0].max_tokens = r->o->max_tokens ? r->o->max_tokens : 256;
	r->b[0].on_text = print_more;
	r->b[0].ctx = r;
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
	r->b[0].on_text = print_more;
	r->b[0].ctx = r;
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

static int open_workers(struct run *r, struct vq_err *err)
{
	int small = r->l.weight_bytes <= SMALL_MODEL && !r->o->question;
	uint32_t i;

	r->workers = small ? (uint32_t)omp_get_max_threads() : 1;
	vq_mem_keep_freed();
	r->b = vq_calloc(r->workers, sizeof(*r->b), err);
	if (!r->b)
		return VQ_E_SYS;
	for (i = 0; i < r->workers; i++)
		vq_batcher_init(&r->b[i], r->o, &r->l);
	vq_info("%s: %.1f MiB of weights, %s; kernels %s, %u batch%s at a time", r->o->model,
		(double)r->l.weight_bytes / 1048576, r->l.held, vq_cpu_name(), r->workers,
		r->workers == 1 ? "" : "es");
	r->max_rows = r->b[0].max_rows;
	r->max_tokens = r->b[0].max_tokens;
	return VQ_OK;
}

int vq_infer_run(const struct vq_infer *o, struct vq_err *err)
{
	struct run r = {.o = o};
	int talk = !o->data && !o->question && isatty(STDIN_FILENO) && isatty(STDOUT_FILENO);
	uint32_t i;
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
	r.t_loaded = vq_now();
	if (rc >= 0)
		rc = open_workers(&r, err);
	if (rc >= 0)
		rc = talk          ? converse(&r, err)
		     : o->question ? answer_one(&r, err)
				   : answer_all(&r, err);
	vq_free(r.aside);
	vq_asks_close(&r.asks);
	for (i = 0; r.b && i < r.workers; i++)
		vq_batcher_free(&r.b[i]);
	vq_free(r.b);
	vq_loaded_close(&r.l);
	return rc;
}
