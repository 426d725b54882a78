/* Adding up windows. */
#include "task/eval_ppl.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"

/* Nats a token of window i. */
static int window_mean(const struct vq_scores *s, uint32_t i, double *mean, double *tokens,
		       struct vq_err *err)
{
	double nll, n;
	int rc = vq_scores_number(s, i, "nll", &nll, err);

	if (rc >= 0)
		rc = vq_scores_number(s, i, "tokens", &n, err);
	if (rc >= 0 && (n < 1 || n != floor(n)))
		rc = vq_fail(err, VQ_E_DATA, "%s: line %llu: want 'tokens' above 0", s->label,
			     (unsigned long long)s->at[i]);
	if (rc < 0)
		return rc;
	*mean = nll / n;
	*tokens = n;
	return VQ_OK;
}

/* Mean of v [n] and its standard error, NaN where there is but one. */
static void mean_of(const double *v, uint32_t n, double *mean, double *se)
{
	double sum = 0, square = 0;
	uint32_t i;

	for (i = 0; i < n; i++)
		sum += v[i];
	*mean = sum / n;
	for (i = 0; i < n; i++)
		square += (v[i] - *mean) * (v[i] - *mean);
	*se = n > 1 ? sqrt(square / (n - 1) / n) : NAN;
}

int vq_eval_ppl(struct vq_eval_ppl *e, const struct vq_scores *run, struct vq_err *err)
{
	double *mean = vq_alloc(run->n, sizeof(*mean), err), tokens, first = 0;
	uint32_t i;
	int rc = mean ? VQ_OK : VQ_E_SYS;

	*e = (struct vq_eval_ppl){.n = run->n};
	for (i = 0; rc >= 0 && i < run->n; i++) {
		rc = window_mean(run, i, &mean[i], &tokens, err);
		first = i == 0 ? tokens : first;
		if (rc >= 0 && tokens != first)
			rc = vq_fail(
				err, VQ_E_DATA,
				"%s: line %llu: %.0f tokens scored, in other windows %.0f; want "
				"windows of one protocol",
				run->label, (unsigned long long)run->at[i], tokens, first);
		e->tokens += rc < 0 ? 0 : (uint64_t)tokens;
	}
	if (rc >= 0) {
		mean_of(mean, run->n, &e->nll, &e->nll_se);
		e->ppl = exp(e->nll);
		e->ppl_se = e->ppl * e->nll_se;
	}
	vq_free(mean);
	return rc;
}

int vq_eval_ppl_compare(struct vq_eval_ppl_pair *p, const struct vq_scores *run,
			const struct vq_scores *base, struct vq_err *err)
{
	static const char *const keys[] = {
		"params.protocol", "params.window", "params.bos", "params.scored",
		"params.rows",     "data",          "n_tokens",   NULL};
	double *diff = vq_alloc(run->n, sizeof(*diff), err), sum = 0, tokens;
	uint32_t i;
	int rc = diff ? vq_scores_agree(run, base, keys, err) : VQ_E_SYS;

	*p = (struct vq_eval_ppl_pair){0};
	for (i = 0; rc >= 0 && i < run->n; i++) {
		const char *id = json_string_value(json_object_get(run->lines[i], "question_id"));
		const json_t *at = json_object_get(base->place, id);
		double was = 0, is = 0;

		if (!at)
			continue;
		rc = window_mean(run, i, &is, &tokens, err);
		if (rc >= 0)
			rc = window_mean(base, (uint32_t)json_integer_value(at), &was, &tokens,
					 err);
		diff[p->n++] = is - was;
		sum += was;
	}
	if (rc >= 0 && p->n == 0)
		rc = vq_fail(err, VQ_E_DATA, "%s: want windows that %s has too, got none",
			     base->label, run->label);
	if (rc >= 0) {
		mean_of(diff, p->n, &p->diff, &p->diff_se);
		p->base_ppl = exp(sum / p->n);
	}
	vq_free(diff);
	return rc;
}

