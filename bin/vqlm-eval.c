/* vqlm-eval: answers in, table out. */
#include "cli.h"

#include <string.h>

#include "base/io.h"
#include "base/log.h"
#include "task/eval.h"
#include "task/eval_ppl.h"
#include "task/eval_zeroshot.h"

static struct vq_common common;
static const char *reference, *split, *baseline, *logits, *base_logits;
static int task, parser, format;

enum { TASK_SCIENCEQA, TASK_PPL, TASK_ZEROSHOT };

#define TASKS "scienceqa|ppl|zeroshot"

static double min_acc;

static const struct vq_opt opts[] = {
	{"task", 0, VQ_OPT_CHOICE, "NAME", &task, "scienceqa",
	 "what is scored: letters of answers, windows of vqlm-infer --ppl, choices of its "
	 "--choices",
	 0, 0, TASKS},
	{"reference", 'r', VQ_OPT_STR, "FILE", &reference, NULL,
	 "right answers: ScienceQA problems.json, or a LLaVA conversation file", 0, 0, NULL},
	{"split", 's', VQ_OPT_STR, "NAME", &split, NULL,
	 "questions of this split of pid_splits.json beside the reference (default: test for "
	 "problems.json, all of a conversation file)",
	 0, 0, NULL},
	{"parser", 'p', VQ_OPT_CHOICE, "NAME", &parser, "llava",
	 "how a letter is read out of an answer", 0, 0, VQ_EVAL_PARSERS},
	{"baseline", 'b', VQ_OPT_STR, "FILE", &baseline, NULL,
	 "another run, compared question by question or window by window", 0, 0, NULL},
	{"format", 'f', VQ_OPT_CHOICE, "NAME", &format, "text", "what to write", 0, 0,
	 VQ_EVAL_FORMATS},
	{"min-acc", 'm', VQ_OPT_F64, "PERCENT", &min_acc, "0",
	 "status 1 when the accuracy is below this", 0, 100, NULL},
	{"logits", 0, VQ_OPT_STR, "FILE", &logits, NULL,
	 "logits of the run, from vqlm-infer --logits", 0, 0, NULL},
	{"baseline-logits", 0, VQ_OPT_STR, "FILE", &base_logits, NULL,
	 "logits of the run to compare with", 0, 0, NULL},
	{0},
};

static const struct vq_tool tool = {
	.name = "vqlm-eval",
	.summary = "score the answers of a vision-language model",
	.usage = "[options] (-r REFERENCE | --task NAME) [ANSWERS...] < ANSWERS",
	.about =
		"Reads answers (JSON Lines of vqlm-infer or of LLaVA, or LLaVA's result files) and "
		"prints the\n"
		"ScienceQA table: accuracy in percent, standard error and number of questions of "
		"each class.\n"
		"What cannot be read as a letter, and what is missing, counts as wrong and is "
		"reported.\n"
		"Or adds up the windows of vqlm-infer --ppl (perplexity), or counts the right "
		"choices "
		"of its\n--choices (zero-shot accuracies).\n",
	.examples = "  vqlm-infer -m llava-w4a4.vqm -d test.json | vqlm-eval -r problems.json\n"
		    "  vqlm-eval -r problems.json --baseline fp.jsonl -f markdown w4a4.jsonl\n"
		    "  vqlm-infer -m llava-w4a4.vqm --ppl wiki.txt | vqlm-eval --task ppl\n",
	.opts = opts,
	.common = &common,
};

/* What is open while the tool works. */
struct work {
	struct vq_sqa refs;
	struct vq_answers run, base;
	struct vq_eval eval, base_eval;
	struct vq_eval_pair pair[VQ_SQA_N_CLASSES];
	struct vq_eval_logits dist;
	struct vq_str text, label;
};

/* What the table calls the run: "stdin", "a.jsonl", "a.jsonl and 7 more". */
static const char *label_of(struct work *w, const char *const *paths, uint32_t n)
{
	vq_str_puts(&w->label, strcmp(paths[0], "-") == 0 ? "stdin" : paths[0]);
	if (n > 1)
		vq_str_printf(&w->label, " and %u more", n - 1);
	return w->label.failed ? paths[0] : w->label.s;
}

static int score(struct work *w, struct vq_eval_report *r, const char *const *paths, uint32_t n,
		 struct vq_err *err)
{
	const char *label = label_of(w, paths, n);
	int rc = vq_sqa_open(&w->refs, reference, split, err);

	if (rc == VQ_OK)
		rc = vq_answers_open(&w->run, paths, n, err);
	if (rc == VQ_OK)
		rc = vq_eval_score(&w->eval, &w->run, &w->refs, (enum vq_eval_parser)parser, label,
				   err);
	if (rc < 0)
		return rc;
	r->answers = label;
	r->references = reference;
	r->parser = (enum vq_eval_parser)parser;
	r->run = &w->run;
	r->refs = &w->refs;
	r->eval = &w->eval;
	if (w->eval.n == 0)
		return vq_fail(err, VQ_E_DATA, "%s: the opening line asked for no question", label);
	if (!baseline)
		return VQ_OK;
	rc = vq_answers_open(&w->base, &baseline, 1, err);
	if (rc == VQ_OK)
		rc = vq_eval_score(&w->base_eval, &w->base, &w->refs, (enum vq_eval_parser)parser,
				   baseline, err);
	if (rc < 0)
		return rc;
	vq_eval_compare(w->pair, &w->eval, &w->base_eval, &w->refs);
	if (w->pair[VQ_SQA_AVG].n == 0)
		return vq_fail(err, VQ_E_DATA, "%s: want questions that %s was asked too, got none",
			       baseline, label);
	r->baseline = baseline;
	r->base = &w->base_eval;
	r->pair = w->pair;
	return VQ_OK;
}

