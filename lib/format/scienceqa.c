/* References: ScienceQA problems and LLaVA conversations. */
#include "format/scienceqa.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "base/mem.h"

const char *vq_sqa_class_name(int c)
{
	static const char *const names[] = {"NAT", "SOC",  "LAN",   "TXT", "IMG",
					    "NO",  "G1-6", "G7-12", "Avg"};

	return c >= 0 && c < VQ_SQA_N_CLASSES ? names[c] : "?";
}

/* TXT, IMG or NO; a question may have text and a picture. */
static uint32_t context_classes(int has_text, int has_image)
{
	uint32_t c = 1u << VQ_SQA_AVG;

	if (has_text)
		c |= 1u << VQ_SQA_TXT;
	if (has_image)
		c |= 1u << VQ_SQA_IMG;
	return has_text || has_image ? c : c | 1u << VQ_SQA_NO;
}

static uint32_t subject_class(const char *subject)
{
	if (strcmp(subject, "natural science") == 0)
		return 1u << VQ_SQA_NAT;
	if (strcmp(subject, "social science") == 0)
		return 1u << VQ_SQA_SOC;
	return strcmp(subject, "language science") == 0 ? 1u << VQ_SQA_LAN : 0;
}

/* "grade7" -> G7-12. */
static uint32_t grade_class(const char *grade)
{
	long g = strncmp(grade, "grade", 5) == 0 ? strtol(grade + 5, NULL, 10) : 0;

	if (g >= 1 && g <= 6)
		return 1u << VQ_SQA_G1_6;
	return g >= 7 && g <= 12 ? 1u << VQ_SQA_G7_12 : 0;
}

/* One member of problems.json. */
static int read_problem(struct vq_sqa_ref *r, const json_t *p, const char *label,
			struct vq_err *err)
{
	const char *hint, *image, *subject, *grade;
	json_t *choices = json_object_get(p, "choices");

	if (!json_is_object(p))
		return vq_fail(err, VQ_E_DATA, "%s: want a problem, an object", label);
	if (!json_is_array(choices) || json_array_size(choices) < 1 ||
	    json_array_size(choices) > VQ_MAX_CHOICES)
		return vq_fail(err, VQ_E_DATA, "%s: 'choices': want a list of 1..26", label);
	r->n_choices = (uint32_t)json_array_size(choices);
	if (vq_json_u32(p, "answer", UINT32_MAX, &r->answer, label, err) < 0 ||
	    vq_json_str(p, "hint", "", &hint, label, err) < 0 ||
	    vq_json_str(p, "image", NULL, &image, label, err) < 0 ||
	    vq_json_str(p, "subject", "", &subject, label, err) < 0 ||
	    vq_json_str(p, "grade", "", &grade, label, err) < 0)
		return VQ_E_DATA;
	if (r->answer >= r->n_choices)
		return vq_fail(err, VQ_E_DATA,
			       "%s: 'answer': want the position of one of %u "
			       "choices, got %s",
			       label, r->n_choices,
			       r->answer == UINT32_MAX ? "nothing" : "one beyond them");
	r->classes = context_classes(hint[0] != '\0', image != NULL) | subject_class(subject) |
		     grade_class(grade);
	return VQ_OK;
}

static int read_problems(struct vq_sqa *s, const char *path, struct vq_err *err)
{
	const char *id;
	json_t *p;
	char label[512];

	json_object_foreach(s->root, id, p)
	{
		struct vq_sqa_ref *r = &s->refs[s->n];

		snprintf(label, sizeof(label), "%s: problem '%.64s'", path, id);
		if (read_problem(r, p, label, err) < 0)
			return VQ_E_DATA;
		r->id = id;
		s->known |= r->classes;
		if (json_object_set_new(s->map, id, json_integer(s->n)) < 0)
			return vq_fail(err, VQ_E_SYS, "memory: cannot index %s", path);
		s->n++;
	}
	/* A file that tells contexts tells all three, though one may be empty in it. */
	s->known |= 1u << VQ_SQA_TXT | 1u << VQ_SQA_IMG | 1u << VQ_SQA_NO;
	return VQ_OK;
}