/* --- printing --- */

struct shown {
	const struct vq_eval_ppl *e;
	const struct vq_scores *run, *base;
	const struct vq_eval_ppl_pair *pair;
	const json_t *params;
	json_int_t n_windows, n_tokens; /* of the whole text */
};

static const char *param(const struct shown *s, const char *key)
{
	const char *v = json_string_value(json_object_get(s->params, key));

	return v ? v : "";
}

static json_int_t window(const struct shown *s)
{
	return json_integer_value(json_object_get(s->params, "window"));
}

/* "1.0230", or "1.0230 ± 0.0011" where there is an error. */
static void put_pm(struct vq_str *o, double v, double se)
{
	vq_str_printf(o, "%.4f", v);
	if (!isnan(se))
		vq_str_printf(o, " ± %.4f", se);
}

static void put_protocol(struct vq_str *o, const struct shown *s)
{
	static const struct {
		const char *name, *words;
	} bos[] = {{"first", "BOS before the first token of the text"},
		   {"each", "BOS before each window"},
		   {"none", "no BOS"},
		   {"replace", "BOS in place of each window's first token"}};
	const char *rows = param(s, "rows"), *what = "all but each window's first";
	size_t i;

	if (strcmp(param(s, "scored"), "all") != 0)
		what = "the second half of each";
	else if (strcmp(param(s, "bos"), "each") == 0)
		what = "all";

	vq_str_printf(o, "%s: windows of %lld tokens, ", param(s, "protocol"),
		      (long long)window(s));
	for (i = 0; i < sizeof(bos) / sizeof(bos[0]); i++)
		if (strcmp(bos[i].name, param(s, "bos")) == 0)
			vq_str_puts(o, bos[i].words);
	vq_str_printf(o, ", %s scored; text %s%s", what,
		      strcmp(rows, "text") == 0 ? "as given" : "of rows joined as for ",
		      strcmp(rows, "text") == 0 ? "" : rows);
}

static void put_extent(struct vq_str *o, const struct shown *s)
{
	vq_str_printf(o, "%llu tokens scored in ", (unsigned long long)s->e->tokens);
	if ((json_int_t)s->e->n == s->n_windows)
		vq_str_printf(o, "all %u windows", s->e->n);
	else
		vq_str_printf(o, "%u of the %lld windows", s->e->n, (long long)s->n_windows);
	vq_str_printf(o, "; the text has %lld tokens", (long long)s->n_tokens);
}

static void put_pair(struct vq_str *o, const struct shown *s)
{
	const struct vq_eval_ppl_pair *p = s->pair;
	double ratio = exp(p->diff);

	vq_str_printf(o, "%.4f on %u shared windows: ", p->base_ppl, p->n);
	put_pm(o, p->diff, p->diff_se);
	vq_str_puts(o, " nats a token, times ");
	put_pm(o, ratio, ratio * p->diff_se);
}

static void print_text(struct vq_str *o, const struct shown *s)
{
	vq_str_printf(o, "%-10s %s\n", "run", s->run->label);
	vq_eval_put_model(o, json_object_get(s->run->opening, "model"));
	vq_str_printf(o, "%-10s ", "protocol");
	put_protocol(o, s);
	vq_str_printf(o, "\n%-10s ", "extent");
	put_extent(o, s);
	vq_str_printf(o, "\n%-10s ", "perplexity");
	put_pm(o, s->e->ppl, s->e->ppl_se);
	vq_str_puts(o, " (");
	put_pm(o, s->e->nll, s->e->nll_se);
	vq_str_puts(o, " nats a token)\n");
	if (s->pair) {
		vq_str_printf(o, "%-10s %s, ", "against", s->base->label);
		put_pair(o, s);
		vq_str_puts(o, "\n");
	}
}

