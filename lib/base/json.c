/* JSON through jansson. */
#include "base/json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "base/mem.h"

static const char *type_name(const json_t *v)
{
	static const char *const names[] = {"an object",     "an array", "a string", "an integer",
					    "a real number", "true",     "false",    "null"};

	return v ? names[json_typeof(v)] : "nothing";
}

json_t *vq_json_parse(const char *text, size_t n, const char *label, struct vq_err *err)
{
	json_error_t e;
	json_t *j = json_loadb(text, n, JSON_REJECT_DUPLICATES, &e);

	if (!j)
		vq_fail(err, VQ_E_DATA, "%s: line %d column %d: bad JSON: %s", label, e.line,
			e.column, e.text);
	return j;
}

json_t *vq_json_file(const char *path, int status, struct vq_err *err)
{
	char *text;
	size_t n;
	json_t *j;

	if (vq_file_read(path, (size_t)1 << 30, status, &text, &n, err) < 0)
		return NULL;
	j = vq_json_parse(text, n, path, err);
	vq_free(text);
	return j;
}

int vq_json_lines(const char *text, size_t n, const char *label,
		  int (*each)(void *ctx, json_t *j, uint64_t line, struct vq_err *err), void *ctx,
		  struct vq_err *err)
{
	const char *end = text + n, *next;
	uint64_t line = 0;

	for (; text < end; text = next) {
		const char *stop = memchr(text, '\n', (size_t)(end - text));
		size_t len = (size_t)((stop ? stop : end) - text);
		json_error_t e;
		json_t *j;
		int rc;

		next = stop ? stop + 1 : end;
		line++;
		if (strspn(text, " \t\r") >= len)
			continue;
		j = json_loadb(text, len, JSON_REJECT_DUPLICATES, &e);
		if (!j)
			return vq_fail(err, VQ_E_DATA, "%s: line %llu: %sbad JSON at column %d: %s",
				       label, (unsigned long long)line,
				       stop ? "" : "cut short or no JSON Lines: ", e.column,
				       e.text);
		rc = each(ctx, j, line, err);
		json_decref(j);
		if (rc < 0)
			return rc;
	}
	return VQ_OK;
}

char *vq_json_text(const json_t *j, struct vq_err *err)
{
	char *raw = json_dumps(j, JSON_COMPACT | JSON_SORT_KEYS | JSON_ENCODE_ANY |
					  JSON_REAL_PRECISION(9));
	char *out;

	if (!raw) {
		vq_fail(err, VQ_E_SYS, "memory: cannot write JSON");
		return NULL;
	}
	out = vq_strdup(raw, err);
	free(raw);
	return out;
}

int vq_json_puts(struct vq_str *o, json_t *j, struct vq_err *err)
{
	char *text = j ? vq_json_text(j, err) : NULL;

	json_decref(j);
	if (!text)
		return vq_fail(err, VQ_E_SYS, "memory: cannot write JSON");
	vq_str_puts(o, text);
	vq_str_puts(o, "\n");
	vq_free(text);
	return VQ_OK;
}

void vq_json_brief(const json_t *v, char *out, size_t room)
{
	char *text = v ? json_dumps(v, JSON_COMPACT | JSON_ENCODE_ANY | JSON_SORT_KEYS) : NULL;

	snprintf(out, room, "%.60s", text ? text : "nothing");
	free(text);
}

/* The member, or NULL when it is absent or null. */
static const json_t *member(const json_t *o, const char *key)
{
	const json_t *v = json_object_get(o, key);

	return v && !json_is_null(v) ? v : NULL;
}

int vq_json_u32(const json_t *o, const char *key, uint32_t dflt, uint32_t *out, const char *label,
		struct vq_err *err)
{
	const json_t *v = member(o, key);

	if (v && (!json_is_integer(v) || json_integer_value(v) < 0 ||
		  json_integer_value(v) > UINT32_MAX))
		return vq_fail(err, VQ_E_DATA, "%s: '%s': want an integer of 0..4294967295, got %s",
			       label, key, json_is_integer(v) ? "one out of range" : type_name(v));
	*out = v ? (uint32_t)json_integer_value(v) : dflt;
	return VQ_OK;
}

int vq_json_f32(const json_t *o, const char *key, float dflt, float *out, const char *label,
		struct vq_err *err)
{
	const json_t *v = member(o, key);

	if (v && !json_is_number(v))
		return vq_fail(err, VQ_E_DATA, "%s: '%s': want a number, got %s", label, key,
			       type_name(v));
	*out = v ? (float)json_number_value(v) : dflt;
	if (!isfinite(*out))
		return vq_fail(err, VQ_E_DATA, "%s: '%s': number out of range", label, key);
	return VQ_OK;
}

int vq_json_bool(const json_t *o, const char *key, int dflt, int *out, const char *label,
		 struct vq_err *err)
{
	const json_t *v = member(o, key);

	if (v && !json_is_boolean(v))
		return vq_fail(err, VQ_E_DATA, "%s: '%s': want true or false, got %s", label, key,
			       type_name(v));
	*out = v ? json_is_true(v) : dflt;
	return VQ_OK;
}

int vq_json_str(const json_t *o, const char *key, const char *dflt, const char **out,
		const char *label, struct vq_err *err)
{
	const json_t *v = member(o, key);

	if (v && !json_is_string(v))
		return vq_fail(err, VQ_E_DATA, "%s: '%s': want a string, got %s", label, key,
			       type_name(v));
	*out = v ? json_string_value(v) : dflt;
	return VQ_OK;
}

int vq_json_obj(const json_t *o, const char *key, json_t **out, const char *label,
		struct vq_err *err)
{
	const json_t *v = member(o, key);

	if (v && !json_is_object(v))
		return vq_fail(err, VQ_E_DATA, "%s: '%s': want an object, got %s", label, key,
			       type_name(v));
	*out = (json_t *)(uintptr_t)v;
	return VQ_OK;
}
