/* Zero-shot questions: how probable each choice is as what follows its context, a line a question.
 *
 * Tokens are those of lm-evaluation-harness (Gao et al.), version 3326c54: blanks at the end of a context go to the choice;
 * context and both together are tokenized, and what the second has beyond the first's number of tokens is scored. */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/stop.h"
#include "base/str.h"
#include "format/choices.h"
#include "kernel/cpu.h"
#include "task/infer_lines.h"
#include "task/infer_score.h"

#define MOST 512u /* questions of a round */

struct run {
	const struct vq_infer *o;
	struct vq_choices data;
	struct vq_loaded l;
	struct vq_lines lines;
	struct vq_scorer scorer;
	struct vq_scored *v;         /* [n] of the round's choices */
	uint32_t n, first[MOST + 1]; /* of each question of the round; first[n_questions] = n */
	uint32_t n_questions;
	struct vq_run_times times;
	double t0, t_loaded;
};

/* --- tokens --- */

struct ids {
	int32_t *v;
	size_t n;
};

static int encode(const struct run *r, const char *text, size_t n, struct ids *out,
		  struct vq_err *err)
{
	return vq_tokenizer_encode(r->l.tok, text, n, r->o->bos == VQ_BOS_FIRST, &out->v, &out->n,
				   err);
}

/* Context and continuation as one sequence.  What does not fit the model is cut off at the front, as many tokens as it
 * reads and the last, which it only has to foretell, stay. */
static int join(const struct run *r, struct ids *context, const struct ids *whole,
		struct vq_scored *v, struct vq_err *err)
{
	uint32_t most = r->l.model.cfg.decoder.max_position;
	size_t n = whole->n, own, cut;
	int32_t *t;

	if (n <= context->n || context->n == 0)
		return vq_fail(err, VQ_E_DATA,
			       "a choice has no tokens of its own behind %zu of its "
			       "context",
			       context->n);
	own = n - context->n;
	cut = most && n > (size_t)most + 1 ? n - most - 1 : 0;
	if (cut >= context->n)
		return vq_fail(err, VQ_E_DATA,
			       "a choice has %zu tokens, the model reads at most %u", own, most);
	t = vq_alloc(n - cut, sizeof(*t), err);
	if (!t)
		return VQ_E_SYS;
	/* The context's tokens are its own, though whole may begin with others where the two meet. */
	memcpy(t, context->v + cut, (context->n - cut) * sizeof(*t));
	memcpy(t + context->n - cut, whole->v + context->n, own * sizeof(*t));
	*v = (struct vq_scored){
		.tokens = t, .n = (uint32_t)(n - cut), .from = (uint32_t)(context->n - cut)};
	return VQ_OK;
}

static int tokenize(const struct run *r, const char *context, const char *choice,
		    struct vq_scored *v, struct vq_err *err)
{
	static const char blanks[] = " \t\r\n\v\f";
	struct ids c = {0}, w = {0};
	struct vq_str whole = {0};
	size_t n = strlen(context);
	int rc;

	while (n > 0 && strchr(blanks, context[n - 1]))
		n--;
	vq_str_puts(&whole, context);
	vq_str_puts(&whole, choice);
	rc = whole.failed ? vq_fail(err, VQ_E_SYS, "memory: cannot keep a question") : VQ_OK;
	if (rc >= 0)
		rc = encode(r, context, n, &c, err);
	if (rc >= 0)
		rc = encode(r, whole.s, whole.n, &w, err);
	if (rc >= 0)
		rc = join(r, &c, &w, v, err);
	vq_free(c.v);
	vq_free(w.v);
	vq_str_free(&whole);
	return rc;
}

/* --- rounds --- */

static void round_clear(struct run *r)
{
	while (r->n > 0)
		vq_free((void *)(uintptr_t)r->v[--r->n].tokens);
	r->n_questions = 0;
}

/* The next questions, until there is work for a round: rows of the longest choice, and what the others have of their
 * own. */
static int gather(struct run *r, struct vq_err *err)
{
	const struct vq_lines *f = &r->lines;
	uint32_t rows = 0, most = vq_scorer_rows(&r->scorer), i, k;
	int rc = VQ_OK;

	round_clear(r);
	for (i = f->next; i < f->asks.n && rows < most && r->n_questions < MOST; i++) {
		const struct vq_choices_item *it = &r->data.items[f->asks.v[i].index];

		r->first[r->n_questions++] = r->n;
		for (k = 0; k < it->n; k++) {
			struct vq_scored *v = &r->v[r->n];

			rc = tokenize(r, it->context[k], it->choice[k], v, err);
			if (rc < 0)
				return vq_err_prefix(err, "question '%s'", it->id);
			r->n++;
			rows += k == 0 ? v->n - 1 : v->n - v->from;
		}
	}
	r->first[r->n_questions] = r->n;
	return rc;
}

