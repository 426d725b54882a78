/* Perplexity: a text in windows, the sum of -ln p of each one's tokens as a line.
 *
 * Protocols differ in the window, in where the beginning token goes and in what is scored, and their numbers cannot be
 * compared: gptq is the evaluation of Frantar et al. (ICLR 2023, appendix), which most papers on quantization follow;
 * shortened-llama that of Kim et al. (2024), with short windows; llama.cpp's scores what has half a window before it. */
#include "task/infer_ppl.h"

#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/stop.h"
#include "kernel/cpu.h"
#include "task/infer_lines.h"
#include "task/infer_score.h"

/* --- the protocols --- */

struct protocol {
	const char *name;
	uint32_t window;   /* its own */
	int any_window;    /* others are the same protocol */
	enum vq_bos bos;   /* its own */
	unsigned also_bos; /* bits of others that are the same protocol */
};

static const struct protocol *protocol_of(const struct vq_infer *o)
{
	static const struct protocol all[] = {
		[VQ_PPL_GPTQ] = {"gptq", 2048, 0, VQ_BOS_FIRST, 0},
		[VQ_PPL_SHORTENED_LLAMA] = {"shortened-llama", 128, 0, VQ_BOS_FIRST,
					    1u << VQ_BOS_EACH},
		[VQ_PPL_LLAMA_CPP] = {"llama.cpp", 512, 1, VQ_BOS_REPLACE, 0},
		[VQ_PPL_CUSTOM] = {"custom", 2048, 1, VQ_BOS_FIRST,
				   1u << VQ_BOS_EACH | 1u << VQ_BOS_NONE},
	};

	if (o->protocol == VQ_PPL_AUTO)
		return &all[o->window || o->bos ? VQ_PPL_CUSTOM : VQ_PPL_GPTQ];
	return &all[o->protocol];
}

static const char *bos_name(enum vq_bos b)
{
	static const char *const names[] = {[VQ_BOS_FIRST] = "first",
					    [VQ_BOS_EACH] = "each",
					    [VQ_BOS_NONE] = "none",
					    [VQ_BOS_REPLACE] = "replace"};

	return names[b];
}

int vq_ppl_resolve(struct vq_ppl_spec *s, const struct vq_infer *o, struct vq_err *err)
{
	const struct protocol *p = protocol_of(o);
	enum vq_bos bos = o->bos ? o->bos : p->bos;
	uint32_t window = o->window ? o->window : p->window;

	if (window != p->window && !p->any_window)
		return vq_fail(err, VQ_E_USAGE,
			       "--protocol %s is of windows of %u tokens, got --window %u; "
			       "--protocol custom takes any",
			       p->name, p->window, window);
	if (bos != p->bos && !(p->also_bos >> bos & 1))
		return vq_fail(err, VQ_E_USAGE,
			       "--protocol %s does not go with --bos %s; --protocol custom does",
			       p->name, bos_name(bos));
	*s = (struct vq_ppl_spec){.protocol = p->name,
				  .bos = bos_name(bos),
				  .window = window,
				  .bos_first = bos == VQ_BOS_FIRST,
				  .bos_each = bos == VQ_BOS_EACH,
				  .bos_replace = bos == VQ_BOS_REPLACE};
	s->n = window + (s->bos_each ? 1 : 0);
	s->from = s->bos_replace ? window / 2 + 1 : 1;
	return VQ_OK;
}

void vq_ppl_window(const struct vq_ppl_spec *s, const int32_t *tokens, uint32_t i, int32_t bos,
		   int32_t *out)
{
	memcpy(out + s->n - s->window, tokens + (size_t)i * s->window, s->window * sizeof(*out));
	if (s->bos_each || s->bos_replace)
		out[0] = bos;
}

/* --- a run --- */

