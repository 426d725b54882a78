/* Reading answers. */
#include "format/answers.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "base/mem.h"

#define MAX_BYTES ((size_t)1 << 30)

/* "stdin: line 7", or "stdin: 'correct' item 7" where there are no lines to speak of. */
struct place {
	const char *label, *list;
	uint64_t line;
};

static int fail_at(const struct place *p, struct vq_err *err, const char *fmt, ...) VQ_PRINTF(3, 4);

static int fail_at(const struct place *p, struct vq_err *err, const char *fmt, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (p->list)
		return vq_fail(err, VQ_E_DATA, "%s: '%s' item %llu: %s", p->label, p->list,
			       (unsigned long long)p->line, text);
	return vq_fail(err, VQ_E_DATA, "%s: line %llu: %s", p->label, (unsigned long long)p->line,
		       text);
}

/* Keeps one answer; id and text are copied. */
static int add(struct vq_answers *a, const char *id, const char *text, int choice,
	       const struct place *p, struct vq_err *err)
{
	struct vq_answer *it;
	const json_t *old = json_object_get(a->map, id);

	if (old) {
		it = &a->items[json_integer_value(old)];
		return fail_at(p, err, "question_id '%.64s' came before, in %s%sline %llu", id,
			       it->label == p->label ? "" : it->label,
			       it->label == p->label ? "" : " ", (unsigned long long)it->line);
	}
	if (a->n == a->room) {
		uint32_t room = a->room ? 2 * a->room : 256;
		void *items = a->items;

		if (vq_grow(&items, a->room, room, sizeof(*a->items), err) < 0)
			return VQ_E_SYS;
		a->items = items;
		a->room = room;
	}
	it = &a->items[a->n];
	it->id = vq_strdup(id, err);
	it->text = text ? vq_strdup(text, err) : NULL;
	it->choice = text ? -1 : choice;
	it->line = p->line;
	it->label = p->label;
	a->n++;
	if (!it->id || (text && !it->text))
		return VQ_E_SYS;
	if (json_object_set_new(a->map, id, json_integer(a->n - 1)) < 0)
		return fail_at(p, err, "cannot index the answer");
	return VQ_OK;
}

/* An id is a string or an integer; buf holds the text of an integer. */
static const char *id_text(const json_t *id, char *buf, size_t room)
{
	if (json_is_integer(id)) {
		snprintf(buf, room, "%lld", (long long)json_integer_value(id));
		return buf;
	}
	return json_string_value(id);
}

/* One answer as an object with the text under the given key. */
static int add_object(struct vq_answers *a, const json_t *o, const char *key, const struct place *p,
		      struct vq_err *err)
{
	char buf[32];
	const char *id = id_text(json_object_get(o, "question_id"), buf, sizeof(buf));
	const char *text = json_string_value(json_object_get(o, key));

	if (!json_is_object(o))
		return fail_at(p, err, "want an answer, an object");
	if (!id)
		return fail_at(p, err, "want 'question_id', a string or an integer");
	if (!text)
		return fail_at(p, err, "question_id '%.64s': want '%s', a string", id, key);
	return add(a, id, text, -1, p, err);
}

/* An opening line: what was asked of which model. */
static int open_run(struct vq_answers *a, json_t *o, const struct place *p, struct vq_err *err)
{
	json_t *ids = json_object_get(o, "ids"), *id;
	size_t i;
	char buf[32];
	int rc = a->opening ? vq_shards_same(a->opening, o, NULL, p->label, p->line, err) : VQ_OK;

	if (rc >= 0)
		rc = vq_shards_add(&a->shards, o, p->label, p->line, err);
	if (rc < 0)
		return rc;
	if (!a->opening)
		a->opening = json_incref(o);
	if (!a->model && json_object_get(o, "model"))
		a->model = json_incref(json_object_get(o, "model"));
	if (!a->producer && json_object_get(o, "producer"))
		a->producer = json_incref(json_object_get(o, "producer"));
	if (!ids)
		return VQ_OK;
	if (!json_is_array(ids))
		return fail_at(p, err, "'ids': want a list");
	a->has_asked = 1;
	json_array_foreach(ids, i, id)
	{
		const char *text = id_text(id, buf, sizeof(buf));

		if (!text)
			return fail_at(p, err, "'ids' item %zu: want a string or an integer",
				       i + 1);
		if (json_array_append_new(a->asked, json_string(text)) < 0)
			return vq_fail(err, VQ_E_SYS, "memory: cannot keep the ids asked");
	}
	return VQ_OK;
}

struct lines {
	struct vq_answers *a;
	const char *label;
	uint64_t open,
		last; /* line of the opening that waits for its totals, 0 = none; the last line */
};

static int read_line(void *ctx, json_t *o, uint64_t line, struct vq_err *err)
{
	struct lines *s = ctx;
	struct place p = {s->label, NULL, line};
	const char *what = json_string_value(json_object_get(o, "vqlm"));

	s->last = line;
	if (!what)
		return add_object(s->a, o, "text", &p, err);
	if (strcmp(what, "answers") == 0) {
		if (s->open)
			return fail_at(&p, err,
				       "cut: the answers that open in line %llu have no totals",
				       (unsigned long long)s->open);
		s->open = line;
		return open_run(s->a, o, &p, err);
	}
	if (strcmp(what, "totals") == 0) {
		if (!s->open)
			return fail_at(&p, err, "totals without an opening line");
		s->open = 0;
		json_decref(s->a->totals);
		s->a->totals = json_incref(o);
	}
	return VQ_OK; /* other records of ours are nothing to score */
}

