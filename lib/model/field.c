/* JSON members to struct fields and back. */
#include "model/field.h"

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int vq_field_refuse(const char *label, const char *key, const char *want, const json_t *v,
		    struct vq_err *err)
{
	char *text = v ? json_dumps(v, JSON_ENCODE_ANY | JSON_COMPACT) : NULL;

	vq_fail(err, VQ_E_DATA, "%s: '%s': want %s, got %.200s", label, key, want,
		text ? text : "nothing");
	free(text);
	return VQ_E_DATA;
}

static int refuse_range(const struct vq_field *f, const json_t *v, const char *label,
			struct vq_err *err)
{
	char want[96];

	snprintf(want, sizeof(want), "%s of %.9g..%.9g",
		 f->type == VQ_FIELD_F32 ? "a number" : "an integer", f->lo, f->hi);
	return vq_field_refuse(label, f->key, want, v, err);
}

static int refuse_word(const struct vq_field *f, const json_t *v, const char *label,
		       struct vq_err *err)
{
	char want[256] = "one of";
	size_t at = strlen(want);
	const struct vq_word *w;

	for (w = f->words; w->text && at < sizeof(want); w++)
		at += (size_t)snprintf(want + at, sizeof(want) - at, " %s", w->text);
	return vq_field_refuse(label, f->key, want, v, err);
}

static void store(const struct vq_field *f, void *base, double x)
{
	uint8_t *at = (uint8_t *)base + f->offset;
	uint32_t u = 0;
	int32_t i = 0;
	float s = 0;

	switch (f->type) {
	case VQ_FIELD_U32:
		u = (uint32_t)x;
		memcpy(at, &u, sizeof(u));
		break;
	case VQ_FIELD_F32:
		s = (float)x;
		memcpy(at, &s, sizeof(s));
		break;
	case VQ_FIELD_I32:
	case VQ_FIELD_BOOL:
	case VQ_FIELD_WORD: /* an enum of small values has the size of an int */
		i = (int32_t)x;
		memcpy(at, &i, sizeof(i));
		break;
	}
}

static int read_one(const struct vq_field *f, void *base, const json_t *v, const char *label,
		    struct vq_err *err)
{
	const struct vq_word *w;
	double x;

	switch (f->type) {
	case VQ_FIELD_U32:
	case VQ_FIELD_I32:
	case VQ_FIELD_F32:
		x = json_number_value(v);
		if (!(f->type == VQ_FIELD_F32 ? json_is_number(v) : json_is_integer(v)) ||
		    !isfinite(x) || x < f->lo || x > f->hi)
			return refuse_range(f, v, label, err);
		store(f, base, x);
		break;
	case VQ_FIELD_BOOL:
		if (!json_is_boolean(v))
			return vq_field_refuse(label, f->key, "true or false", v, err);
		store(f, base, json_is_true(v));
		break;
	case VQ_FIELD_WORD:
		for (w = f->words; w->text; w++)
			if (json_is_string(v) && strcmp(json_string_value(v), w->text) == 0)
				break;
		if (!w->text)
			return refuse_word(f, v, label, err);
		store(f, base, w->value);
		break;
	}
	return VQ_OK;
}

int vq_fields_read(const struct vq_field *f, size_t n, void *base, const json_t *o,
		   const char *label, struct vq_err *err)
{
	size_t i;

	for (i = 0; i < n; i++) {
		const json_t *v = json_object_get(o, f[i].key);
		int rc = VQ_OK;

		if (v && !json_is_null(v))
			rc = read_one(&f[i], base, v, label, err);
		else if (isnan(f[i].dflt))
			rc = vq_fail(err, VQ_E_DATA, "%s: no '%s'", label, f[i].key);
		else
			store(&f[i], base, f[i].dflt);
		if (rc < 0)
			return rc;
	}
	return VQ_OK;
}

static json_t *load(const struct vq_field *f, const void *base)
{
	const uint8_t *at = (const uint8_t *)base + f->offset;
	const struct vq_word *w;
	uint32_t u;
	int32_t i;
	float s;

	switch (f->type) {
	case VQ_FIELD_U32: memcpy(&u, at, sizeof(u)); return json_integer(u);
	case VQ_FIELD_I32: memcpy(&i, at, sizeof(i)); return json_integer(i);
	case VQ_FIELD_F32: memcpy(&s, at, sizeof(s)); return json_real((double)s);
	case VQ_FIELD_BOOL: memcpy(&i, at, sizeof(i)); return json_boolean(i);
	case VQ_FIELD_WORD:
		memcpy(&i, at, sizeof(i));
		for (w = f->words; w->text; w++)
			if (w->value == i)
				return json_string(w->text);
	}
	return NULL;
}

int vq_fields_write(const struct vq_field *f, size_t n, const void *base, json_t *o,
		    struct vq_err *err)
{
	size_t i;

	for (i = 0; i < n; i++)
		if (json_object_set_new(o, f[i].key, load(&f[i], base)) < 0)
			return vq_fail(err, VQ_E_SYS, "memory: cannot write '%s'", f[i].key);
	return VQ_OK;
}