static json_t *line_of(const struct run *r, uint32_t q)
{
	const struct vq_choices_item *it = &r->data.items[r->lines.asks.v[r->lines.next + q].index];
	json_t *scores = json_array(), *chars = json_array(), *tokens = json_array();
	uint32_t k;

	for (k = 0; k < it->n; k++) {
		const struct vq_scored *v = &r->v[r->first[q] + k];

		json_array_append_new(scores, json_real(v->log_prob));
		json_array_append_new(chars, json_integer(it->chars[k]));
		json_array_append_new(tokens, json_integer(v->n - v->from));
	}
	return json_pack("{s:s, s:s, s:o, s:o, s:o, s:I}", "question_id", it->id, "task", it->task,
			 "scores", scores, "chars", chars, "tokens", tokens, "answer",
			 (json_int_t)it->answer);
}

/* Questions that an earlier run has are worked out again beside those that it has not: sums are cut alike. */
static int one_round(void *ctx, struct vq_err *err)
{
	struct run *r = ctx;
	struct vq_lines *f = &r->lines;
	double t0 = vq_now();
	uint32_t i, open = 0;
	int rc = gather(r, err);

	for (i = 0; rc >= 0 && i < r->n_questions; i++)
		open += !f->asks.v[f->next + i].line;
	if (rc >= 0 && open)
		rc = vq_score_run(&r->scorer, r->v, r->n, err);
	for (i = 0; i < r->n; i++)
		r->times.prompt_tokens += r->v[i].n - 1;
	r->times.prefill += vq_now() - t0;
	for (i = 0; rc >= 0 && i < r->n_questions; i++)
		rc = f->asks.v[f->next + i].line ? vq_lines_put_old(f, f->next + i, err)
						 : vq_lines_put(f, line_of(r, i), err);
	f->next += rc < 0 ? 0 : r->n_questions;
	return rc;
}

/* --- the run --- */

static int pick(struct run *r, struct vq_err *err)
{
	char **ids = vq_alloc(r->data.n, sizeof(*ids), err);
	uint32_t i;
	int rc;

	if (!ids)
		return VQ_E_SYS;
	for (i = 0; i < r->data.n; i++)
		ids[i] = (char *)(uintptr_t)r->data.items[i].id; /* only read */
	rc = vq_asks_pick(&r->lines.asks, r->o, ids, r->data.n, err);
	vq_free(ids);
	memcpy(r->lines.asks.data_sha256, r->data.sha256, sizeof(r->data.sha256));
	return rc;
}

static int run_questions(struct run *r, struct vq_err *err)
{
	json_t *head = vq_infer_head(
		"choices", r->o, &r->l, &r->lines.asks,
		json_pack("{s:s}", "bos", r->o->bos == VQ_BOS_FIRST ? "first" : "none"));
	struct vq_lines_scored s = {&r->l, &r->times, r->t0, r->t_loaded};

	return vq_lines_run(&r->lines, &s, head, one_round, r, err);
}

int vq_infer_choices(const struct vq_infer *o, struct vq_err *err)
{
	struct run r = {.o = o, .lines = {.o = o, .things = "questions"}};
	int rc;

	vq_stop_catch();
	vq_mem_keep_freed();
	rc = vq_choices_open(&r.data, o->choices, err);
	if (rc >= 0)
		rc = pick(&r, err);
	r.t0 = vq_now();
	if (rc >= 0)
		rc = vq_loaded_open(&r.l, o, 0, err);
	r.t_loaded = vq_now();
	if (rc >= 0 && o->bos == VQ_BOS_FIRST && vq_tokenizer_bos(r.l.tok) < 0)
		rc = vq_fail(err, VQ_E_DATA,
			     "%s: its tokenizer has no beginning token; --bos none "
			     "does without",
			     o->model);
	if (rc >= 0)
		rc = vq_scorer_open(&r.scorer, o, &r.l, err);
	if (rc >= 0 && !(r.v = vq_alloc((size_t)MOST * VQ_MAX_CONTINUATIONS, sizeof(*r.v), err)))
		rc = VQ_E_SYS;
	if (rc >= 0)
		rc = run_questions(&r, err);
	round_clear(&r);
	vq_free(r.v);
	vq_lines_free(&r.lines);
	vq_scorer_close(&r.scorer);
	vq_loaded_close(&r.l);
	vq_choices_close(&r.data);
	return rc;
}
