/* The class table as text, TSV, Markdown and JSON.  Accuracies are in percent everywhere. */
#include "task/eval.h"

#include <string.h>

#include "base/mem.h"
#include "quant/stats.h"

#define Z95 1.959964

static double percent(uint32_t k, uint32_t n)
{
	return n ? 100.0 * k / n : 0;
}

/* Classes that the references can tell and that have questions here. */
static int is_shown(const struct vq_eval_report *r, int c)
{
	return (r->refs->known >> c & 1) && r->eval->classes[c].n > 0;
}

static const char *parser_name(enum vq_eval_parser p)
{
	return p == VQ_PARSE_LLAVA ? "llava" : p == VQ_PARSE_QVLM ? "qvlm" : "lmms";
}

static double diff(const struct vq_eval_pair *p)
{
	return p->n ? 100.0 * ((double)p->gained - p->lost) / p->n : 0;
}

static double diff_se(const struct vq_eval_pair *p)
{
	return 100 * vq_paired_se(p->lost, p->gained, p->n);
}

/* How much of the reference was asked: "4241 questions" or "40 of the 4241 questions". */
static void put_extent(struct vq_str *o, const struct vq_eval_report *r)
{
	const struct vq_sqa *s = r->refs;

	if (r->eval->n == s->n_split)
		vq_str_printf(o, "all %u questions", s->n_split);
	else
		vq_str_printf(o, "partial run, %u of %u questions", r->eval->n, s->n_split);
	if (s->split)
		vq_str_printf(o, " of split %s", s->split);
}

static void put_counts(struct vq_str *o, const struct vq_eval *e)
{
	vq_str_printf(o,
		      "%u right of %u asked; counted as wrong: %u unparsed, %u outside the "
		      "choices, %u missing",
		      e->right, e->n, e->unparsed, e->outside, e->missing);
	if (e->ignored)
		vq_str_printf(o, "; %u answers to other questions ignored", e->ignored);
}

static void put_pair(struct vq_str *o, const struct vq_eval_report *r)
{
	const struct vq_eval_pair *p = &r->pair[VQ_SQA_AVG];

	vq_str_printf(o,
		      "%+.2f points (se %.2f) on %u shared questions: %u lost, %u gained, %u "
		      "letters changed; McNemar p %.4g exact, %.4g mid-p",
		      diff(p), diff_se(p), p->n, p->lost, p->gained, p->changed, p->p_exact,
		      p->p_mid);
}

static void put_dist(struct vq_str *o, const struct vq_eval_logits *d)
{
	vq_str_printf(o, "KL divergence %.6g nats mean, %.6g largest; same top token %.2f %% of %u",
		      d->kl_mean, d->kl_max, percent(d->same_top, d->n), d->n);
}

/* One row of the text table: its name and one number a class. */
static void put_row(struct vq_str *o, const struct vq_eval_report *r, const char *name, int what)
{
	int c;

	vq_str_printf(o, "%-10s", name);
	for (c = 0; c < VQ_SQA_N_CLASSES; c++) {
		const struct vq_eval_class *k = &r->eval->classes[c];

		if (!is_shown(r, c))
			continue;
		switch (what) {
		case 0: vq_str_printf(o, " %6s", vq_sqa_class_name(c)); break;
		case 1: vq_str_printf(o, " %6.2f", percent(k->right, k->n)); break;
		case 2: vq_str_printf(o, " %6.2f", 100 * vq_binomial_se(k->right, k->n)); break;
		case 3: vq_str_printf(o, " %6u", k->n); break;
		default: vq_str_printf(o, " %+6.2f", diff(&r->pair[c])); break;
		}
	}
	vq_str_puts(o, "\n");
}

void vq_eval_put_model(struct vq_str *o, const json_t *m)
{
	const char *name = json_string_value(json_is_string(m) ? m : json_object_get(m, "name"));
	const char *method = json_string_value(json_object_get(m, "method"));
	const json_t *w = json_object_get(json_object_get(m, "w"), "bits");
	const json_t *a = json_object_get(json_object_get(m, "a"), "bits");
	const char *scheme = json_string_value(json_object_get(json_object_get(m, "a"), "scheme"));
	const char *aspect = json_string_value(json_object_get(m, "aspect"));

	if (!name)
		return;
	vq_str_printf(o, "%-10s %s", "model", name);
	if (method)
		vq_str_printf(o, ", %s", strcmp(method, "none") == 0 ? "full precision" : method);
	if (w && a)
		vq_str_printf(o, ", W%lldA%lld", (long long)json_integer_value(w),
			      (long long)json_integer_value(a));
	if (scheme && strcmp(scheme, "group") != 0)
		vq_str_printf(o, ", activations %s", scheme);
	if (aspect && strcmp(aspect, "pad") == 0)
		vq_str_puts(o, ", pictures padded");
	vq_str_puts(o, "\n");
}

