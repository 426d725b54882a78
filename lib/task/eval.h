/* Scoring: letters out of answers, the class table, paired comparison, distance of logits. */
#ifndef VQ_TASK_EVAL_H
#define VQ_TASK_EVAL_H

#include "base/str.h"
#include "format/answers.h"
#include "format/scienceqa.h"

/* How a letter is read out of an answer. */
enum vq_eval_parser {
	VQ_PARSE_LLAVA, /* the letter alone; "X. ..."; "The answer is X." exactly once */
	VQ_PARSE_QVLM,  /* "ANSWER: X." exactly once */
	VQ_PARSE_LMMS,  /* trimmed: the letter alone, or "X." at the start */
};

#define VQ_EVAL_PARSERS "llava|qvlm|lmms"

/* What became of a question; 0..25 is a letter. */
#define VQ_EVAL_NOT_ASKED -3
#define VQ_EVAL_MISSING   -2 /* asked and not answered */
#define VQ_EVAL_UNPARSED  -1

/* 0..25, or VQ_EVAL_UNPARSED. */
int vq_eval_letter(enum vq_eval_parser parser, const char *text);

struct vq_eval_class {
	uint32_t n, right;
};

struct vq_eval {
	uint32_t n, right;                            /* asked; right */
	uint32_t missing, unparsed, outside, ignored; /* outside: a letter beyond the choices */
	struct vq_eval_class classes[VQ_SQA_N_CLASSES];
	int8_t *letter; /* one for each reference */
};

/* The denominator is the ids that the answers say were asked, else the split of the references.  Missing,
 * unparsed and outside count as wrong.  ids that the references lack, or an answer to what was not asked,
 * are VQ_E_DATA; answers of foreign files beyond the split are ignored and counted. */
VQ_MUST_CHECK int vq_eval_score(struct vq_eval *e, const struct vq_answers *a,
				const struct vq_sqa *refs, enum vq_eval_parser parser,
				const char *label, struct vq_err *err);
void vq_eval_free(struct vq_eval *e);

/* Two runs on the questions that both were asked. */
struct vq_eval_pair {
	uint32_t n, lost, gained; /* lost: right in the baseline only */
	uint32_t changed;         /* letters that differ */
	double p_exact, p_mid;    /* McNemar */
};

void vq_eval_compare(struct vq_eval_pair pair[VQ_SQA_N_CLASSES], const struct vq_eval *run,
		     const struct vq_eval *base, const struct vq_sqa *refs);

/* Distance of a run's logits from a baseline's. */
struct vq_eval_logits {
	uint32_t n;             /* rows: questions, or scored tokens */
	double kl_mean, kl_max; /* KL(baseline || run), nats */
	uint32_t same_top;      /* rows with the same most probable token */
};

/* Two streams of vqlm-infer --logits over the same ids in the same order. */
VQ_MUST_CHECK int vq_eval_logits(struct vq_eval_logits *out, const char *path, const char *base,
				 struct vq_err *err);

/* All that is to be shown; members that do not apply are NULL. */
struct vq_eval_report {
	const char *answers, *references, *baseline, *logits, *base_logits; /* labels */
	enum vq_eval_parser parser;
	const struct vq_answers *run;
	const struct vq_sqa *refs;
	const struct vq_eval *eval;
	const struct vq_eval_pair *pair; /* [VQ_SQA_N_CLASSES] */
	const struct vq_eval *base;
	const struct vq_eval_logits *dist;
};

enum vq_eval_format { VQ_EVAL_TEXT, VQ_EVAL_TSV, VQ_EVAL_JSON, VQ_EVAL_MARKDOWN };

#define VQ_EVAL_FORMATS "text|tsv|json|markdown"

/* The line "model  mini-llava, qvlm, W4A4", as far as an opening line's model says. */
void vq_eval_put_model(struct vq_str *o, const json_t *model);

VQ_MUST_CHECK int vq_eval_print(struct vq_str *out, const struct vq_eval_report *r,
				enum vq_eval_format format, struct vq_err *err);

#endif
