/* Questions: LLaVA conversation JSON and question files. */
#include "format/dataset.h"

#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#include "base/io.h"
#include "base/mem.h"
#include "base/sha256.h"

#define FILE_LIMIT ((size_t)1 << 30)

struct vq_dataset_priv {
	json_t **roots; /* [n_roots] own every borrowed string */
	uint32_t n_roots, roots_room;
	char **made; /* [n_made] strings that are not in the JSON */
	uint32_t n_made, made_room;
	uint32_t items_room;
	uint32_t *slots; /* ids: open addressing, item + 1 */
	uint32_t n_slots;
};

static int keep_root(struct vq_dataset_priv *q, json_t *j, struct vq_err *err)
{
	if (q->n_roots == q->roots_room) {
		uint32_t room = q->roots_room ? 2 * q->roots_room : 16;

		if (vq_grow((void **)&q->roots, q->roots_room, room, sizeof(*q->roots), err) < 0) {
			json_decref(j);
			return VQ_E_SYS;
		}
		q->roots_room = room;
	}
	q->roots[q->n_roots++] = j;
	return VQ_OK;
}

/* Keeps a string (given; NULL when it could not be had) and returns it. */
static const char *keep_made(struct vq_dataset_priv *q, char *s, struct vq_err *err)
{
	if (s && q->n_made == q->made_room) {
		uint32_t room = q->made_room ? 2 * q->made_room : 16;

		if (vq_grow((void **)&q->made, q->made_room, room, sizeof(*q->made), err) < 0) {
			vq_free(s);
			return NULL;
		}
		q->made_room = room;
	}
	if (s)
		q->made[q->n_made++] = s;
	return s;
}

/* "id" or "question_id", text or number. */
static int read_id(struct vq_dataset *d, const json_t *o, struct vq_item *it, const char *place,
		   struct vq_err *err)
{
	const json_t *v = json_object_get(o, "id");
	char number[32];

	v = v ? v : json_object_get(o, "question_id");
	if (json_is_string(v)) {
		it->id = json_string_value(v);
	} else if (json_is_integer(v)) {
		snprintf(number, sizeof(number), "%lld", (long long)json_integer_value(v));
		it->id = keep_made(d->priv, vq_strdup(number, err), err);
		return it->id ? VQ_OK : VQ_E_SYS;
	}
	if (!it->id || !*it->id)
		return vq_fail(err, VQ_E_DATA,
			       "%s: want an 'id' or 'question_id' that is a string or an integer",
			       place);
	return VQ_OK;
}

/* The picture: a path, an array of one path, or nothing. */
static int read_image(const json_t *o, struct vq_item *it, const char *place, struct vq_err *err)
{
	const json_t *v = json_object_get(o, "image");

	if (json_is_array(v) && json_array_size(v) == 1)
		v = json_array_get(v, 0);
	else if (json_is_array(v) && json_array_size(v) == 0)
		v = NULL;
	if (!v || json_is_null(v))
		return VQ_OK;
	if (!json_is_string(v))
		return vq_fail(err, VQ_E_DATA, "%s: 'image': want the path of one picture, got %s",
			       place, json_is_array(v) ? "several" : "something else");
	it->image = *json_string_value(v) ? json_string_value(v) : NULL;
	return VQ_OK;
}

static int is_from(const json_t *turn, const char *a, const char *b)
{
	const char *from = json_string_value(json_object_get(turn, "from"));

	return from && (strcmp(from, a) == 0 || strcmp(from, b) == 0);
}

/* The first human turn, and the first answer after it. */
static int read_turns(const json_t *turns, struct vq_item *it, const char *place,
		      struct vq_err *err)
{
	size_t i;

	for (i = 0; i < json_array_size(turns); i++) {
		const json_t *turn = json_array_get(turns, i);
		const char *value = json_string_value(json_object_get(turn, "value"));

		if (!it->text && is_from(turn, "human", "user"))
			it->text = value;
		else if (it->text && !it->label && is_from(turn, "gpt", "assistant"))
			it->label = value;
		else
			continue;
		if (!value)
			return vq_fail(err, VQ_E_DATA, "%s: turn %zu: want a 'value' of text",
				       place, i);
	}
	if (!it->text)
		return vq_fail(err, VQ_E_DATA,
			       "%s: want a turn \"from\": \"human\" in 'conversations', got none",
			       place);
	return VQ_OK;
}

static int read_text(struct vq_dataset *d, const json_t *o, struct vq_item *it, const char *place,
		     struct vq_err *err)
{
	const json_t *turns = json_object_get(o, "conversations");
	const char *text = json_string_value(json_object_get(o, "text"));
	size_t n;
	char *s;

	if (json_is_array(turns))
		return read_turns(turns, it, place, err);
	if (!text)
		return vq_fail(err, VQ_E_DATA,
			       "%s: want 'conversations' (an array) or 'text', got neither", place);
	it->text = text;
	if (!it->image || strstr(text, "<image>"))
		return VQ_OK;
	n = strlen(text) + sizeof("<image>\n");
	s = vq_alloc(n, 1, err);
	if (s)
		snprintf(s, n, "<image>\n%s", text);
	it->text = keep_made(d->priv, s, err);
	return it->text ? VQ_OK : VQ_E_SYS;
}

