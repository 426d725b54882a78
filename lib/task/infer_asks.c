/* Questions, and the answers that an earlier run already has. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/io.h"
#include "base/mem.h"
#include "format/shards.h"
#include "task/infer_parts.h"

#define MAX_LINES (64u << 20) /* bytes of questions on standard input */

static int parse_shard(const char *s, uint32_t *i, uint32_t *n, struct vq_err *err)
{
	if (vq_shard_parse(s, i, n) < 0)
		return vq_fail(err, VQ_E_USAGE, "--shard wants I/N with I of 1..N, got '%s'", s);
	return VQ_OK;
}

static int in_shard(const char *id, uint32_t part, uint32_t parts)
{
	return XXH64(id, strlen(id), 0) % parts == part - 1;
}

static int put(struct vq_asks *a, const char *id, const char *text, size_t n, char *image,
	       struct vq_err *err)
{
	struct vq_ask *q = &a->v[a->n];

	*q = (struct vq_ask){.image = image};
	q->id = vq_strdup(id, err);
	q->text = vq_alloc(n + 1, 1, err);
	if (!q->id || !q->text) {
		vq_free(q->id);
		vq_free(q->text);
		vq_free(image);
		return VQ_E_SYS;
	}
	memcpy(q->text, text, n);
	q->text[n] = '\0';
	a->n++;
	return VQ_OK;
}

/* A picture that is not there is found now, not after an hour. */
static int from_item(struct vq_asks *a, const struct vq_dataset *d, const struct vq_item *it,
		     struct vq_err *err)
{
	char *image = vq_dataset_image(d, it, err);

	if (!image && it->image)
		return err->code;
	if (image && access(image, R_OK) != 0) {
		vq_fail_errno(err, VQ_E_DATA, "question '%s': picture %s", it->id, image);
		vq_free(image);
		return VQ_E_DATA;
	}
	return put(a, it->id, it->text, strlen(it->text), image, err);
}

static int from_data(struct vq_asks *a, const struct vq_infer *o, struct vq_err *err)
{
	uint32_t i, part = 1, parts = 1;
	struct vq_dataset d;
	int rc = o->shard ? parse_shard(o->shard, &part, &parts, err) : VQ_OK;

	if (rc >= 0)
		rc = vq_dataset_open(&d, o->data, o->images, err);
	if (rc < 0)
		return rc;
	memcpy(a->data_sha256, d.sha256, sizeof(a->data_sha256));
	a->v = vq_calloc(d.n, sizeof(*a->v), err);
	if (!a->v)
		rc = VQ_E_SYS;
	a->n_asked = o->limit && o->limit < d.n ? o->limit : d.n;
	for (i = 0; rc >= 0 && i < a->n_asked; i++)
		if (in_shard(d.items[i].id, part, parts))
			rc = from_item(a, &d, &d.items[i], err);
	vq_dataset_close(&d);
	return rc;
}

static int from_stdin(struct vq_asks *a, struct vq_err *err)
{
	char *text = NULL, id[24];
	size_t n = 0, i, at, lines = 1;
	int rc = vq_fd_read(STDIN_FILENO, MAX_LINES, "stdin", &text, &n, err);

	for (i = 0; rc >= 0 && i < n; i++) {
		lines += text[i] == '\n';
		if (text[i] == '\0')
			rc = vq_fail(err, VQ_E_DATA, "stdin: line %zu: a zero byte in a question",
				     lines);
	}
	if (rc >= 0 && !(a->v = vq_calloc(lines, sizeof(*a->v), err)))
		rc = VQ_E_SYS;
	for (i = 0, at = 0; rc >= 0 && at < n; at += i + 1) {
		char *end = memchr(text + at, '\n', n - at);

		i = end ? (size_t)(end - text) - at : n - at;
		snprintf(id, sizeof(id), "%u", a->n + 1);
		rc = put(a, id, text + at, i, NULL, err);
	}
	vq_free(text);
	return rc;
}

int vq_asks_open(struct vq_asks *a, const struct vq_infer *o, struct vq_err *err)
{
	int rc;

	memset(a, 0, sizeof(*a));
	rc = o->data ? from_data(a, o, err) : from_stdin(a, err);
	if (rc < 0)
		vq_asks_close(a);
	return rc;
}

