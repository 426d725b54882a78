/* Which parts of which runs are there. */
#include "format/shards.h"

#include <string.h>

#include "base/mem.h"
#include "base/parse.h"
#include "base/str.h"

#define MAX_SHARDS 1000000
#define MAX_NAMED  8 /* missing shards that a message lists */

struct vq_shards_run {
	json_t *opening; /* the first */
	const char *label;
	uint64_t line;
	uint32_t n;     /* of I/N; 0: the run is not in shards */
	uint8_t *there; /* [n] */
	uint64_t n_ids; /* of all openings */
};

int vq_shard_parse(const char *s, uint32_t *i, uint32_t *n)
{
	const char *slash = strchr(s, '/');
	size_t len = slash ? (size_t)(slash - s) : 0;
	char first[16];

	if (!slash || len >= sizeof(first) || vq_parse_u32(n, slash + 1, 1, MAX_SHARDS) < 0)
		return VQ_E_USAGE;
	memcpy(first, s, len);
	first[len] = '\0';
	return vq_parse_u32(i, first, 1, *n);
}

/* --- openings side by side --- */

static int same(const char *key, const json_t *was, const json_t *is, const char *label,
		uint64_t line, struct vq_err *err)
{
	char a[64], b[64];

	if (json_equal((json_t *)(uintptr_t)was, (json_t *)(uintptr_t)is))
		return VQ_OK;
	vq_json_brief(was, a, sizeof(a));
	vq_json_brief(is, b, sizeof(b));
	return vq_fail(err, VQ_E_DATA,
		       "%s: line %llu: '%s' is %s, in the run before it was %s; only parts of one "
		       "run are added up",
		       label, (unsigned long long)line, key, b, a);
}

static int is_of_part(const char *key, const char *but)
{
	return strcmp(key, "ids") == 0 || strcmp(key, "shard") == 0 ||
	       (but && strcmp(key, but) == 0);
}

int vq_shards_same(const json_t *was, json_t *is, const char *but, const char *label, uint64_t line,
		   struct vq_err *err)
{
	const char *key;
	json_t *v;
	int rc = VQ_OK;

	json_object_foreach(json_object_get(was, "params"), key, v)
	{
		if (rc >= 0)
			rc = same(key, v, json_object_get(json_object_get(is, "params"), key),
				  label, line, err);
	}
	json_object_foreach((json_t *)(uintptr_t)was, key, v)
	{
		if (rc >= 0 && !is_of_part(key, but))
			rc = same(key, v, json_object_get(is, key), label, line, err);
	}
	json_object_foreach(is, key, v)
	{
		if (rc >= 0 && !is_of_part(key, but))
			rc = same(key, json_object_get(was, key), v, label, line, err);
	}
	return rc;
}

/* --- parts --- */

static struct vq_shards_run *run_of(const struct vq_shards *s, json_t *opening)
{
	struct vq_err differs = {0};
	uint32_t i;

	for (i = 0; i < s->n; i++)
		if (vq_shards_same(s->runs[i].opening, opening, NULL, "", 0, &differs) >= 0)
			return &s->runs[i];
	return NULL;
}

static struct vq_shards_run *new_run(struct vq_shards *s, json_t *opening, uint32_t n,
				     const char *label, uint64_t line, struct vq_err *err)
{
	struct vq_shards_run *r;

	if (vq_grow((void **)&s->runs, s->n, s->n + 1, sizeof(*s->runs), err) < 0)
		return NULL;
	r = &s->runs[s->n];
	*r = (struct vq_shards_run){.label = label, .line = line, .n = n};
	r->there = n ? vq_calloc(n, 1, err) : NULL;
	if (n && !r->there)
		return NULL;
	r->opening = json_incref(opening);
	s->n++;
	return r;
}

int vq_shards_add(struct vq_shards *s, json_t *opening, const char *label, uint64_t line,
		  struct vq_err *err)
{
	const json_t *shard = json_object_get(opening, "shard");
	const char *text = json_string_value(shard);
	struct vq_shards_run *r = run_of(s, opening);
	uint32_t i = 0, n = 0;

	if (shard && (!text || vq_shard_parse(text, &i, &n) < 0))
		return vq_fail(err, VQ_E_DATA,
			       "%s: line %llu: 'shard': want I/N with I of 1..N, got '%.40s'",
			       label, (unsigned long long)line, text ? text : "no string");
	if (!r && !(r = new_run(s, opening, n, label, line, err)))
		return VQ_E_SYS;
	if (r->n != n)
		return vq_fail(err, VQ_E_DATA,
			       "%s: line %llu: shard %s, but the run that opens in %s line %llu is "
			       "in %u shards (0: in none); want parts of one cut",
			       label, (unsigned long long)line, text ? text : "none", r->label,
			       (unsigned long long)r->line, r->n);
	if (n && r->there[i - 1])
		return vq_fail(err, VQ_E_DATA, "%s: line %llu: shard %s came before", label,
			       (unsigned long long)line, text);
	if (n)
		r->there[i - 1] = 1;
	r->n_ids += json_array_size(json_object_get(opening, "ids"));
	return VQ_OK;
}

static int lacks(const struct vq_shards_run *r, uint32_t missing, struct vq_err *err)
{
	struct vq_str names = {0};
	uint32_t i, named = 0;
	int rc;

	for (i = 0; i < r->n && named < MAX_NAMED; i++)
		if (!r->there[i])
			vq_str_printf(&names, "%s%u/%u", named++ ? ", " : "", i + 1, r->n);
	rc = vq_fail(err, VQ_E_DATA,
		     "%s: the run that opens in line %llu lacks %u of its %u shards: %s%s; name "
		     "the files of all of them",
		     r->label, (unsigned long long)r->line, missing, r->n, names.s ? names.s : "",
		     missing > named ? ", ..." : "");
	vq_str_free(&names);
	return rc;
}

int vq_shards_whole(const struct vq_shards *s, struct vq_err *err)
{
	uint32_t i, k, missing;

	for (i = 0; i < s->n; i++) {
		const struct vq_shards_run *r = &s->runs[i];
		const json_t *asked = json_object_get(r->opening, "n_asked");

		for (k = 0, missing = 0; k < r->n; k++)
			missing += !r->there[k];
		if (missing)
			return lacks(r, missing, err);
		if (r->n && asked && (uint64_t)json_integer_value(asked) != r->n_ids)
			return vq_fail(err, VQ_E_DATA,
				       "%s: all %u shards of the run that opens in line %llu ask "
				       "%llu questions, want %lld",
				       r->label, r->n, (unsigned long long)r->line,
				       (unsigned long long)r->n_ids,
				       (long long)json_integer_value(asked));
	}
	return VQ_OK;
}

void vq_shards_close(struct vq_shards *s)
{
	uint32_t i;

	for (i = 0; i < s->n; i++) {
		json_decref(s->runs[i].opening);
		vq_free(s->runs[i].there);
	}
	vq_free(s->runs);
	*s = (struct vq_shards){0};
}