static int read_lines(struct vq_answers *a, const char *text, size_t n, const char *label,
		      struct vq_err *err)
{
	struct lines s = {a, label, 0, 0};
	int rc = vq_json_lines(text, n, label, read_line, &s, err);
	struct place p = {label, NULL, s.last};

	if (rc < 0 || !s.open)
		return rc;
	return fail_at(&p, err,
		       "cut: the answers that open in line %llu have no totals; the tool before "
		       "did not finish",
		       (unsigned long long)s.open);
}

static int read_judged(struct vq_answers *a, const json_t *root, const char *label,
		       struct vq_err *err)
{
	static const char *const lists[] = {"correct", "incorrect"};
	size_t i, k;
	json_t *o;

	for (k = 0; k < 2; k++) {
		json_array_foreach(json_object_get(root, lists[k]), i, o)
		{
			struct place p = {label, lists[k], i + 1};

			if (add_object(a, o, "pred", &p, err) < 0)
				return err->code;
		}
	}
	return VQ_OK;
}

static int read_results(struct vq_answers *a, const json_t *root, const char *label,
			struct vq_err *err)
{
	json_t *outputs = json_object_get(root, "outputs"), *v;
	struct place p = {label, outputs ? "outputs" : "results", 0};
	const char *id;

	json_object_foreach(outputs ? outputs : json_object_get(root, "results"), id, v)
	{
		p.line++;
		if (outputs ? !json_is_string(v) : !json_is_integer(v))
			return fail_at(&p, err, "'%.64s': want %s", id,
				       outputs ? "a string" : "the position of a choice");
		/* -1 stands for an answer that could not be read; so does anything out of range. */
		if (add(a, id, json_string_value(v),
			outputs || json_integer_value(v) < 0 || json_integer_value(v) > 25
				? -1
				: (int)json_integer_value(v),
			&p, err) < 0)
			return err->code;
	}
	return VQ_OK;
}

/* JSON Lines when the first line is an object of its own with an id; and when neither it nor the whole is
 * JSON and it holds more than a brace, so that the error names a line. */
static int is_lines(const char *text, size_t n)
{
	const char *stop = memchr(text, '\n', n);
	json_t *o = json_loadb(text, stop ? (size_t)(stop - text) : n, 0, NULL);
	int yes = json_object_get(o, "question_id") || json_object_get(o, "vqlm");

	if (!o) {
		o = json_loadb(text, n, 0, NULL);
		yes = !o && text[strspn(text, " \t\r{[")] != '\n';
	}
	json_decref(o);
	return yes;
}

/* Adds the answers of one file. */
static int read_file(struct vq_answers *a, const char *path, struct vq_err *err)
{
	int in = strcmp(path, "-") == 0, rc;
	const char *label = in ? "stdin" : path;
	size_t n = 0;
	char *text = NULL;
	json_t *root = NULL;

	rc = in ? vq_fd_read(STDIN_FILENO, MAX_BYTES, label, &text, &n, err)
		: vq_file_read(path, MAX_BYTES, VQ_E_SYS, &text, &n, err);
	if (rc < 0)
		return rc;
	if (strspn(text, " \t\r\n") >= n) {
		rc = vq_fail(err, VQ_E_DATA,
			     "%s: want answers, got nothing; did the tool before fail?", label);
		goto out;
	}
	if (is_lines(text, n)) {
		rc = read_lines(a, text, n, label, err);
		goto out;
	}
	root = vq_json_parse(text, n, label, err);
	if (!root)
		rc = VQ_E_DATA;
	else if (json_is_array(json_object_get(root, "correct")))
		rc = read_judged(a, root, label, err);
	else if (json_is_object(json_object_get(root, "outputs")) ||
		 json_is_object(json_object_get(root, "results")))
		rc = read_results(a, root, label, err);
	else
		rc = vq_fail(err, VQ_E_DATA,
			     "%s: want JSON Lines with question_id and text, or one object with "
			     "correct and incorrect, or with outputs or results",
			     label);
out:
	json_decref(root);
	vq_free(text);
	return rc;
}

int vq_answers_open(struct vq_answers *a, const char *const *paths, uint32_t n, struct vq_err *err)
{
	uint32_t i;
	int rc = VQ_OK;

	*a = (struct vq_answers){.map = json_object(), .asked = json_array()};
	if (!a->map || !a->asked)
		rc = vq_fail(err, VQ_E_SYS, "memory: cannot index the answers");
	for (i = 0; rc >= 0 && i < n; i++)
		rc = read_file(a, paths[i], err);
	if (rc >= 0)
		rc = vq_shards_whole(&a->shards, err);
	if (rc < 0)
		vq_answers_close(a);
	return rc;
}

void vq_answers_close(struct vq_answers *a)
{
	uint32_t i;

	for (i = 0; i < a->n; i++) {
		vq_free(a->items[i].id);
		vq_free(a->items[i].text);
	}
	vq_free(a->items);
	json_decref(a->asked);
	json_decref(a->model);
	json_decref(a->producer);
	json_decref(a->totals);
	json_decref(a->map);
	json_decref(a->opening);
	vq_shards_close(&a->shards);
	memset(a, 0, sizeof(*a));
}