struct run {
	const struct vq_infer *o;
	struct vq_ppl_spec spec;
	struct vq_text text;
	struct vq_loaded l;
	struct vq_lines lines;
	struct vq_scorer scorer;
	int32_t *tokens; /* [n_tokens] of the text */
	size_t n_tokens;
	int32_t *window; /* [round, spec.n] */
	struct vq_scored *v;
	uint32_t round; /* windows that are looked at together */
	struct vq_run_times times;
	double t0, t_loaded;
};

static int tokenize(struct run *r, struct vq_err *err)
{
	const struct vq_ppl_spec *s = &r->spec;
	const struct vq_decoder_config *c = &r->l.model.cfg.decoder;
	int bos = s->bos_first || s->bos_replace; /* llama.cpp has one before it cuts */
	int rc;

	if (strcmp(s->bos, "none") != 0 && vq_tokenizer_bos(r->l.tok) < 0)
		return vq_fail(err, VQ_E_DATA,
			       "%s: its tokenizer has no beginning token; --bos none does without",
			       r->o->model);
	if (c->max_position && s->n > c->max_position)
		return vq_fail(err, VQ_E_DATA,
			       "a window has %u tokens with its BOS, the model reads at most %u; "
			       "--window N makes it shorter",
			       s->n, c->max_position);
	rc = vq_tokenizer_encode(r->l.tok, r->text.s, r->text.n, bos, &r->tokens, &r->n_tokens,
				 err);
	if (rc >= 0 && r->n_tokens / s->window > UINT32_MAX)
		rc = vq_fail(err, VQ_E_DATA, "%s: more windows than can be counted", r->o->ppl);
	if (rc >= 0 && r->n_tokens < s->window)
		rc = vq_fail(
			err, VQ_E_DATA,
			"%s: want at least one window of %u tokens, got %zu tokens; --window N "
			"makes it shorter",
			r->o->ppl, s->window, r->n_tokens);
	return rc;
}

static json_t *opening(const struct run *r)
{
	static const char *const rows[] = {
		[VQ_ROWS_TEXT] = "text", [VQ_ROWS_WIKITEXT] = "wikitext", [VQ_ROWS_PTB] = "ptb"};
	const struct vq_ppl_spec *s = &r->spec;
	json_t *params = json_pack("{s:s, s:I, s:s, s:s, s:s}", "protocol", s->protocol, "window",
				   (json_int_t)s->window, "bos", s->bos, "scored",
				   s->from > 1 ? "second half" : "all", "rows", rows[r->o->rows]);
	json_t *j = vq_infer_head("perplexity", r->o, &r->l, &r->lines.asks, params);

	(void)!json_object_set_new(j, "n_windows",
				   json_integer((json_int_t)(r->n_tokens / s->window)));
	(void)!json_object_set_new(j, "n_tokens", json_integer((json_int_t)r->n_tokens));
	return j;
}

static json_t *line_of(const struct vq_ask *q, const struct vq_scored *v)
{
	return json_pack("{s:s, s:f, s:I}", "question_id", q->id, "nll", -v->log_prob, "tokens",
			 (json_int_t)(v->n - v->from));
}

static int put_logits(void *ctx, const struct vq_scored *v, uint32_t first, uint32_t n_rows,
		      const float *logits, struct vq_err *err)
{
	struct run *r = ctx;
	char id[64];

	(void)v; /* the round's only one */
	snprintf(id, sizeof(id), "%s/%u", r->lines.asks.v[r->lines.next].id, first);
	return vq_lines_put_logits(&r->lines, id, logits, n_rows, r->l.model.cfg.decoder.vocab,
				   err);
}

