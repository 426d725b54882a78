/* Counting right choices. */
#include "task/eval_zeroshot.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "quant/stats.h"

uint32_t vq_best_choice(const double *scores, const double *chars, uint32_t n, int norm)
{
	uint32_t best = 0, i;

	for (i = 1; i < n; i++)
		if (norm ? scores[i] / chars[i] > scores[best] / chars[best]
			 : scores[i] > scores[best])
			best = i;
	return best;
}

/* --- a line --- */

struct line {
	int task;
	int right, right_norm;
};

static int numbers(const json_t *list, double *out, uint32_t n, double least)
{
	uint32_t i;

	if (json_array_size(list) != n)
		return -1;
	for (i = 0; i < n; i++) {
		const json_t *v = json_array_get(list, i);

		out[i] = json_number_value(v);
		if (!json_is_number(v) || !isfinite(out[i]) || out[i] < least)
			return -1;
	}
	return 0;
}

static int read_line(const struct vq_scores *s, uint32_t at, struct line *l, struct vq_err *err)
{
	const json_t *o = s->lines[at], *answer = json_object_get(o, "answer");
	const char *task = json_string_value(json_object_get(o, "task"));
	double scores[VQ_MAX_CONTINUATIONS], chars[VQ_MAX_CONTINUATIONS];
	size_t n = json_array_size(json_object_get(o, "scores"));
	unsigned long long line = s->at[at];
	json_int_t right;

	l->task = task ? vq_choice_task_find(task) : -1;
	if (l->task < 0)
		return vq_fail(err, VQ_E_DATA, "%s: line %llu: task '%.64s': want one of %s",
			       s->label, line, task ? task : "", vq_choice_task_names());
	if (n < 2 || n > VQ_MAX_CONTINUATIONS ||
	    numbers(json_object_get(o, "scores"), scores, (uint32_t)n, -INFINITY) < 0 ||
	    numbers(json_object_get(o, "chars"), chars, (uint32_t)n, 1) < 0)
		return vq_fail(
			err, VQ_E_DATA,
			"%s: line %llu: want 'scores', a list of 2 to 26 numbers, and 'chars', "
			"as many above 0",
			s->label, line);
	right = json_is_integer(answer) ? json_integer_value(answer) : -1;
	if (right < 0 || right >= (json_int_t)n)
		return vq_fail(err, VQ_E_DATA,
			       "%s: line %llu: want 'answer', the position of a choice, from 0",
			       s->label, line);
	l->right = vq_best_choice(scores, chars, (uint32_t)n, 0) == right;
	l->right_norm = vq_best_choice(scores, chars, (uint32_t)n, 1) == right;
	return VQ_OK;
}

/* --- all of them --- */

static int metric(const struct line *l)
{
	return vq_choice_tasks[l->task].wants_norm ? l->right_norm : l->right;
}

static int compare(struct vq_eval_zeroshot *e, const struct vq_scores *run, uint32_t at,
		   const struct line *l, const struct vq_scores *base, struct vq_err *err)
{
	const char *id = json_string_value(json_object_get(run->lines[at], "question_id"));
	const json_t *place = json_object_get(base->place, id);
	struct vq_eval_task *t = &e->tasks[l->task];
	struct line was;
	int rc;

	if (!place)
		return VQ_OK;
	rc = read_line(base, (uint32_t)json_integer_value(place), &was, err);
	if (rc < 0)
		return rc;
	if (was.task != l->task)
		return vq_fail(err, VQ_E_DATA, "%s: question '%.64s' is of another task in %s",
			       run->label, id, base->label);
	t->shared++;
	t->lost += metric(&was) && !metric(l);
	t->gained += metric(l) && !metric(&was);
	return VQ_OK;
}

static uint32_t right_of(const struct vq_eval_zeroshot *e, int task)
{
	return vq_choice_tasks[task].wants_norm ? e->tasks[task].right_norm : e->tasks[task].right;
}