/* The letter of a gpt turn: "C", "... The answer is C." or "... ANSWER: C."; -1 otherwise. */
static int turn_letter(const char *text)
{
	static const char *const leads[] = {"The answer is ", "ANSWER: "};
	size_t i;

	if (text[0] >= 'A' && text[0] <= 'Z' && text[1] == '\0')
		return text[0] - 'A';
	for (i = 0; i < 2; i++) {
		const char *at = text, *last = NULL;

		while ((at = strstr(at, leads[i])) != NULL) {
			at += strlen(leads[i]);
			last = at;
		}
		if (last && last[0] >= 'A' && last[0] <= 'Z' && (last[1] == '.' || !last[1]))
			return last[0] - 'A';
	}
	return -1;
}

static int read_conversation(struct vq_sqa_ref *r, const struct vq_item *item, const char *path,
			     struct vq_err *err)
{
	const char *ctx = strstr(item->text, "Context: ");
	int letter = turn_letter(item->label ? item->label : "");

	if (letter < 0)
		return vq_fail(
			err, VQ_E_DATA,
			"%s: item '%.64s': want a gpt turn of the form C, 'The answer is C.' or "
			"'ANSWER: C.', got '%.40s'",
			path, item->id, item->label ? item->label : "");
	r->id = item->id;
	r->answer = (uint32_t)letter;
	r->n_choices = vq_count_choices(item->text);
	if (r->n_choices && r->answer >= r->n_choices)
		return vq_fail(
			err, VQ_E_DATA,
			"%s: item '%.64s': the reference letter %c is not one of its %u choices",
			path, item->id, 'A' + letter, r->n_choices);
	if (ctx && ctx != item->text && ctx[-1] != '\n')
		ctx = NULL;
	r->classes = context_classes(ctx && strncmp(ctx, "Context: N/A\n", 13) != 0,
				     item->image != NULL);
	return VQ_OK;
}

static int read_conversations(struct vq_sqa *s, const char *path, struct vq_err *err)
{
	uint32_t i;

	for (i = 0; i < s->data.n; i++) {
		if (read_conversation(&s->refs[i], &s->data.items[i], path, err) < 0)
			return VQ_E_DATA;
		if (json_object_set_new(s->map, s->refs[i].id, json_integer(i)) < 0)
			return vq_fail(err, VQ_E_SYS, "memory: cannot index %s", path);
		s->n++;
	}
	s->known = 1u << VQ_SQA_TXT | 1u << VQ_SQA_IMG | 1u << VQ_SQA_NO | 1u << VQ_SQA_AVG;
	return VQ_OK;
}

/* Marks the ids of a split by pid_splits.json. */
static int mark_by_list(struct vq_sqa *s, const char *path, const char *split, struct vq_err *err)
{
	int rc = VQ_OK;
	json_t *all = vq_json_file(path, VQ_E_DATA, err), *ids = json_object_get(all, split), *id;
	size_t i;

	if (!all)
		return VQ_E_DATA;
	if (!json_is_array(ids)) {
		rc = vq_fail(err, VQ_E_DATA, "%s: want a split '%s', a list of ids", path, split);
		goto out;
	}
	json_array_foreach(ids, i, id)
	{
		const char *name = json_string_value(id);
		int64_t at = name ? vq_sqa_find(s, name) : -1;

		if (at < 0) {
			rc = vq_fail(err, VQ_E_DATA,
				     "%s: split '%s' names '%.64s', for which the reference has "
				     "nothing",
				     path, split, name ? name : "?");
			goto out;
		}
		s->n_split += !s->refs[at].in_split;
		s->refs[at].in_split = 1;
	}
out:
	json_decref(all);
	return rc;
}

/* Marks by the problems' own "split"; 1 when at least one problem has such a member. */
static int mark_by_member(struct vq_sqa *s, const char *split)
{
	uint32_t i;
	int any = 0;

	for (i = 0; i < s->n; i++) {
		const json_t *p = json_object_get(s->root, s->refs[i].id);
		const char *v = json_string_value(json_object_get(p, "split"));

		any |= v != NULL;
		if (v && strcmp(v, split) == 0) {
			s->refs[i].in_split = 1;
			s->n_split++;
		}
	}
	return any;
}