/* Windows that an earlier run has are worked out again beside those that it has not: sums are cut alike. */
static int score(struct run *r, const struct vq_ask *q, uint32_t n, struct vq_err *err)
{
	double t0 = vq_now();
	uint32_t i;
	int rc;

	for (i = 0; i < n; i++) {
		int32_t *to = r->window + (size_t)i * r->spec.n;

		vq_ppl_window(&r->spec, r->tokens, q[i].index, vq_tokenizer_bos(r->l.tok), to);
		r->v[i] = (struct vq_scored){.tokens = to, .n = r->spec.n, .from = r->spec.from};
	}
	rc = vq_score_run(&r->scorer, r->v, n, err);
	r->times.prefill += vq_now() - t0;
	r->times.prompt_tokens += (uint64_t)n * r->spec.n;
	return rc;
}

static int one_round(void *ctx, struct vq_err *err)
{
	struct run *r = ctx;
	struct vq_lines *f = &r->lines;
	const struct vq_ask *q = f->asks.v + f->next;
	uint32_t n = f->asks.n - f->next < r->round ? f->asks.n - f->next : r->round, i, open = 0;
	int rc = VQ_OK;

	for (i = 0; i < n; i++)
		open += !q[i].line;
	if (open)
		rc = score(r, q, n, err);
	if (rc < 0)
		return vq_err_prefix(err, "windows from '%s' on", q[0].id);
	for (i = 0; rc >= 0 && i < n; i++)
		rc = q[i].line ? vq_lines_put_old(f, f->next + i, err)
			       : vq_lines_put(f, line_of(&q[i], &r->v[i]), err);
	f->next += n;
	return rc;
}

/* Logits go out as they come, so windows one by one with them. */
static int open_scorer(struct run *r, struct vq_err *err)
{
	uint32_t rows;
	int rc = vq_scorer_open(&r->scorer, r->o, &r->l, err);

	if (rc < 0)
		return rc;
	rows = vq_scorer_rows(&r->scorer);
	r->round = r->o->logits || rows < r->spec.n ? 1 : rows / r->spec.n;
	if (r->o->logits) {
		r->scorer.on_logits = put_logits;
		r->scorer.ctx = r;
	}
	r->window = vq_alloc(r->round, r->spec.n * sizeof(*r->window), err);
	r->v = vq_alloc(r->round, sizeof(*r->v), err);
	if (!r->window || !r->v)
		return VQ_E_SYS;
	vq_info("%s: %.1f MiB of weights, %s; kernels %s, %u windows of %u tokens at a time",
		r->o->model, (double)r->l.weight_bytes / 1048576, r->l.held, vq_cpu_name(),
		r->round, r->spec.window);
	return VQ_OK;
}

static int run_windows(struct run *r, struct vq_err *err)
{
	struct vq_lines_scored s = {&r->l, &r->times, r->t0, r->t_loaded};

	return vq_lines_run(&r->lines, &s, opening(r), one_round, r, err);
}

int vq_infer_ppl(const struct vq_infer *o, struct vq_err *err)
{
	struct run r = {.o = o, .lines = {.o = o, .things = "windows"}};
	int rc = vq_ppl_resolve(&r.spec, o, err);

	if (rc < 0)
		return rc;
	vq_stop_catch();
	vq_mem_keep_freed();
	rc = vq_text_open(&r.text, o->ppl, o->rows, err);
	r.t0 = vq_now();
	if (rc >= 0)
		rc = vq_loaded_open(&r.l, o, 0, err);
	r.t_loaded = vq_now();
	if (rc >= 0)
		rc = tokenize(&r, err);
	if (rc >= 0)
		rc = vq_asks_pick(&r.lines.asks, o, NULL, (uint32_t)(r.n_tokens / r.spec.window),
				  err);
	if (rc >= 0) {
		memcpy(r.lines.asks.data_sha256, r.text.sha256, sizeof(r.text.sha256));
		rc = open_scorer(&r, err);
	}
	if (rc >= 0)
		rc = run_windows(&r, err);
	vq_lines_free(&r.lines);
	vq_scorer_close(&r.scorer);
	vq_loaded_close(&r.l);
	vq_text_close(&r.text);
	vq_free(r.tokens);
	vq_free(r.window);
	vq_free(r.v);
	return rc;
}