static void print_tsv(struct vq_str *o, const struct shown *s)
{
	vq_str_puts(o,
		    "protocol\twindow\tbos\tscored\trows\twindows\tn_windows\ttokens\tnll\tnll_se\t"
		    "ppl\tppl_se");
	vq_str_puts(o, s->pair ? "\tbase_ppl\tshared\tdiff\tdiff_se\n" : "\n");
	vq_str_printf(o, "%s\t%lld\t%s\t%s\t%s\t%u\t%lld\t%llu\t%.9g\t%.6g\t%.9g\t%.6g",
		      param(s, "protocol"), (long long)window(s), param(s, "bos"),
		      param(s, "scored"), param(s, "rows"), s->e->n, (long long)s->n_windows,
		      (unsigned long long)s->e->tokens, s->e->nll, s->e->nll_se, s->e->ppl,
		      s->e->ppl_se);
	if (s->pair)
		vq_str_printf(o, "\t%.9g\t%u\t%.9g\t%.6g", s->pair->base_ppl, s->pair->n,
			      s->pair->diff, s->pair->diff_se);
	vq_str_puts(o, "\n");
}

static void print_markdown(struct vq_str *o, const struct shown *s)
{
	vq_str_puts(o, "Perplexity ");
	put_pm(o, s->e->ppl, s->e->ppl_se);
	vq_str_puts(o, " (");
	put_protocol(o, s);
	vq_str_puts(o, "; ");
	put_extent(o, s);
	vq_str_puts(o, ").\n");
	if (s->pair) {
		vq_str_printf(o, "\nAgainst `%s`: ", s->base->label);
		put_pair(o, s);
		vq_str_puts(o, ".\n");
	}
}

/* JSON knows no NaN: null where there is no error to speak of. */
static json_t *real(double v)
{
	return isnan(v) ? json_null() : json_real(v);
}

static int print_json(struct vq_str *o, const struct shown *s, struct vq_err *err)
{
	json_t *j =
		json_pack("{s:s, s:O?, s:O?, s:I, s:I, s:I, s:I, s:f, s:o, s:f, s:o, s:O?}", "run",
			  s->run->label, "model", json_object_get(s->run->opening, "model"),
			  "params", s->params, "windows", (json_int_t)s->e->n, "n_windows",
			  s->n_windows, "tokens", (json_int_t)s->e->tokens, "n_tokens", s->n_tokens,
			  "nll", s->e->nll, "nll_se", real(s->e->nll_se), "ppl", s->e->ppl,
			  "ppl_se", real(s->e->ppl_se), "totals", s->run->totals);

	if (j && s->pair)
		(void)!json_object_set_new(
			j, "baseline",
			json_pack("{s:s, s:f, s:I, s:f, s:o}", "run", s->base->label, "ppl",
				  s->pair->base_ppl, "windows", (json_int_t)s->pair->n, "diff",
				  s->pair->diff, "diff_se", real(s->pair->diff_se)));
	return vq_json_puts(o, j, err);
}

int vq_eval_ppl_print(struct vq_str *out, const struct vq_eval_ppl *e, const struct vq_scores *run,
		      const struct vq_eval_ppl_pair *pair, const struct vq_scores *base,
		      enum vq_eval_format format, struct vq_err *err)
{
	struct shown s = {e,
			  run,
			  base,
			  pair,
			  json_object_get(run->opening, "params"),
			  json_integer_value(json_object_get(run->opening, "n_windows")),
			  json_integer_value(json_object_get(run->opening, "n_tokens"))};
	int rc = VQ_OK;

	switch (format) {
	case VQ_EVAL_TEXT: print_text(out, &s); break;
	case VQ_EVAL_TSV: print_tsv(out, &s); break;
	case VQ_EVAL_JSON: rc = print_json(out, &s, err); break;
	case VQ_EVAL_MARKDOWN: print_markdown(out, &s); break;
	}
	if (rc == VQ_OK && out->failed)
		rc = vq_fail(err, VQ_E_SYS, "memory: cannot hold the result");
	return rc;
}
