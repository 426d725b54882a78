/* The files beside config.json: pictures, special tokens, chat template. */
#include "model/config_side.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "model/config_limits.h"
#include "model/field.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

const char *vq_side_str(const json_t *o, const char *key)
{
	return json_string_value(json_object_get(o, key));
}

/* *out: the object in a side file, NULL when there is no such file.  Given. */
int vq_side_json(const struct vq_ckpt *k, const char *name, json_t **out, struct vq_err *err)
{
	char *data = NULL;
	char label[512];
	size_t n;
	int rc = vq_ckpt_file(k, name, &data, &n, err);

	*out = NULL;
	if (rc <= 0)
		return rc;
	snprintf(label, sizeof(label), "%s/%s", vq_ckpt_path(k), name);
	*out = vq_json_parse(data, n, label, err);
	vq_free(data);
	if (*out && !json_is_object(*out)) {
		json_decref(*out);
		*out = NULL;
		return vq_fail(err, VQ_E_DATA, "%s: want an object", label);
	}
	return *out ? VQ_OK : VQ_E_DATA;
}

int vq_side_preproc(struct vq_config *c, const struct vq_ckpt *k, const char *aspect,
		    struct vq_err *err)
{
	static const char name[] = "preprocessor_config.json";
	char label[512];
	uint32_t s = c->vision.image_size;
	json_t *file, *inner = NULL;
	int rc = vq_side_json(k, name, &file, err);

	snprintf(label, sizeof(label), "%s/%s", vq_ckpt_path(k), name);
	if (rc == VQ_OK && !file) {
		/* Version 5 keeps it inside processor_config.json. */
		rc = vq_side_json(k, "processor_config.json", &file, err);
		inner = json_object_get(file, "image_processor");
		if (json_is_object(inner))
			snprintf(label, sizeof(label), "%s/processor_config.json: image_processor",
				 vq_ckpt_path(k));
		else
			inner = NULL;
		json_incref(inner);
		json_decref(file);
		file = inner;
	}
	if (rc == VQ_OK && !file && strcmp(c->arch, "idefics3") == 0)
		file = json_pack("{s:s, s:{s:I}}", "image_processor_type", "Idefics3ImageProcessor",
				 "max_image_size", "longest_edge", (json_int_t)s);
	if (rc == VQ_OK && !file)
		file = json_pack("{s:{s:I}, s:{s:I, s:I}}", "size", "shortest_edge", (json_int_t)s,
				 "crop_size", "height", (json_int_t)s, "width", (json_int_t)s);
	if (rc == VQ_OK && aspect)
		(void)!json_object_set_new(file, "image_aspect_ratio", json_string(aspect));
	if (rc == VQ_OK)
		rc = vq_preproc_parse(&c->preproc, file, s, label, err);
	json_decref(file);
	return rc;
}

/* A token id of an object: an integer, or a list whose first counts.  1 when it was there. */
static int token_in(const json_t *o, const char *key, int32_t *out, const char *label,
		    struct vq_err *err)
{
	const json_t *v = json_object_get(o, key), *one = v;

	if (!v || json_is_null(v))
		return 0;
	if (json_is_array(v)) {
		one = json_array_get(v, 0);
		if (json_array_size(v) > 1)
			vq_warn("%s: '%s' lists several tokens; only the first is used", label,
				key);
	}
	if (!json_is_integer(one) || json_integer_value(one) < -1 ||
	    json_integer_value(one) > (json_int_t)VQ_LIMIT_VOCAB)
		return vq_field_refuse(label, key, "a token id", v, err);
	*out = (int32_t)json_integer_value(one);
	return 1;
}