static void print_text(struct vq_str *o, const struct vq_eval_report *r)
{
	if (r->eval) {
		vq_str_printf(o, "%-10s %s, parser %s\n%-10s %s, ", "answers", r->answers,
			      parser_name(r->parser), "references", r->references);
		put_extent(o, r);
		vq_str_puts(o, "\n");
		vq_eval_put_model(o, r->run->model);
		vq_str_puts(o, "\n");
		put_row(o, r, "", 0);
		put_row(o, r, "accuracy %", 1);
		put_row(o, r, "std. error", 2);
		if (r->pair)
			put_row(o, r, "difference", 4);
		put_row(o, r, "questions", 3);
		vq_str_puts(o, "\n");
		put_counts(o, r->eval);
		vq_str_puts(o, "\n");
	}
	if (r->pair) {
		vq_str_printf(o, "against %s (%.2f %%): ", r->baseline,
			      percent(r->base->right, r->base->n));
		put_pair(o, r);
		vq_str_puts(o, "\n");
	}
	if (r->dist) {
		vq_str_printf(o, "logits %s against %s: ", r->logits, r->base_logits);
		put_dist(o, r->dist);
		vq_str_puts(o, "\n");
	}
}

static void print_tsv(struct vq_str *o, const struct vq_eval_report *r)
{
	int c;

	if (r->eval) {
		vq_str_puts(o, "class\tn\tright\tacc\tse\tlo\thi");
		vq_str_puts(o, r->pair ? "\tdiff\tdiff_se\tlost\tgained\tchanged\tp_exact\tp_mid\n"
				       : "\n");
	}
	for (c = 0; r->eval && c < VQ_SQA_N_CLASSES; c++) {
		const struct vq_eval_class *k = &r->eval->classes[c];
		double lo, hi;

		if (!is_shown(r, c))
			continue;
		vq_wilson(k->right, k->n, Z95, &lo, &hi);
		vq_str_printf(o, "%s\t%u\t%u\t%.4f\t%.4f\t%.4f\t%.4f", vq_sqa_class_name(c), k->n,
			      k->right, percent(k->right, k->n),
			      100 * vq_binomial_se(k->right, k->n), 100 * lo, 100 * hi);
		if (r->pair)
			vq_str_printf(o, "\t%.4f\t%.4f\t%u\t%u\t%u\t%.6g\t%.6g", diff(&r->pair[c]),
				      diff_se(&r->pair[c]), r->pair[c].lost, r->pair[c].gained,
				      r->pair[c].changed, r->pair[c].p_exact, r->pair[c].p_mid);
		vq_str_puts(o, "\n");
	}
	if (r->dist)
		vq_str_printf(o, "%skl_mean\tkl_max\tsame_top\tn\n%.6g\t%.6g\t%u\t%u\n",
			      r->eval ? "\n" : "", r->dist->kl_mean, r->dist->kl_max,
			      r->dist->same_top, r->dist->n);
}

static void print_markdown(struct vq_str *o, const struct vq_eval_report *r)
{
	int c;

	if (r->eval) {
		vq_str_puts(o, "|");
		for (c = 0; c < VQ_SQA_N_CLASSES; c++)
			if (is_shown(r, c))
				vq_str_printf(o, " %s |", vq_sqa_class_name(c));
		vq_str_puts(o, "\n|");
		for (c = 0; c < VQ_SQA_N_CLASSES; c++)
			if (is_shown(r, c))
				vq_str_puts(o, "---|");
		vq_str_puts(o, "\n|");
		for (c = 0; c < VQ_SQA_N_CLASSES; c++)
			if (is_shown(r, c))
				vq_str_printf(
					o, " %.2f ± %.2f |",
					percent(r->eval->classes[c].right, r->eval->classes[c].n),
					100 * vq_binomial_se(r->eval->classes[c].right,
							     r->eval->classes[c].n));
		vq_str_puts(o, "\n\nAccuracy in percent ± standard error; ");
		put_extent(o, r);
		vq_str_puts(o, "; ");
		put_counts(o, r->eval);
		vq_str_puts(o, ".\n");
	}
	if (r->pair) {
		vq_str_printf(o, "\nAgainst `%s`: ", r->baseline);
		put_pair(o, r);
		vq_str_puts(o, ".\n");
	}
	if (r->dist) {
		vq_str_printf(o, "\nLogits against `%s`: ", r->base_logits);
		put_dist(o, r->dist);
		vq_str_puts(o, ".\n");
	}
}