int vq_asks_pick(struct vq_asks *a, const struct vq_infer *o, char *const *ids, uint32_t n,
		 struct vq_err *err)
{
	uint32_t i, part = 1, parts = 1;
	char number[16];
	int rc = o->shard ? parse_shard(o->shard, &part, &parts, err) : VQ_OK;

	memset(a, 0, sizeof(*a));
	if (rc >= 0 && !(a->v = vq_calloc(n, sizeof(*a->v), err)))
		rc = VQ_E_SYS;
	a->n_asked = o->limit && o->limit < n ? o->limit : n;
	for (i = 0; rc >= 0 && i < a->n_asked; i++) {
		const char *id = ids ? ids[i] : number;

		snprintf(number, sizeof(number), "%u", i);
		if (!in_shard(id, part, parts))
			continue;
		rc = put(a, id, "", 0, NULL, err);
		if (rc >= 0)
			a->v[a->n - 1].index = i;
	}
	if (rc < 0)
		vq_asks_close(a);
	return rc;
}

void vq_asks_close(struct vq_asks *a)
{
	uint32_t i;

	for (i = 0; i < a->n; i++) {
		vq_free(a->v[i].id);
		vq_free(a->v[i].text);
		vq_free(a->v[i].image);
		vq_free(a->v[i].line);
	}
	vq_free(a->v);
	memset(a, 0, sizeof(*a));
}

/* --- resuming --- */

static int same_opening(const char *path, const json_t *theirs, const json_t *ours,
			struct vq_err *err)
{
	const char *key;
	json_t *v;

	json_object_foreach((json_t *)(uintptr_t)ours, key, v)
	{
		if (!json_equal(v, json_object_get(theirs, key)))
			return vq_fail(err, VQ_E_DATA,
				       "%s: '%s' of its opening record differs from this run's; "
				       "resume with the model, data and options of that run",
				       path, key);
	}
	return VQ_OK;
}

/* One answer: 1 taken, 0 none of this run's questions (totals). */
static int take(struct vq_asks *a, const json_t *by_id, const char *path, json_t *o,
		const char *text, size_t n, struct vq_err *err)
{
	json_t *at = json_object_get(by_id,
				     json_string_value(json_object_get(o, "question_id"))
					     ? json_string_value(json_object_get(o, "question_id"))
					     : "");
	struct vq_ask *q;

	if (json_object_get(o, "vqlm"))
		return 0;
	if (!at)
		return vq_fail(err, VQ_E_DATA, "%s: an answer to no question of this run", path);
	q = &a->v[json_integer_value(at)];
	if (q->line)
		return vq_fail(err, VQ_E_DATA, "%s: two answers to question '%s'", path, q->id);
	q->line = vq_alloc(n + 1, 1, err);
	if (!q->line)
		return VQ_E_SYS;
	memcpy(q->line, text, n);
	q->line[n] = '\0';
	return 1;
}

/* Whole lines only: the last one of a killed run may be cut. */
static int take_lines(struct vq_asks *a, const json_t *by_id, const char *path, const char *text,
		      size_t n, const json_t *opening, struct vq_err *err)
{
	const char *end = text + n;
	int rc = VQ_OK, first = 1;

	while (rc >= 0 && text < end) {
		const char *nl = memchr(text, '\n', (size_t)(end - text));
		json_t *o;

		if (!nl)
			break;
		o = vq_json_parse(text, (size_t)(nl - text), path, err);
		if (!o)
			return VQ_E_DATA;
		rc = first ? same_opening(path, o, opening, err)
			   : take(a, by_id, path, o, text, (size_t)(nl - text), err);
		json_decref(o);
		first = 0;
		text = nl + 1;
	}
	return rc < 0 ? rc : VQ_OK;
}

int vq_asks_resume(struct vq_asks *a, const char *path, const json_t *opening, struct vq_err *err)
{
	json_t *by_id = json_object();
	char *text = NULL;
	size_t n = 0;
	uint32_t i;
	int rc = by_id ? vq_file_read(path, SIZE_MAX / 2, VQ_E_SYS, &text, &n, err) : VQ_E_SYS;

	for (i = 0; rc >= 0 && i < a->n; i++)
		if (json_object_set_new(by_id, a->v[i].id, json_integer(i)) < 0)
			rc = vq_fail(err, VQ_E_SYS, "memory: cannot index the questions");
	if (rc >= 0)
		rc = take_lines(a, by_id, path, text, n, opening, err);
	vq_free(text);
	json_decref(by_id);
	return rc;
}
