/* Questions in batches, answers in JSON Lines; or one question in plain text. */
#include "task/infer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/stop.h"
#include "kernel/blas.h"
#include "kernel/cpu.h"
#include "stream/history.h"
#include "stream/writer.h"
#include "task/infer_parts.h"

#define MAX_BATCH 32u /* questions */

struct run {
	const struct vq_infer *o;
	struct vq_loaded l;
	struct vq_asks asks;
	struct vq_batcher b;
	struct vq_output out, logits_out;
	struct vq_writer *logits;
	uint32_t answered;
	double t0, t_loaded;
	size_t printed; /* bytes of a single answer that have gone out */
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

/* "llava_test_CQM-A.json" -> "test": the first word of the file's name that is a split. */
static json_t *split_of(const char *path)
{
	static const char *const splits[] = {"train",     "val",     "test",    "trainval",
					     "minitrain", "minival", "minitest"};
	const char *slash = path ? strrchr(path, '/') : NULL, *s = slash ? slash + 1 : path;
	size_t n, i;

	while (s && *s) {
		n = strcspn(s, "_-.");
		for (i = 0; i < sizeof(splits) / sizeof(splits[0]); i++)
			if (strlen(splits[i]) == n && strncmp(s, splits[i], n) == 0)
				return json_string(splits[i]);
		s += n + (s[n] != '\0');
	}
	return json_null();
}

/* What determines the answers, and which were asked for. */
static json_t *opening(const struct run *r)
{
	const struct vq_infer *o = r->o;
	json_t *ids = json_array(), *j;
	uint32_t i;

	for (i = 0; i < r->asks.n; i++)
		json_array_append_new(ids, json_string(r->asks.v[i].id));
	j = json_pack("{s:s, s:s, s:O, s:o, s:o, s:s, s:{s:b, s:i, s:f, s:I}}", "vqlm", "answers",
		      "producer", "vqlm-infer " VQ_VERSION, "model", r->l.identity, "split",
		      split_of(o->data), "ids", ids, "template",
		      r->l.model.cfg.chat ? r->l.model.cfg.chat->name : "", "params", "score",
		      o->score, "max_tokens", (int)r->b.max_tokens, "temperature", o->temperature,
		      "seed", (json_int_t)o->seed);
	if (j && r->asks.data_sha256[0])
		json_object_set_new(j, "data", json_pack("{s:s}", "sha256", r->asks.data_sha256));
	if (j && o->shard)
		json_object_set_new(j, "shard", json_string(o->shard));
	return j;
}

static json_t *answer(const struct vq_answering *a, double ms)
{
	json_t *tokens = json_array(), *j, *scores;
	char letter[2] = "";
	uint32_t i;

	for (i = 0; i < a->n_tokens; i++)
		json_array_append_new(tokens, json_integer(a->tokens[i]));
	j = json_pack("{s:s, s:s, s:o, s:i, s:f}", "question_id", a->ask->id, "text",
		      a->text.s ? a->text.s : "", "tokens", tokens, "n_prompt",
		      (int)a->prompt.n_tokens, "ms", ms);
	if (!j || a->n_choices == 0)
		return j;
	scores = json_object();
	for (i = 0; i < a->n_choices; i++) {
		letter[0] = a->letters[i];
		json_object_set_new(scores, letter, json_real(a->log_probs[i]));
	}
	json_object_set_new(j, "scores", scores);
	return j;
}

static double per_second(uint64_t n, double seconds)
{
	return seconds > 0 ? (double)n / seconds : 0;
}

static json_t *totals(const struct run *r)
{
	const struct vq_run_times *t = &r->b.times;

	return json_pack("{s:s, s:I, s:f, s:f, s:I, s:f, s:I, s:f, s:f, s:I, s:f, s:f, s:I, s:I, "
			 "s:I, s:s, s:s}",
			 "vqlm", "totals", "questions", (json_int_t)r->asks.n, "seconds",
			 vq_now() - r->t0, "load_seconds", r->t_loaded - r->t0, "pictures",
			 (json_int_t)t->pictures, "vision_seconds", t->vision, "prompt_tokens",
			 (json_int_t)t->prompt_tokens, "prefill_seconds", t->prefill,
			 "prefill_tokens_per_second", per_second(t->prompt_tokens, t->prefill),
			 "decoded_tokens", (json_int_t)t->decoded_tokens, "decode_seconds",
			 t->decode, "decode_tokens_per_second",
			 per_second(t->decoded_tokens, t->decode), "peak_bytes",
			 (json_int_t)vq_peak_rss(), "peak_anon_bytes", (json_int_t)vq_peak_anon(),
			 "weight_bytes", (json_int_t)r->l.weight_bytes, "kernels", vq_cpu_name(),
			 "blas", vq_blas_core());
}

/* --- batches --- */

static int build(struct run *r, struct vq_answering *a, struct vq_ask *q, struct vq_err *err)
{
	const struct vq_config *c = &r->l.model.cfg;
	int rc = vq_prompt_build(&a->prompt, c, r->l.tok, q->text, q->image, err);

	if (rc < 0)
		return vq_err_prefix(err, "question '%s': ", q->id);
	a->ask = q;
	q->n_prompt = a->prompt.n_tokens;
	if (c->decoder.max_position && q->n_prompt >= c->decoder.max_position)
		return vq_fail(err, VQ_E_DATA,
			       "question '%s': %u tokens, the model has %u positions", q->id,
			       q->n_prompt, c->decoder.max_position);
	return VQ_OK;
}

/* Fills v with the questions of the batch that starts at first; returns their number, or < 0.  What is in a
 * batch depends on the data alone: a question that a resumed run has answered takes its place in it, so that
 * the sums of the others are cut as they were. */
static int fill(struct run *r, struct vq_answering *v, uint32_t first, struct vq_err *err)
{
	uint32_t rows = 0, n, open = 0, i;
	int rc = VQ_OK;

	for (n = 0; n < MAX_BATCH && first + n < r->asks.n; n++) {
		struct vq_ask *q = &r->asks.v[first + n];

		if (!q->line && v[n].ask != q)
			rc = build(r, &v[n], q, err);
		if (rc < 0)
			return rc;
		v[n].ask = q;
		if (n > 0 && rows + q->n_prompt > r->b.max_rows)
			break;
		rows += q->n_prompt;
		open += !q->line;
	}
	for (i = 0; open && i < n; i++)
		if (v[i].ask->line) {
			rc = build(r, &v[i], v[i].ask, err);
			if (rc < 0)
				return rc;
		}
	return (int)n;
}

static int write_answers(struct run *r, struct vq_answering *v, uint32_t n, double ms,
			 struct vq_err *err)
{
	uint32_t i;
	int rc = VQ_OK;