static json_t *class_json(const struct vq_eval_class *k)
{
	double lo, hi;

	vq_wilson(k->right, k->n, Z95, &lo, &hi);
	return json_pack("{s:I, s:I, s:f, s:f, s:f, s:f}", "n", (json_int_t)k->n, "right",
			 (json_int_t)k->right, "acc", percent(k->right, k->n), "se",
			 100 * vq_binomial_se(k->right, k->n), "lo", 100 * lo, "hi", 100 * hi);
}

static json_t *pair_json(const struct vq_eval_pair *p)
{
	return json_pack("{s:I, s:f, s:f, s:I, s:I, s:I, s:f, s:f}", "n", (json_int_t)p->n, "diff",
			 diff(p), "se", diff_se(p), "lost", (json_int_t)p->lost, "gained",
			 (json_int_t)p->gained, "changed", (json_int_t)p->changed, "p_exact",
			 p->p_exact, "p_mid", p->p_mid);
}

static json_t *eval_json(const struct vq_eval_report *r)
{
	const struct vq_eval *e = r->eval;
	json_t *classes = json_object(), *j;
	int c;

	for (c = 0; c < VQ_SQA_N_CLASSES; c++)
		if (is_shown(r, c))
			json_object_set_new(classes, vq_sqa_class_name(c),
					    class_json(&e->classes[c]));
	j = json_pack("{s:s, s:s, s:s, s:s?, s:I, s:I, s:b, s:I, s:I, s:I, s:I, s:I, s:o}",
		      "answers", r->answers, "references", r->references, "parser",
		      parser_name(r->parser), "split", r->refs->split, "n", (json_int_t)e->n,
		      "n_split", (json_int_t)r->refs->n_split, "partial", e->n != r->refs->n_split,
		      "right", (json_int_t)e->right, "unparsed", (json_int_t)e->unparsed, "outside",
		      (json_int_t)e->outside, "missing", (json_int_t)e->missing, "ignored",
		      (json_int_t)e->ignored, "classes", classes);
	if (r->run->model)
		json_object_set(j, "model", r->run->model);
	if (r->run->producer)
		json_object_set(j, "producer", r->run->producer);
	if (r->run->totals)
		json_object_set(j, "totals", r->run->totals);
	return j;
}

static int print_json(struct vq_str *o, const struct vq_eval_report *r, struct vq_err *err)
{
	json_t *j = r->eval ? eval_json(r) : json_object();
	int c;

	if (r->pair) {
		json_t *b = json_pack("{s:s}", "answers", r->baseline), *classes = json_object();

		for (c = 0; c < VQ_SQA_N_CLASSES; c++)
			if (is_shown(r, c))
				json_object_set_new(classes, vq_sqa_class_name(c),
						    pair_json(&r->pair[c]));
		json_object_set_new(b, "classes", classes);
		json_object_set_new(j, "baseline", b);
	}
	if (r->dist)
		json_object_set_new(j, "logits",
				    json_pack("{s:s, s:s, s:I, s:f, s:f, s:I}", "run", r->logits,
					      "baseline", r->base_logits, "n",
					      (json_int_t)r->dist->n, "kl_mean", r->dist->kl_mean,
					      "kl_max", r->dist->kl_max, "same_top",
					      (json_int_t)r->dist->same_top));
	return vq_json_puts(o, j, err);
}

int vq_eval_print(struct vq_str *out, const struct vq_eval_report *r, enum vq_eval_format format,
		  struct vq_err *err)
{
	int rc = VQ_OK;

	switch (format) {
	case VQ_EVAL_TEXT: print_text(out, r); break;
	case VQ_EVAL_TSV: print_tsv(out, r); break;
	case VQ_EVAL_JSON: rc = print_json(out, r, err); break;
	case VQ_EVAL_MARKDOWN: print_markdown(out, r); break;
	}
	if (rc == VQ_OK && out->failed)
		rc = vq_fail(err, VQ_E_SYS, "memory: cannot hold the table");
	return rc;
}
