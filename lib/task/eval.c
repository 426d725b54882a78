/* Scoring answers against references. */
#include "task/eval.h"

#include <string.h>

#include "base/mem.h"
#include "quant/stats.h"

/* The letter X of "lead X." where that occurs exactly once; any character but a line feed may stand for
 * the full stop.  This is LLaVA's regular expression 'The answer is ([A-Z]).', whose dot is not escaped. */
static int letter_after(const char *text, const char *lead)
{
	size_t n = strlen(lead);
	int letter = VQ_EVAL_UNPARSED, found = 0;

	while ((text = strstr(text, lead)) != NULL) {
		const char *x = text + n;

		if (x[0] >= 'A' && x[0] <= 'Z' && x[1] != '\0' && x[1] != '\n') {
			letter = x[0] - 'A';
			found++;
			text = x + 2; /* matches do not overlap */
		} else {
			text++;
		}
	}
	return found == 1 ? letter : VQ_EVAL_UNPARSED;
}

static int is_option(char c)
{
	return c >= 'A' && c <= 'E'; /* ScienceQA has at most five choices */
}

int vq_eval_letter(enum vq_eval_parser parser, const char *text)
{
	static const char blank[] = " \t\r\n\v\f";
	size_t n;

	switch (parser) {
	case VQ_PARSE_LLAVA:
		if (is_option(text[0]) && (text[1] == '\0' || (text[1] == '.' && text[2] == ' ')))
			return text[0] - 'A';
		return letter_after(text, "The answer is ");
	case VQ_PARSE_QVLM: return letter_after(text, "ANSWER: ");
	case VQ_PARSE_LMMS:
		text += strspn(text, blank);
		n = strcspn(text, blank);
		if (text[0] >= 'A' && text[0] <= 'Z' &&
		    (text[1] == '.' || (n == 1 && text[1 + strspn(text + 1, blank)] == '\0')))
			return text[0] - 'A';
		return VQ_EVAL_UNPARSED;
	}
	return VQ_EVAL_UNPARSED;
}

/* Marks what was asked as missing, all else as not asked. */
static int mark_asked(struct vq_eval *e, const struct vq_answers *a, const struct vq_sqa *refs,
		      const char *label, struct vq_err *err)
{
	json_t *id;
	size_t i;

	for (i = 0; i < refs->n; i++)
		e->letter[i] = !a->has_asked && refs->refs[i].in_split ? VQ_EVAL_MISSING
								       : VQ_EVAL_NOT_ASKED;
	if (!a->has_asked)
		return VQ_OK;
	json_array_foreach(a->asked, i, id)
	{
		const char *name = json_string_value(id);
		int64_t at = vq_sqa_find(refs, name);

		if (at < 0)
			return vq_fail(err, VQ_E_DATA,
				       "%s: id '%.64s' was asked, and the references have no such "
				       "question",
				       label, name);
		if (e->letter[at] != VQ_EVAL_NOT_ASKED)
			return vq_fail(err, VQ_E_DATA, "%s: id '%.64s' was asked twice", label,
				       name);
		e->letter[at] = VQ_EVAL_MISSING;
	}
	return VQ_OK;
}

/* Puts the letter of each answer where its question is. */
static int place_letters(struct vq_eval *e, const struct vq_answers *a, const struct vq_sqa *refs,
			 enum vq_eval_parser parser, struct vq_err *err)
{
	uint32_t i;

	for (i = 0; i < a->n; i++) {
		const struct vq_answer *it = &a->items[i];
		int64_t at = vq_sqa_find(refs, it->id);

		if (at < 0)
			return vq_fail(err, VQ_E_DATA,
				       "%s: line %llu: the references have no question '%.64s'",
				       it->label, (unsigned long long)it->line, it->id);
		if (e->letter[at] == VQ_EVAL_NOT_ASKED) {
			if (a->has_asked)
				return vq_fail(err, VQ_E_DATA,
					       "%s: line %llu: question '%.64s' was not asked by "
					       "the opening line",
					       it->label, (unsigned long long)it->line, it->id);
			e->ignored++;
			continue;
		}
		e->letter[at] = (int8_t)(it->text ? vq_eval_letter(parser, it->text) : it->choice);
	}
	return VQ_OK;
}

static int is_right(const struct vq_eval *e, const struct vq_sqa *refs, uint32_t i)
{
	return e->letter[i] == (int)refs->refs[i].answer;
}

static void count(struct vq_eval *e, const struct vq_sqa *refs)
{
	uint32_t i;
	int c;

	for (i = 0; i < refs->n; i++) {
		const struct vq_sqa_ref *r = &refs->refs[i];

		if (e->letter[i] == VQ_EVAL_NOT_ASKED)
			continue;
		e->missing += e->letter[i] == VQ_EVAL_MISSING;
		e->unparsed += e->letter[i] == VQ_EVAL_UNPARSED;
		e->outside += r->n_choices && e->letter[i] >= (int)r->n_choices;
		for (c = 0; c < VQ_SQA_N_CLASSES; c++) {
			if (r->classes >> c & 1) {
				e->classes[c].n++;
				e->classes[c].right += (uint32_t)is_right(e, refs, i);
			}
		}
	}
	e->n = e->classes[VQ_SQA_AVG].n;
	e->right = e->classes[VQ_SQA_AVG].right;
}

int vq_eval_score(struct vq_eval *e, const struct vq_answers *a, const struct vq_sqa *refs,
		  enum vq_eval_parser parser, const char *label, struct vq_err *err)
{
	int rc;

	memset(e, 0, sizeof(*e));
	e->letter = vq_alloc(refs->n, 1, err);
	if (!e->letter)
		return VQ_E_SYS;
	rc = mark_asked(e, a, refs, label, err);
	if (rc == VQ_OK)
		rc = place_letters(e, a, refs, parser, err);
	if (rc < 0) {
		vq_eval_free(e);
		return rc;
	}
	count(e, refs);
	return VQ_OK;
}

void vq_eval_free(struct vq_eval *e)
{
	vq_free(e->letter);
	memset(e, 0, sizeof(*e));
}

void vq_eval_compare(struct vq_eval_pair pair[VQ_SQA_N_CLASSES], const struct vq_eval *run,
		     const struct vq_eval *base, const struct vq_sqa *refs)
{
	uint32_t i;
	int c;

	memset(pair, 0, VQ_SQA_N_CLASSES * sizeof(*pair));
	for (i = 0; i < refs->n; i++) {
		int now = is_right(run, refs, i), was = is_right(base, refs, i);

		if (run->letter[i] == VQ_EVAL_NOT_ASKED || base->letter[i] == VQ_EVAL_NOT_ASKED)
			continue;
		for (c = 0; c < VQ_SQA_N_CLASSES; c++) {
			if (!(refs->refs[i].classes >> c & 1))
				continue;
			pair[c].n++;
			pair[c].lost += was && !now;
			pair[c].gained += now && !was;
			pair[c].changed += run->letter[i] != base->letter[i];
		}
	}
	for (c = 0; c < VQ_SQA_N_CLASSES; c++)
		vq_mcnemar(pair[c].lost, pair[c].gained, &pair[c].p_exact, &pair[c].p_mid);
}