	for (i = 0; rc >= 0 && i < n; i++) {
		const char *line = v[i].ask->line;

		if (!line) {
			rc = put_line(r, answer(&v[i], ms), err);
			continue;
		}
		rc = vq_write_full(r->out.fd, line, strlen(line), r->out.label, err);
		if (rc >= 0)
			rc = vq_write_full(r->out.fd, "\n", 1, r->out.label, err);
	}
	return rc;
}

static int one_batch(struct run *r, struct vq_answering *v, uint32_t n, struct vq_err *err)
{
	double t0 = vq_now();
	uint32_t open = 0, i;
	int rc = VQ_OK;

	for (i = 0; i < n; i++)
		open += !v[i].ask->line;
	if (open)
		rc = vq_batch_run(&r->b, v, n, err);
	if (rc >= 0)
		rc = write_answers(r, v, n, (vq_now() - t0) * 1000 / n, err);
	vq_peak_anon();
	return rc;
}

static int stopped(const struct run *r, uint32_t done, struct vq_err *err)
{
	if (r->out.part)
		return vq_fail(err, VQ_E_STOP,
			       "stopped after %u of %u questions; --resume %s goes on", done,
			       r->asks.n, r->out.part);
	return vq_fail(err, VQ_E_STOP, "stopped after %u of %u questions", done, r->asks.n);
}

static int all_batches(struct run *r, struct vq_err *err)
{
	/* One more than a batch: the question that did not fit waits there. */
	struct vq_answering *v = vq_calloc(MAX_BATCH + 1, sizeof(*v), err);
	struct vq_progress p;
	uint32_t done = 0, i;
	int rc = v ? VQ_OK : VQ_E_SYS, n = 0;

	vq_progress_start(&p, "questions", r->asks.n);
	while (rc >= 0 && done < r->asks.n) {
		if (vq_stop_asked()) {
			rc = stopped(r, done, err);
			break;
		}
		n = fill(r, v, done, err);
		rc = n < 0 ? n : one_batch(r, v, (uint32_t)n, err);
		for (i = 0; rc >= 0 && i < (uint32_t)n; i++)
			vq_answering_free(&v[i]);
		if (rc >= 0 && v[n].ask) { /* a prompt that is built already */
			v[0] = v[n];
			memset(&v[n], 0, sizeof(v[n]));
		}
		done += rc < 0 ? 0 : (uint32_t)n;
		vq_progress_step(&p, done);
	}
	vq_progress_end(&p);
	for (i = 0; v && i <= MAX_BATCH; i++)
		vq_answering_free(&v[i]);
	vq_free(v);
	return rc;
}

/* --- the two ways to answer --- */

static int put_logits(void *ctx, const struct vq_answering *a, const float *logits, uint32_t n,
		      struct vq_err *err)
{
	struct run *r = ctx;
	struct vq_tensor t = {VQ_F32, 1, {n}, logits};
	char name[VQ_NAME_MAX + 1];