/* The id of tokenizer_config.json's "eos_token" and the like, by added_tokens_decoder; -1 when unknown. */
static int32_t named_token(const json_t *tok, const char *key)
{
	json_t *token = json_object_get(tok, key), *v;
	const char *text =
		json_is_object(token) ? vq_side_str(token, "content") : json_string_value(token);
	const char *id;

	json_object_foreach(json_object_get(tok, "added_tokens_decoder"), id, v)
	{
		const char *content = vq_side_str(v, "content");
		char *end;
		long n;

		if (!text || !content || strcmp(text, content) != 0)
			continue;
		n = strtol(id, &end, 10);
		if (*id && !*end && n >= 0 && n <= (long)VQ_LIMIT_VOCAB)
			return (int32_t)n;
	}
	return -1;
}

int32_t vq_side_named_token(const struct vq_side *s, const char *key)
{
	return named_token(s->tokenizer, key);
}

int vq_side_token(const struct vq_side *s, const json_t *text, const char *what, int32_t dflt,
		  int32_t *out, struct vq_err *err)
{
	const json_t *const places[] = {s->generation, text, s->config};
	const char *const files[] = {"generation_config.json", "config.json", "config.json"};
	char key[32], label[512];
	size_t i;
	int32_t id;

	snprintf(key, sizeof(key), "%s_token_id", what);
	for (i = 0; i < COUNT(places); i++) {
		int rc;

		snprintf(label, sizeof(label), "%s/%s", vq_ckpt_path(s->k), files[i]);
		rc = token_in(places[i], key, out, label, err);
		if (rc != 0)
			return rc < 0 ? rc : VQ_OK;
	}
	snprintf(key, sizeof(key), "%s_token", what);
	id = named_token(s->tokenizer, key);
	*out = id >= 0 ? id : dflt;
	return VQ_OK;
}

/* tokenizer_config.json may have one text, or a list of named ones. */
static const char *template_in(const json_t *o)
{
	const json_t *v = json_object_get(o, "chat_template");
	size_t i;

	if (json_is_string(v))
		return json_string_value(v);
	for (i = 0; i < json_array_size(v); i++) {
		const json_t *e = json_array_get(v, i);

		if (vq_side_str(e, "name") && strcmp(vq_side_str(e, "name"), "default") == 0)
			return vq_side_str(e, "template");
	}
	return NULL;
}

/* The first place that has a template, in the order of transformers' processors.  *out: NULL when none
 * has; given.  label: the file. */
static int template_text(const struct vq_side *s, char **out, char *label, size_t room,
			 struct vq_err *err)
{
	static const char *const files[] = {"chat_template.json", "processor_config.json",
					    "tokenizer_config.json"};
	size_t i, n;
	int rc = vq_ckpt_file(s->k, "chat_template.jinja", out, &n, err);

	snprintf(label, room, "%s/chat_template.jinja", vq_ckpt_path(s->k));
	if (rc != 0)
		return rc < 0 ? rc : VQ_OK;
	for (i = 0; i < COUNT(files); i++) {
		json_t *j;
		const char *text;

		rc = vq_side_json(s->k, files[i], &j, err);
		if (rc < 0)
			return rc;
		text = template_in(j);
		snprintf(label, room, "%s/%s", vq_ckpt_path(s->k), files[i]);
		if (text) {
			*out = vq_strdup(text, err);
			rc = *out ? VQ_OK : VQ_E_SYS;
		}
		json_decref(j);
		if (text)
			return rc;
	}
	*out = NULL;
	return VQ_OK;
}

int vq_side_chat(struct vq_config *c, const struct vq_side *s, const char *template_name,
		 const char *otherwise, struct vq_err *err)
{
	char *text = NULL;
	char label[512];
	int rc;

	if (template_name) {
		c->chat = vq_chat_by_name(template_name);
		return c->chat ? VQ_OK
			       : vq_fail(err, VQ_E_USAGE, "--template: want %s, got '%s'",
					 vq_chat_names(), template_name);
	}
	rc = template_text(s, &text, label, sizeof(label), err);
	if (rc == VQ_OK && !text)
		c->chat = vq_chat_by_name(otherwise);
	else if (rc == VQ_OK)
		rc = vq_chat_match(&c->chat, text, label, err);
	vq_free(text);
	return rc;
}