static int mark_split(struct vq_sqa *s, const char *path, const char *split, struct vq_err *err)
{
	char *dir = vq_path_dir(path, err);
	char *list = dir ? vq_path_join(dir, "pid_splits.json", err) : NULL;
	int rc = VQ_OK, known = 0;
	uint32_t i;

	if (!list) {
		rc = VQ_E_SYS;
		goto out;
	}
	if (split && vq_path_exists(list)) {
		known = 1;
		rc = mark_by_list(s, list, split, err);
	} else if (split && json_is_object(s->root)) {
		known = mark_by_member(s, split);
	}
	if (rc == VQ_OK && split && !known)
		rc = vq_fail(err, VQ_E_DATA,
			     "%s: want %s to know which questions are of split '%s'", path, list,
			     split);
	if (rc == VQ_OK && split && s->n_split == 0)
		rc = vq_fail(err, VQ_E_DATA, "%s: no question is of split '%s'", path, split);
	for (i = 0; rc == VQ_OK && !split && i < s->n; i++) {
		s->refs[i].in_split = 1;
		s->n_split++;
	}
out:
	vq_free(list);
	vq_free(dir);
	return rc;
}

/* Does the first of several lines hold a JSON value of its own, as in JSON Lines? */
static int has_lines(const char *text, size_t n)
{
	const char *stop = memchr(text, '\n', n);
	json_t *o = stop && stop[strspn(stop, " \t\r\n")]
			    ? json_loadb(text, (size_t)(stop - text), 0, NULL)
			    : NULL;
	int yes = o != NULL;

	json_decref(o);
	return yes;
}

/* 1 when the file is one object, problems; 0 when it is for the reader of data sets. */
static int load_problems(struct vq_sqa *s, const char *path, struct vq_err *err)
{
	char *text = NULL;
	size_t n = 0;
	int rc = vq_file_read(path, (size_t)1 << 30, VQ_E_SYS, &text, &n, err);

	if (rc < 0)
		return rc;
	if (text[strspn(text, " \t\r\n")] == '{' && !has_lines(text, n)) {
		s->root = vq_json_parse(text, n, path, err);
		rc = s->root ? !json_object_get(s->root, "conversations") : VQ_E_DATA;
	}
	vq_free(text);
	return rc;
}

int vq_sqa_open(struct vq_sqa *s, const char *path, const char *split, struct vq_err *err)
{
	int rc, is_problems;
	size_t n;

	memset(s, 0, sizeof(*s));
	is_problems = rc = load_problems(s, path, err);
	if (rc == 0)
		rc = vq_dataset_open(&s->data, path, NULL, err);
	if (rc < 0)
		goto out;
	n = is_problems ? json_object_size(s->root) : s->data.n;
	if (n == 0 || n > UINT32_MAX / 2) {
		rc = vq_fail(err, VQ_E_DATA,
			     "%s: want ScienceQA problems (an object) or LLaVA conversations (a "
			     "list), got %zu of them",
			     path, n);
		goto out;
	}
	rc = VQ_E_SYS;
	s->map = json_object();
	s->refs = vq_calloc(n, sizeof(*s->refs), err);
	if (!s->map || !s->refs)
		goto out;
	if (is_problems && !split)
		split = "test";
	rc = is_problems ? read_problems(s, path, err) : read_conversations(s, path, err);
	if (rc == VQ_OK)
		rc = mark_split(s, path, split, err);
	if (rc == VQ_OK && split && !(s->split = vq_strdup(split, err)))
		rc = VQ_E_SYS;
out:
	if (rc < 0)
		vq_sqa_close(s);
	return rc;
}

void vq_sqa_close(struct vq_sqa *s)
{
	vq_dataset_close(&s->data);
	json_decref(s->root);
	json_decref(s->map);
	vq_free(s->refs);
	vq_free(s->split);
	memset(s, 0, sizeof(*s));
}

int64_t vq_sqa_find(const struct vq_sqa *s, const char *id)
{
	const json_t *at = json_object_get(s->map, id);

	return at ? json_integer_value(at) : -1;
}