static int add_item(struct vq_dataset *d, const json_t *o, const char *place, struct vq_err *err)
{
	struct vq_item it = {0};
	char where[512];
	int rc;

	if (!json_is_object(o))
		return vq_fail(err, VQ_E_DATA, "%s: want an object with an id and a question",
			       place);
	rc = read_id(d, o, &it, place, err);
	if (rc < 0)
		return rc;
	snprintf(where, sizeof(where), "%.400s (id %.64s)", place, it.id);
	rc = read_image(o, &it, where, err);
	if (rc == VQ_OK)
		rc = read_text(d, o, &it, where, err);
	if (rc < 0)
		return rc;
	if (d->n == d->priv->items_room) {
		uint32_t room = d->n ? 2 * d->n : 64;

		if (vq_grow((void **)&d->items, d->n, room, sizeof(*d->items), err) < 0)
			return VQ_E_SYS;
		d->priv->items_room = room;
	}
	d->items[d->n++] = it;
	return VQ_OK;
}

static int read_array(struct vq_dataset *d, const char *text, size_t n, const char *path,
		      struct vq_err *err)
{
	json_t *root = vq_json_parse(text, n, path, err);
	char place[512];
	size_t i;
	int rc;

	if (!root)
		return VQ_E_DATA;
	rc = keep_root(d->priv, root, err);
	for (i = 0; i < json_array_size(root) && rc == VQ_OK; i++) {
		snprintf(place, sizeof(place), "%.400s: item %zu", path, i);
		rc = add_item(d, json_array_get(root, i), place, err);
	}
	return rc;
}

/* One object a line; empty lines are passed over. */
static int read_lines(struct vq_dataset *d, const char *text, size_t n, const char *path,
		      struct vq_err *err)
{
	const char *p = text, *end = text + n, *eol;
	char place[512];
	size_t line = 1;
	json_t *j;
	int rc;

	for (; p < end; p = eol + 1, line++) {
		eol = memchr(p, '\n', (size_t)(end - p));
		eol = eol ? eol : end;
		if (strspn(p, " \t\r") >= (size_t)(eol - p))
			continue;
		snprintf(place, sizeof(place), "%.400s: record at line %zu", path, line);
		j = vq_json_parse(p, (size_t)(eol - p), place, err);
		if (!j)
			return VQ_E_DATA;
		rc = keep_root(d->priv, j, err);
		if (rc == VQ_OK)
			rc = add_item(d, j, place, err);
		if (rc < 0)
			return rc;
	}
	return VQ_OK;
}

static int check_ids(struct vq_dataset *d, const char *path, struct vq_err *err)
{
	struct vq_dataset_priv *q = d->priv;
	uint32_t i, at;

	for (q->n_slots = 16; q->n_slots < 2 * (uint64_t)d->n; q->n_slots *= 2)
		;
	q->slots = vq_calloc(q->n_slots, sizeof(*q->slots), err);
	if (!q->slots)
		return VQ_E_SYS;
	for (i = 0; i < d->n; i++) {
		const char *id = d->items[i].id;

		at = (uint32_t)XXH3_64bits(id, strlen(id)) & (q->n_slots - 1);
		for (; q->slots[at]; at = (at + 1) & (q->n_slots - 1))
			if (strcmp(d->items[q->slots[at] - 1].id, id) == 0)
				return vq_fail(err, VQ_E_DATA,
					       "%s: items %u and %u have the same id '%.64s'", path,
					       q->slots[at] - 1, i, id);
		q->slots[at] = i + 1;
	}
	return VQ_OK;
}

int vq_dataset_open(struct vq_dataset *d, const char *path, const char *images, struct vq_err *err)
{
	char *text = NULL;
	size_t n, skip;
	int rc;

	memset(d, 0, sizeof(*d));
	rc = vq_file_read(path, FILE_LIMIT, VQ_E_SYS, &text, &n, err);
	if (rc < 0)
		return rc;
	vq_sha256_of(text, n, d->sha256);
	d->priv = vq_calloc(1, sizeof(*d->priv), err);
	d->dir = images ? vq_strdup(images, err) : vq_path_dir(path, err);
	if (!d->priv || !d->dir) {
		rc = VQ_E_SYS;
		goto out;
	}
	skip = strspn(text, " \t\r\n");
	if (text[skip] == '[')
		rc = read_array(d, text, n, path, err);
	else if (text[skip] == '{')
		rc = read_lines(d, text, n, path, err);
	else
		rc = vq_fail(err, VQ_E_DATA,
			     "%s: want a JSON array of conversations or JSON Lines, %s", path,
			     n == skip ? "got nothing" : "got something else");
	if (rc == VQ_OK)
		rc = check_ids(d, path, err);
out:
	vq_free(text);
	if (rc < 0)
		vq_dataset_close(d);
	return rc;
}

void vq_dataset_close(struct vq_dataset *d)
{
	struct vq_dataset_priv *q = d->priv;
	uint32_t i;

	for (i = 0; q && i < q->n_roots; i++)
		json_decref(q->roots[i]);
	for (i = 0; q && i < q->n_made; i++)
		vq_free(q->made[i]);
	if (q) {
		vq_free(q->roots);
		vq_free(q->made);
		vq_free(q->slots);
	}
	vq_free(q);
	vq_free(d->items);
	vq_free(d->dir);
	memset(d, 0, sizeof(*d));
}

char *vq_dataset_image(const struct vq_dataset *d, const struct vq_item *it, struct vq_err *err)
{
	return it->image ? vq_path_join(d->dir, it->image, err) : NULL;
}

uint32_t vq_count_choices(const char *text)
{
	const char *at = text, *first = NULL;
	char mark[5] = "\nA. ";
	uint32_t n = 0;

	while ((at = strstr(at, mark)) != NULL)
		first = at++;
	if (!first && strncmp(text, mark + 1, 3) == 0) { /* nothing but choices */
		first = text;
		mark[1]++;
		n = 1;
	} else if (!first) {
		memcpy(mark, "(A) ", 5);
		first = strstr(text, "Options:");
	}
	for (at = first; at && n < VQ_MAX_CHOICES; n++, mark[1]++) {
		at = strstr(at, mark);
		if (!at)
			break;
	}
	return n;
}
