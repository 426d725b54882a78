/* Opening a model in any of its forms. */
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "base/mem.h"
#include "base/sha256.h"
#include "model/names.h"
#include "task/infer_parts.h"

/* The last part of a path; "." and "dir/" have one too. */
static json_t *name_of(const char *path)
{
	char *full = realpath(path, NULL), *slash = full ? strrchr(full, '/') : NULL;
	json_t *name = json_string(slash && slash[1] ? slash + 1 : path);

	free(full);
	return name;
}

static int weigh(struct vq_loaded *l, const struct vq_config *c, struct vq_err *err)
{
	struct vq_name *names = NULL;
	struct vq_tensor t;
	size_t n = 0, i, count;
	int rc = vq_names_list(c, &names, &n, err);

	for (i = 0; rc >= 0 && i < n; i++) {
		rc = vq_names_find(c, l->ckpt, &names[i], &t, err);
		if (rc >= 0 && vq_tensor_count(&t, &count) == VQ_OK)
			l->weight_bytes += (uint64_t)count * vq_dtype_size(t.dtype);
	}
	vq_free(names);
	return rc;
}

/* tokenizer.json, else tokenizer.model, with the added tokens of the file beside it. */
static int read_tokenizer(struct vq_loaded *l, struct vq_err *err)
{
	static const char *const files[] = {"tokenizer.json", "tokenizer.model"};
	static const char *const sides[] = {"tokenizer_config.json", "added_tokens.json"};
	char *data = NULL, *side = NULL;
	size_t n = 0, side_n = 0, i = 0;
	int rc = 0;

	for (i = 0; rc == 0 && i < 2; i++)
		rc = vq_ckpt_file(l->ckpt, files[i], &data, &n, err);
	if (rc == 0)
		rc = vq_fail(err, VQ_E_DATA, "%s: want tokenizer.json or tokenizer.model",
			     vq_ckpt_path(l->ckpt));
	if (rc > 0) {
		const char *label = files[i - 1];

		for (i = 0, rc = 0; rc == 0 && i < 2; i++)
			rc = vq_ckpt_file(l->ckpt, sides[i], &side, &side_n, err);
		if (rc >= 0)
			rc = vq_tokenizer_new(&l->tok, data, n, label, side, side_n, err);
	}
	vq_free(data);
	vq_free(side);
	return rc;
}

static int open_ckpt(struct vq_loaded *l, const char *path, const char *template_name,
		     struct vq_err *err)
{
	struct vq_config c;
	char hex[VQ_SHA256_HEX];
	int rc = vq_ckpt_open(&l->ckpt, path, err);

	if (rc >= 0)
		rc = vq_config_from_ckpt(&c, l->ckpt, template_name, err);
	if (rc >= 0)
		rc = read_tokenizer(l, err);
	if (rc >= 0)
		rc = vq_ckpt_identity(l->ckpt, hex, err);
	if (rc >= 0)
		rc = weigh(l, &c, err);
	if (rc >= 0)
		rc = vq_model_from_ckpt(&l->model, &c, l->ckpt, err);
	if (rc < 0)
		return rc;
	l->identity = json_pack("{s:o, s:s, s:s}", "name", name_of(path), "sha256", hex, "method",
				"none");
	return l->identity ? VQ_OK : vq_fail(err, VQ_E_SYS, "memory: cannot name the model");
}

/* {"name", "sha256" of the manifest, "method", "bits"}: the last two from the line that search left. */
static int identify_vqm(struct vq_loaded *l, struct vq_err *err)
{
	json_t *j = vq_vqm_model_json(&l->vqm, err), *line, *params = NULL, *search = NULL;
	char *text = j ? vq_json_text(l->vqm.manifest, err) : NULL;
	char hex[VQ_SHA256_HEX];
	size_t i;

	if (!text) {
		json_decref(j);
		return err->code;
	}
	vq_sha256_of(text, strlen(text), hex);
	vq_free(text);
	json_array_foreach(json_object_get(j, "history"), i, line)
	{
		const char *tool = json_string_value(json_object_get(line, "tool"));

		if (tool && strcmp(tool, "vqlm-search") == 0)
			search = json_object_get(line, "params");
	}
	params = json_object();
	(void)!json_object_set(params, "name",
			       json_object_get(json_object_get(j, "model"), "name"));
	(void)!json_object_set_new(params, "sha256", json_string(hex));
	(void)!json_object_set(params, "method", json_object_get(search, "method"));
	(void)!json_object_set(params, "w", json_object_get(search, "w"));
	(void)!json_object_set(params, "a", json_object_get(search, "a"));
	json_decref(j);
	l->identity = params;
	return params ? VQ_OK : vq_fail(err, VQ_E_SYS, "memory: cannot name the model");
}

static int open_vqm(struct vq_loaded *l, const char *path, const char *template_name,
		    struct vq_err *err)
{
	int rc = vq_vqm_open(&l->vqm, path, 0, err);

	if (rc < 0)
		return rc;
	l->have_vqm = 1;
	rc = vq_vqm_tokenizer(&l->tok, &l->vqm, err);
	if (rc >= 0)
		rc = vq_model_from_vqm(&l->model, &l->vqm, err);
	if (rc >= 0)
		rc = identify_vqm(l, err);
	if (rc >= 0 && template_name && !(l->model.cfg.chat = vq_chat_by_name(template_name)))
		rc = vq_fail(err, VQ_E_USAGE, "--template wants one of %s, got '%s'",
			     vq_chat_names(), template_name);
	l->weight_bytes = vq_vqm_weight_bytes(&l->vqm);
	return rc;
}

int vq_loaded_open(struct vq_loaded *l, const char *path, const char *template_name,
		   struct vq_err *err)
{
	int rc;

	memset(l, 0, sizeof(*l));
	if (strcmp(path, "-") != 0 && !vq_path_exists(path))
		rc = vq_fail_errno(err, VQ_E_SYS, "%s: cannot open", path);
	else if (strcmp(path, "-") != 0 && vq_path_is_dir(path))
		rc = open_ckpt(l, path, template_name, err);
	else
		rc = open_vqm(l, path, template_name, err);
	if (rc < 0) {
		vq_loaded_close(l);
		return rc;
	}
	l->vocab = vq_tokenizer_size(l->tok);
	if (l->vocab > l->model.cfg.decoder.vocab)
		l->vocab = l->model.cfg.decoder.vocab;
	return VQ_OK;
}

void vq_loaded_close(struct vq_loaded *l)
{
	vq_model_free(&l->model);
	vq_tokenizer_free(l->tok);
	json_decref(l->identity);
	vq_ckpt_close(l->ckpt);
	if (l->have_vqm)
		vq_vqm_close(&l->vqm);
	memset(l, 0, sizeof(*l));
}

int vq_loaded_check(const struct vq_loaded *l, struct vq_err *err)
{
	struct vq_name *names = NULL;
	struct vq_tensor t;
	size_t n = 0, i;
	int rc = l->ckpt ? vq_names_list(&l->model.cfg, &names, &n, err) : VQ_OK;

	for (i = 0; rc >= 0 && i < n; i++) {
		rc = vq_names_find(&l->model.cfg, l->ckpt, &names[i], &t, err);
		if (rc >= 0)
			rc = vq_names_check_finite(&t, names[i].name, vq_ckpt_path(l->ckpt), err);
	}
	vq_free(names);
	return rc;
}