static void average(struct vq_eval_zeroshot *e)
{
	double sum = 0, variance = 0;
	int i;

	for (i = 0; i < VQ_N_CHOICE_TASKS; i++) {
		uint32_t n = e->tasks[i].n;
		double se = vq_binomial_se(right_of(e, i), n);

		if (!vq_choice_tasks[i].is_one || !n)
			continue;
		e->n_of_seven++;
		sum += (double)right_of(e, i) / n;
		variance += se * se;
	}
	e->average = e->n_of_seven == VQ_N_ZERO_SHOT ? 100 * sum / VQ_N_ZERO_SHOT : NAN;
	e->average_se = 100 * sqrt(variance) / VQ_N_ZERO_SHOT;
}

int vq_eval_zeroshot(struct vq_eval_zeroshot *e, const struct vq_scores *run,
		     const struct vq_scores *base, struct vq_err *err)
{
	static const char *const keys[] = {"params.bos", NULL};
	uint32_t i, shared = 0;
	int rc = base ? vq_scores_agree(run, base, keys, err) : VQ_OK;

	memset(e, 0, sizeof(*e));
	for (i = 0; rc >= 0 && i < run->n; i++) {
		struct line l;

		rc = read_line(run, i, &l, err);
		if (rc < 0)
			break;
		e->tasks[l.task].n++;
		e->tasks[l.task].right += (uint32_t)l.right;
		e->tasks[l.task].right_norm += (uint32_t)l.right_norm;
		if (base)
			rc = compare(e, run, i, &l, base, err);
	}
	for (i = 0; i < VQ_N_CHOICE_TASKS; i++)
		shared += e->tasks[i].shared;
	if (rc >= 0 && base && shared == 0)
		rc = vq_fail(err, VQ_E_DATA, "%s: want questions that %s was asked too, got none",
			     base->label, run->label);
	average(e);
	return rc;
}

/* --- printing: percent everywhere --- */

static double percent(uint32_t k, uint32_t n)
{
	return 100.0 * k / n;
}

static double percent_se(uint32_t k, uint32_t n)
{
	return 100 * vq_binomial_se(k, n);
}

static double diff(const struct vq_eval_task *t)
{
	return t->shared ? 100.0 * ((double)t->gained - t->lost) / t->shared : 0;
}

/* "no average: 6 of 7 tasks, without hellaswag", or the average; then what was not asked whole. */
static void put_average(struct vq_str *o, const struct vq_eval_zeroshot *e)
{
	const char *sep = ", without ";
	int i;

	if (e->n_of_seven == VQ_N_ZERO_SHOT)
		vq_str_printf(o, "average of 7 tasks %.4f ± %.4f", e->average, e->average_se);
	else
		vq_str_printf(o, "no average: %u of %d tasks", e->n_of_seven, VQ_N_ZERO_SHOT);
	for (i = 0; i < VQ_N_CHOICE_TASKS; i++)
		if (vq_choice_tasks[i].is_one && !e->tasks[i].n) {
			vq_str_printf(o, "%s%s", sep, vq_choice_tasks[i].name);
			sep = ", ";
		}
	sep = "; partial: ";
	for (i = 0; i < VQ_N_CHOICE_TASKS; i++)
		if (e->tasks[i].n && e->tasks[i].n != vq_choice_tasks[i].n) {
			vq_str_printf(o, "%s%s %u of %u", sep, vq_choice_tasks[i].name,
				      e->tasks[i].n, vq_choice_tasks[i].n);
			sep = ", ";
		}
}

static const char *bos_of(const struct vq_scores *run)
{
	const char *bos =
		json_string_value(json_object_get(json_object_get(run->opening, "params"), "bos"));

	return bos && strcmp(bos, "first") == 0 ? "BOS before each context" : "no BOS";
}

static void put_pm(struct vq_str *o, uint32_t k, uint32_t n, int counts)
{
	vq_str_printf(o, " %6.2f ± %4.2f%s", percent(k, n), percent_se(k, n), counts ? " *" : "  ");
}