static int put(const struct vq_str *text, struct vq_err *err)
{
	struct vq_output out;
	int rc = vq_output_open(&out, common.output, err);

	if (rc < 0)
		return rc;
	rc = vq_write_full(out.fd, text->s, text->n, out.label, err);
	if (rc == VQ_OK)
		rc = vq_output_commit(&out, err);
	else
		vq_output_abort(&out, 0);
	return rc;
}

static int run(struct work *w, const char *const *paths, uint32_t n, struct vq_err *err)
{
	struct vq_eval_report r = {0};
	double acc;
	int rc = VQ_OK;

	if (reference)
		rc = score(w, &r, paths, n, err);
	if (rc == VQ_OK && logits) {
		rc = vq_eval_logits(&w->dist, logits, base_logits, err);
		r.logits = logits;
		r.base_logits = base_logits;
		r.dist = &w->dist;
	}
	if (rc == VQ_OK)
		rc = vq_eval_print(&w->text, &r, (enum vq_eval_format)format, err);
	if (rc == VQ_OK)
		rc = put(&w->text, err);
	if (rc < 0 || !r.eval)
		return rc;
	acc = 100.0 * r.eval->right / r.eval->n;
	if (acc < min_acc)
		rc = vq_fail(err, VQ_E_NO, "accuracy %.2f %% is below --min-acc %.15g", acc,
			     min_acc);
	return rc;
}

/* 0, or the exit status of a command line that makes no sense.  n: files of answers. */
static int check(int n, char **files)
{
	int i, in = 0;

	for (i = 0; i < n; i++)
		in += strcmp(files[i], "-") == 0;
	if (in > 1)
		return vq_cli_usage(&tool, "standard input cannot be read twice");
	if (n > 1 && task != TASK_SCIENCEQA)
		return vq_cli_usage(&tool,
				    "want one file of scored tokens, got '%s' too; cat joins "
				    "several",
				    files[1]);
	if (task == TASK_SCIENCEQA) {
		if (!reference && !logits)
			return vq_cli_usage(&tool, "want -r, the file of the right answers");
		if (!logits != !base_logits)
			return vq_cli_usage(&tool, "--logits and --baseline-logits come together");
		if (!reference && (n || baseline || min_acc > 0))
			return vq_cli_usage(&tool,
					    "want -r, the file of the right answers, to score");
		return 0;
	}
	if (reference || split || parser || min_acc > 0 || logits || base_logits)
		return vq_cli_usage(&tool, "--%s is not for --task ppl or zeroshot",
				    reference     ? "reference"
				    : split       ? "split"
				    : parser      ? "parser"
				    : logits      ? "logits"
				    : base_logits ? "baseline-logits"
						  : "min-acc");
	return 0;
}

static int run_ppl(struct vq_str *text, const char *path, struct vq_err *err)
{
	struct vq_scores s = {0}, base = {0};
	struct vq_eval_ppl_pair pair;
	struct vq_eval_ppl e;
	int rc = vq_scores_open(&s, path, "perplexity", err);

	if (rc >= 0)
		rc = vq_eval_ppl(&e, &s, err);
	if (rc >= 0 && baseline)
		rc = vq_scores_open(&base, baseline, "perplexity", err);
	if (rc >= 0 && baseline)
		rc = vq_eval_ppl_compare(&pair, &s, &base, err);
	if (rc >= 0)
		rc = vq_eval_ppl_print(text, &e, &s, baseline ? &pair : NULL, &base,
				       (enum vq_eval_format)format, err);
	vq_scores_close(&s);
	vq_scores_close(&base);
	return rc < 0 ? rc : put(text, err);
}

static int run_zeroshot(struct vq_str *text, const char *path, struct vq_err *err)
{
	struct vq_scores s = {0}, base = {0};
	struct vq_eval_zeroshot e;
	int rc = vq_scores_open(&s, path, "choices", err);

	if (rc >= 0 && baseline)
		rc = vq_scores_open(&base, baseline, "choices", err);
	if (rc >= 0)
		rc = vq_eval_zeroshot(&e, &s, baseline ? &base : NULL, err);
	if (rc >= 0)
		rc = vq_eval_zeroshot_print(text, &e, &s, baseline ? &base : NULL,
					    (enum vq_eval_format)format, err);
	vq_scores_close(&s);
	vq_scores_close(&base);
	return rc < 0 ? rc : put(text, err);
}

int main(int argc, char **argv)
{
	int at = vq_cli_parse(&tool, argc, argv), rc, status = check(argc - at, argv + at);
	const char *in = "-";
	const char *const *paths = at < argc ? (const char *const *)argv + at : &in;
	uint32_t n = at < argc ? (uint32_t)(argc - at) : 1;
	struct vq_err err = {0};
	struct work w = {0};

	if (status)
		return status;
	rc = task == TASK_PPL        ? run_ppl(&w.text, paths[0], &err)
	     : task == TASK_ZEROSHOT ? run_zeroshot(&w.text, paths[0], &err)
				     : run(&w, paths, n, &err);
	vq_answers_close(&w.run);
	vq_answers_close(&w.base);
	vq_eval_free(&w.eval);
	vq_eval_free(&w.base_eval);
	vq_sqa_close(&w.refs);
	vq_str_free(&w.text);
	vq_str_free(&w.label);
	return vq_cli_finish(&tool, rc, &err);
}
