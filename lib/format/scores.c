/* Reading runs of scored tokens. */
#include "format/scores.h"

#include <fcntl.h>
#include <math.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "base/mem.h"

#define MAX_BYTES ((size_t)1 << 30)

static int fail_at(const struct vq_scores *s, uint64_t line, struct vq_err *err, const char *fmt,
		   ...) VQ_PRINTF(4, 5);

static int fail_at(const struct vq_scores *s, uint64_t line, struct vq_err *err, const char *fmt,
		   ...)
{
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	return vq_fail(err, VQ_E_DATA, "%s: line %llu: %s", s->label, (unsigned long long)line,
		       text);
}

/* --- openings --- */

static int open_run(struct vq_scores *s, json_t *o, uint64_t line, struct vq_err *err)
{
	json_t *ids = json_object_get(o, "ids"), *id;
	size_t i;
	/* Tasks of choices come from files of their own. */
	const char *but = strcmp(s->kind, "choices") == 0 ? "data" : NULL;
	int rc = s->opening ? vq_shards_same(s->opening, o, but, s->label, line, err) : VQ_OK;

	if (rc >= 0)
		rc = vq_shards_add(&s->shards, o, s->label, line, err);
	if (rc < 0)
		return rc;
	if (!s->opening)
		s->opening = json_incref(o);
	if (!json_is_array(ids))
		return fail_at(s, line, err, "'ids': want a list");
	json_array_foreach(ids, i, id)
	{
		const char *name = json_string_value(id);

		if (!name)
			return fail_at(s, line, err, "'ids' item %zu: want a string", i + 1);
		if (json_object_get(s->place, name))
			return fail_at(s, line, err, "id '%.64s' was asked twice", name);
		if (json_object_set_new(s->place, name, json_integer(-1)) < 0)
			return vq_fail(err, VQ_E_SYS, "memory: cannot keep the ids asked");
	}
	s->open = line;
	return VQ_OK;
}

/* --- lines --- */

static int add(struct vq_scores *s, json_t *o, uint64_t line, struct vq_err *err)
{
	const char *id = json_string_value(json_object_get(o, "question_id"));
	json_t *place = id ? json_object_get(s->place, id) : NULL;

	if (!id)
		return fail_at(s, line, err, "want 'question_id', a string");
	if (!place)
		return fail_at(s, line, err, "id '%.64s' was not asked by the opening line", id);
	if (json_integer_value(place) >= 0)
		return fail_at(s, line, err, "id '%.64s' came before, in line %llu", id,
			       (unsigned long long)s->at[json_integer_value(place)]);
	if (s->n == s->room) {
		uint32_t room = s->room ? 2 * s->room : 256;

		if (vq_grow((void **)&s->lines, s->room, room, sizeof(*s->lines), err) < 0 ||
		    vq_grow((void **)&s->at, s->room, room, sizeof(*s->at), err) < 0)
			return VQ_E_SYS;
		s->room = room;
	}
	s->at[s->n] = line;
	s->lines[s->n] = json_incref(o);
	json_integer_set(place, s->n++);
	return VQ_OK;
}

static int all_there(const struct vq_scores *s, uint64_t line, struct vq_err *err)
{
	const char *id;
	json_t *v;

	json_object_foreach(s->place, id, v)
	{
		if (json_integer_value(v) < 0)
			return fail_at(s, line, err, "totals, but id '%.64s' has no line", id);
	}
	return VQ_OK;
}

static int read_line(void *ctx, json_t *o, uint64_t line, struct vq_err *err)
{
	struct vq_scores *s = ctx;
	const char *what = json_string_value(json_object_get(o, "vqlm"));
	int rc;

	s->last = line;
	if (what && strcmp(what, "totals") == 0 && s->open) {
		rc = all_there(s, line, err);
		json_decref(s->totals);
		s->totals = json_incref(o);
		s->open = 0;
		return rc;
	}
	if (what && strcmp(what, s->kind) == 0 && !s->open)
		return open_run(s, o, line, err);
	if (what && s->open)
		return fail_at(s, line, err, "cut: the run that opens in line %llu has no totals",
			       (unsigned long long)s->open);
	if (what || !s->open)
		return fail_at(s, line, err, "want the opening line of a run of kind '%s', got %s",
			       s->kind, what ? what : "an object that is none");
	return add(s, o, line, err);
}

int vq_scores_open(struct vq_scores *s, const char *path, const char *kind, struct vq_err *err)
{
	int in = strcmp(path, "-") == 0, rc;
	char *text = NULL;
	size_t n = 0;

	*s = (struct vq_scores){.label = in ? "stdin" : path, .kind = kind};
	rc = in ? vq_fd_read(STDIN_FILENO, MAX_BYTES, s->label, &text, &n, err)
		: vq_file_read(path, MAX_BYTES, VQ_E_SYS, &text, &n, err);
	if (rc >= 0 && !(s->place = json_object()))
		rc = vq_fail(err, VQ_E_SYS, "memory: cannot index the ids");
	if (rc >= 0)
		rc = vq_json_lines(text, n, s->label, read_line, s, err);
	if (rc >= 0 && s->open)
		rc = fail_at(s, s->last, err,
			     "cut: the run that opens in line %llu has no totals; the tool before "
			     "did not finish",
			     (unsigned long long)s->open);
	if (rc >= 0)
		rc = vq_shards_whole(&s->shards, err);
	if (rc >= 0 && s->n == 0)
		rc = vq_fail(err, VQ_E_DATA,
			     "%s: want lines of vqlm-infer, got none; did the tool "
			     "before fail?",
			     s->label);
	vq_free(text);
	if (rc < 0)
		vq_scores_close(s);
	return rc;
}

void vq_scores_close(struct vq_scores *s)
{
	uint32_t i;

	for (i = 0; i < s->n; i++)
		json_decref(s->lines[i]);
	vq_free(s->lines);
	vq_free(s->at);
	json_decref(s->opening);
	json_decref(s->totals);
	json_decref(s->place);
	vq_shards_close(&s->shards);
	memset(s, 0, sizeof(*s));
}

/* --- for those who add up --- */

int vq_scores_number(const struct vq_scores *s, uint32_t i, const char *key, double *out,
		     struct vq_err *err)
{
	const json_t *v = json_object_get(s->lines[i], key);

	if (!json_is_number(v) || !isfinite(json_number_value(v)))
		return fail_at(s, s->at[i], err, "want '%s', a number", key);
	*out = json_number_value(v);
	return VQ_OK;
}

static json_t *deep(const json_t *o, const char *key)
{
	const char *dot = strchr(key, '.');
	char outer[32];

	if (!dot)
		return json_object_get(o, key);
	snprintf(outer, sizeof(outer), "%.*s", (int)(dot - key), key);
	return json_object_get(json_object_get(o, outer), dot + 1);
}

int vq_scores_agree(const struct vq_scores *a, const struct vq_scores *b, const char *const *keys,
		    struct vq_err *err)
{
	char x[64], y[64];

	for (; *keys; keys++) {
		const json_t *v = deep(a->opening, *keys), *w = deep(b->opening, *keys);

		if (json_equal((json_t *)(uintptr_t)v, (json_t *)(uintptr_t)w))
			continue;
		vq_json_brief(v, x, sizeof(x));
		vq_json_brief(w, y, sizeof(y));
		return vq_fail(err, VQ_E_DATA,
			       "%s has '%s' %s, %s has %s; such runs cannot be compared", a->label,
			       *keys, x, b->label, y);
	}
	return VQ_OK;
}
