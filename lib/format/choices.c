/* Reading questions with choices. */
#include "format/choices.h"

#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "base/mem.h"

#define MAX_BYTES ((size_t)1 << 30)

const struct vq_choice_task vq_choice_tasks[VQ_N_CHOICE_TASKS] = {
	{"boolq", 3270, 0, 0, 1},
	{"piqa", 1838, 1, 0, 1},
	{"hellaswag", 10042, 1, 1, 1},
	{"winogrande", 1267, 0, 0, 1},
	{"arc_easy", 2376, 1, 0, 1},
	{"arc_challenge", 1172, 1, 1, 1},
	{"openbookqa", 500, 1, 1, 1},
	{"boolq-no-passage", 3270, 0, 0,
	 0}, /* what is left of boolq without its passages: no task of the harness */
};

const char *vq_choice_task_names(void)
{
	return "boolq, piqa, hellaswag, winogrande, arc_easy, arc_challenge, openbookqa, "
	       "boolq-no-passage";
}

int vq_choice_task_find(const char *name)
{
	int i;

	for (i = 0; i < VQ_N_CHOICE_TASKS; i++)
		if (strcmp(vq_choice_tasks[i].name, name) == 0)
			return i;
	return -1;
}

struct reading {
	struct vq_choices *c;
	const char *label;
};

static int fail_at(const struct reading *r, uint64_t line, struct vq_err *err, const char *what)
{
	return vq_fail(err, VQ_E_DATA, "%s: line %llu: %s", r->label, (unsigned long long)line,
		       what);
}

/* jansson has seen to it that it is UTF-8: characters are the bytes that begin one. */
static uint32_t count_chars(const char *s)
{
	uint32_t n = 0;

	for (s += *s == ' '; *s; s++)
		n += (*s & 0xc0) != 0x80;
	return n;
}

static int read_choices(struct vq_choices_item *it, const json_t *o, const struct reading *r,
			uint64_t line, struct vq_err *err)
{
	const json_t *list = json_object_get(o, "choices"),
		     *context = json_object_get(o, "context");
	size_t n = json_array_size(list), i;

	if (n < 2 || n > VQ_MAX_CONTINUATIONS)
		return fail_at(r, line, err, "want 'choices', a list of 2 to 26 texts");
	if (!json_is_string(context) && json_array_size(context) != n)
		return fail_at(r, line, err, "want 'context', a text or a text for each choice");
	it->n = (uint32_t)n;
	for (i = 0; i < n; i++) {
		it->choice[i] = json_string_value(json_array_get(list, i));
		it->context[i] = json_string_value(
			json_is_string(context) ? context : json_array_get(context, i));
		if (!it->choice[i] || (it->chars[i] = count_chars(it->choice[i])) == 0)
			return fail_at(r, line, err, "want 'choices' of texts, none empty");
		if (!it->context[i] || !*it->context[i])
			return fail_at(r, line, err, "want 'context' of texts, none empty");
	}
	return VQ_OK;
}

static int read_item(struct vq_choices_item *it, const json_t *o, const struct reading *r,
		     uint64_t line, struct vq_err *err)
{
	const json_t *answer = json_object_get(o, "answer");
	int rc;

	it->id = json_string_value(json_object_get(o, "id"));
	it->task = json_string_value(json_object_get(o, "task"));
	if (!it->id)
		return fail_at(r, line, err, "want 'id', a text");
	if (!it->task)
		return fail_at(r, line, err, "want 'task', a text");
	if (vq_choice_task_find(it->task) < 0)
		return vq_fail(err, VQ_E_DATA, "%s: line %llu: task '%.64s': want one of %s",
			       r->label, (unsigned long long)line, it->task,
			       vq_choice_task_names());
	rc = read_choices(it, o, r, line, err);
	if (rc < 0)
		return rc;
	if (!json_is_integer(answer) || json_integer_value(answer) < 0 ||
	    json_integer_value(answer) >= (json_int_t)it->n)
		return fail_at(r, line, err, "want 'answer', the position of a choice, from 0");
	it->answer = (uint32_t)json_integer_value(answer);
	return VQ_OK;
}

static int read_line(void *ctx, json_t *o, uint64_t line, struct vq_err *err)
{
	const struct reading *r = ctx;
	struct vq_choices *c = r->c;
	int rc;

	if (c->n == c->room) {
		uint32_t room = c->room ? 2 * c->room : 256;

		if (vq_grow((void **)&c->items, c->room, room, sizeof(*c->items), err) < 0)
			return VQ_E_SYS;
		c->room = room;
	}
	rc = read_item(&c->items[c->n], o, r, line, err);
	if (rc < 0)
		return rc;
	if (json_object_get(c->ids, c->items[c->n].id))
		return fail_at(r, line, err, "its 'id' came before");
	if (json_object_set_new(c->ids, c->items[c->n].id, json_true()) < 0 ||
	    json_array_append(c->objects, o) < 0)
		return vq_fail(err, VQ_E_SYS, "memory: cannot keep the questions");
	c->n++;
	return VQ_OK;
}

int vq_choices_open(struct vq_choices *c, const char *path, struct vq_err *err)
{
	int in = strcmp(path, "-") == 0, rc;
	struct reading r = {c, in ? "stdin" : path};
	char *text = NULL;
	size_t n = 0;

	memset(c, 0, sizeof(*c));
	rc = in ? vq_fd_read(STDIN_FILENO, MAX_BYTES, r.label, &text, &n, err)
		: vq_file_read(path, MAX_BYTES, VQ_E_SYS, &text, &n, err);
	if (rc < 0)
		return rc;
	vq_sha256_of(text, n, c->sha256);
	c->objects = json_array();
	c->ids = json_object();
	if (!c->objects || !c->ids)
		rc = vq_fail(err, VQ_E_SYS, "memory: cannot index the questions");
	if (rc >= 0)
		rc = vq_json_lines(text, n, r.label, read_line, &r, err);
	if (rc >= 0 && c->n == 0)
		rc = vq_fail(err, VQ_E_DATA, "%s: want questions with choices, got none", r.label);
	vq_free(text);
	if (rc < 0)
		vq_choices_close(c);
	return rc;
}

void vq_choices_close(struct vq_choices *c)
{
	vq_free(c->items);
	json_decref(c->objects);
	json_decref(c->ids);
	memset(c, 0, sizeof(*c));
}