static void print_text(struct vq_str *o, const struct vq_eval_zeroshot *e,
		       const struct vq_scores *run, const struct vq_scores *base)
{
	int i;

	vq_str_printf(o, "%-10s %s\n", "run", run->label);
	vq_eval_put_model(o, json_object_get(run->opening, "model"));
	vq_str_printf(o, "%-10s zero-shot, ln p of each choice, %s\n\n", "protocol", bos_of(run));
	vq_str_printf(o, "%-16s %6s %15s   %15s%s\n", "task", "n", "acc %", "acc_norm %",
		      base ? "     difference  McNemar p" : "");
	for (i = 0; i < VQ_N_CHOICE_TASKS; i++) {
		const struct vq_choice_task *c = &vq_choice_tasks[i];
		const struct vq_eval_task *t = &e->tasks[i];
		double exact, mid;

		if (!t->n)
			continue;
		vq_str_printf(o, "%-16s %6u", c->name, t->n);
		put_pm(o, t->right, t->n, c->is_one && !c->wants_norm);
		if (c->has_norm)
			put_pm(o, t->right_norm, t->n, c->wants_norm);
		else if (base)
			vq_str_printf(o, "%17s", "");
		if (base && t->shared) {
			vq_mcnemar(t->lost, t->gained, &exact, &mid);
			vq_str_printf(o, " %+6.2f ± %4.2f  %.4g", diff(t),
				      100 * vq_paired_se(t->lost, t->gained, t->shared), mid);
		}
		vq_str_puts(o, "\n");
	}
	vq_str_puts(o, "\n");
	put_average(o, e);
	vq_str_puts(o, "\n* what the average takes\n");
	if (base)
		vq_str_printf(o, "difference of *: points against %s on the same questions\n",
			      base->label);
}

static void print_tsv(struct vq_str *o, const struct vq_eval_zeroshot *e,
		      const struct vq_scores *base)
{
	int i;

	vq_str_puts(o, "task\tn\tfull\tacc\tacc_se\tacc_norm\tacc_norm_se\tmetric");
	vq_str_puts(o, base ? "\tshared\tdiff\tdiff_se\tlost\tgained\n" : "\n");
	for (i = 0; i < VQ_N_CHOICE_TASKS; i++) {
		const struct vq_choice_task *c = &vq_choice_tasks[i];
		const struct vq_eval_task *t = &e->tasks[i];

		if (!t->n)
			continue;
		vq_str_printf(o, "%s\t%u\t%u\t%.4f\t%.4f\t", c->name, t->n, c->n,
			      percent(t->right, t->n), percent_se(t->right, t->n));
		if (c->has_norm)
			vq_str_printf(o, "%.4f\t%.4f", percent(t->right_norm, t->n),
				      percent_se(t->right_norm, t->n));
		else
			vq_str_puts(o, "\t");
		vq_str_printf(o, "\t%s", c->wants_norm ? "acc_norm" : "acc");
		if (base)
			vq_str_printf(o, "\t%u\t%.4f\t%.4f\t%u\t%u", t->shared, diff(t),
				      100 * vq_paired_se(t->lost, t->gained, t->shared), t->lost,
				      t->gained);
		vq_str_puts(o, "\n");
	}
	if (e->n_of_seven == VQ_N_ZERO_SHOT)
		vq_str_printf(o, "average\t%u\t%d\t%.4f\t%.4f\t\t\t\n", e->n_of_seven,
			      VQ_N_ZERO_SHOT, e->average, e->average_se);
}