	if (!r->logits || a->ask->line)
		return VQ_OK;
	if (snprintf(name, sizeof(name), "logits/%s", a->ask->id) >= (int)sizeof(name))
		return vq_fail(err, VQ_E_DATA,
			       "question '%.40s...': its id is too long for a record", a->ask->id);
	return vq_writer_put_tensor(r->logits, VQ_KIND_TENSOR, name, &t, NULL, err);
}

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

/* The earlier answers are read before the output opens: it may be the same file. */
static int resume(struct run *r, const json_t *head, struct vq_err *err)
{
	char *text = vq_json_text(head, err); /* numbers as a file has them */
	json_t *written = text ? vq_json_parse(text, strlen(text), "opening", err) : NULL;
	int rc = written ? vq_asks_resume(&r->asks, r->o->resume, written, err) : VQ_E_SYS;

	vq_free(text);
	json_decref(written);
	return rc;
}

static int answer_all(struct run *r, struct vq_err *err)
{
	json_t *head = opening(r);
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
	r->b.on_logits = put_logits;
	r->b.ctx = r;
	rc = put_line(r, head, err);
	if (rc >= 0)
		rc = all_batches(r, err);
	if (rc >= 0)
		rc = put_line(r, totals(r), err);
	if (r->logits)
		rc = close_logits(r, rc, err);
	if (rc >= 0)
		return vq_output_commit(&r->out, err);
	vq_output_abort(&r->out, 1);
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
		rc = vq_batch_run(&r->b, &a, 1, err);
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
	r->b.max_tokens = r->o->max_tokens ? r->o->max_tokens : 256;
	r->b.on_text = print_more;
	r->b.ctx = r;
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
	return rc < 0 ? rc : vq_output_commit(&r->out, err);
}

static int answer_one(struct run *r, struct vq_err *err)
{
	char id[] = "1";
	struct vq_ask q = {.id = id};
	struct vq_str text = {0};
	int rc = vq_output_open(&r->out, r->o->output, err);

	if (rc < 0)
		return rc;
	if (r->o->image && !strstr(r->o->question, "<image>"))
		vq_str_puts(&text, "<image>\n");
	vq_str_puts(&text, r->o->question);
	q.text = text.s;
	q.image = (char *)r->o->image; /* only read */
	r->b.on_text = print_more;
	r->b.ctx = r;
	rc = text.failed ? vq_fail(err, VQ_E_SYS, "memory: cannot keep the question")
			 : talk(r, &q, err);
	vq_str_free(&text);
	if (rc >= 0)
		return vq_output_commit(&r->out, err);
	vq_output_abort(&r->out, 0);
	return rc;
}

int vq_infer_run(const struct vq_infer *o, struct vq_err *err)
{
	struct run r = {.o = o, .t0 = vq_now()};
	int rc;

	vq_stop_catch();
	rc = vq_loaded_open(&r.l, o->model, o->template, err);
	if (rc < 0)
		return rc;
	vq_batcher_init(&r.b, o, &r.l);
	r.t_loaded = vq_now();
	if (o->question) {
		rc = answer_one(&r, err);
	} else if (!o->data && isatty(STDIN_FILENO) && isatty(STDOUT_FILENO)) {
		rc = converse(&r, err);
	} else {
		rc = vq_asks_open(&r.asks, o, err);
		if (rc >= 0)
			rc = answer_all(&r, err);
	}
	vq_asks_close(&r.asks);
	vq_batcher_free(&r.b);
	vq_loaded_close(&r.l);
	return rc;
}