static void print_markdown(struct vq_str *o, const struct vq_eval_zeroshot *e,
			   const struct vq_scores *run, const struct vq_scores *base)
{
	int i;

	vq_str_printf(o, "| task | n | acc | acc_norm |%s\n|---|---|---|---|%s\n",
		      base ? " difference |" : "", base ? "---|" : "");
	for (i = 0; i < VQ_N_CHOICE_TASKS; i++) {
		const struct vq_choice_task *c = &vq_choice_tasks[i];
		const struct vq_eval_task *t = &e->tasks[i];

		if (!t->n)
			continue;
		vq_str_printf(o, "| %s | %u |", c->name, t->n);
		put_pm(o, t->right, t->n, c->is_one && !c->wants_norm);
		vq_str_puts(o, "|");
		if (c->has_norm)
			put_pm(o, t->right_norm, t->n, c->wants_norm);
		vq_str_puts(o, "|");
		if (base)
			vq_str_printf(o, " %+.2f ± %.2f |", diff(t),
				      100 * vq_paired_se(t->lost, t->gained, t->shared));
		vq_str_puts(o, "\n");
	}
	vq_str_puts(o, "\nPercent ± standard error, zero-shot, ");
	vq_str_printf(o, "%s; ", bos_of(run));
	put_average(o, e);
	vq_str_puts(o, " (of what is marked).\n");
	if (base)
		vq_str_printf(o, "Differences: points against `%s` on the same questions.\n",
			      base->label);
}

static json_t *task_json(const struct vq_choice_task *c, const struct vq_eval_task *t, int paired)
{
	json_t *j =
		json_pack("{s:I, s:I, s:f, s:f, s:s}", "n", (json_int_t)t->n, "full",
			  (json_int_t)c->n, "acc", percent(t->right, t->n), "acc_se",
			  percent_se(t->right, t->n), "metric", c->wants_norm ? "acc_norm" : "acc");

	if (c->has_norm) {
		(void)!json_object_set_new(j, "acc_norm", json_real(percent(t->right_norm, t->n)));
		(void)!json_object_set_new(j, "acc_norm_se",
					   json_real(percent_se(t->right_norm, t->n)));
	}
	if (paired) {
		double exact, mid;

		vq_mcnemar(t->lost, t->gained, &exact, &mid);
		(void)!json_object_set_new(
			j, "baseline",
			json_pack("{s:I, s:f, s:f, s:I, s:I, s:f, s:f}", "n", (json_int_t)t->shared,
				  "diff", diff(t), "se",
				  100 * vq_paired_se(t->lost, t->gained, t->shared), "lost",
				  (json_int_t)t->lost, "gained", (json_int_t)t->gained, "p_exact",
				  exact, "p_mid", mid));
	}
	return j;
}

static int print_json(struct vq_str *o, const struct vq_eval_zeroshot *e,
		      const struct vq_scores *run, const struct vq_scores *base, struct vq_err *err)
{
	json_t *tasks = json_object(), *j;
	int i;

	for (i = 0; i < VQ_N_CHOICE_TASKS; i++)
		if (e->tasks[i].n)
			(void)!json_object_set_new(
				tasks, vq_choice_tasks[i].name,
				task_json(&vq_choice_tasks[i], &e->tasks[i], base != NULL));
	j = json_pack("{s:s, s:O?, s:O?, s:o, s:I, s:O?}", "run", run->label, "model",
		      json_object_get(run->opening, "model"), "params",
		      json_object_get(run->opening, "params"), "tasks", tasks, "n_tasks",
		      (json_int_t)e->n_of_seven, "totals", run->totals);
	if (j && e->n_of_seven == VQ_N_ZERO_SHOT) {
		(void)!json_object_set_new(j, "average", json_real(e->average));
		(void)!json_object_set_new(j, "average_se", json_real(e->average_se));
	}
	return vq_json_puts(o, j, err);
}

int vq_eval_zeroshot_print(struct vq_str *out, const struct vq_eval_zeroshot *e,
			   const struct vq_scores *run, const struct vq_scores *base,
			   enum vq_eval_format format, struct vq_err *err)
{
	int rc = VQ_OK;

	switch (format) {
	case VQ_EVAL_TEXT: print_text(out, e, run, base); break;
	case VQ_EVAL_TSV: print_tsv(out, e, base); break;
	case VQ_EVAL_JSON: rc = print_json(out, e, run, base, err); break;
	case VQ_EVAL_MARKDOWN: print_markdown(out, e, run, base); break;
	}
	if (rc == VQ_OK && out->failed)
		rc = vq_fail(err, VQ_E_SYS, "memory: cannot hold the table");
	return rc;
}
