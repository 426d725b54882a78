/* Opening a model. */
#include "model/open.h"

#include <string.h>

#include "base/io.h"
#include "base/mem.h"
#include "base/str.h"
#include "model/config_parts.h"
#include "model/names.h"

static int join(struct vq_ckpt *k, const char *path, struct vq_err *err)
{
	struct vq_ckpt *part = NULL;
	int rc = vq_ckpt_open(&part, path, err);

	return rc == VQ_OK ? vq_ckpt_join(k, part, err) : rc;
}

static int has_tower(const struct vq_ckpt *k)
{
	return vq_names_has(k, "vision.class_embed");
}

/* Joins dir/name when that is a folder: 1.  tried grows by its path. */
static int try(struct vq_ckpt *k, const char *dir, const char *name, struct vq_str *tried,
	       struct vq_err *err)
{
	char *path = vq_path_join(dir, name, err);
	int rc = path ? 0 : VQ_E_SYS;

	if (path) {
		vq_str_printf(tried, "%s%s", tried->n ? ", " : "", path);
		if (vq_path_is_dir(path)) {
			rc = join(k, path, err);
			rc = rc < 0 ? rc : 1;
		}
	}
	vq_free(path);
	return rc;
}

/* The tower by the name that the configuration has for it. */
static int find_tower(struct vq_ckpt *k, const char *name, struct vq_err *err)
{
	const char *path = vq_ckpt_path(k), *last = strrchr(name, '/'), *names[2];
	char *beside = vq_path_join(path, "..", err), *dir = NULL, *places[2];
	struct vq_str tried = {0};
	int rc = beside ? 0 : VQ_E_SYS;
	size_t i;

	if (rc == 0 && !vq_path_is_dir(path)) /* an archive */
		dir = vq_path_dir(path, err);
	places[0] = dir ? dir : beside;
	places[1] = dir ? NULL : (char *)(uintptr_t)path;
	names[0] = name;
	names[1] = last && last[1] ? last + 1 : NULL;
	for (i = 0; rc == 0 && i < 4; i++)
		if (places[i / 2] && names[i % 2])
			rc = try(k, places[i / 2], names[i % 2], &tried, err);
	if (rc == 0 && !has_tower(k))
		rc = vq_fail(err, VQ_E_DATA,
			     "%s/config.json: '%s': no folder of '%s' beside the model (looked for "
			     "%s); give it with --vision DIR",
			     path, vq_flat_tower_key(vq_ckpt_config(k)), name,
			     tried.s ? tried.s : "nothing");
	vq_str_free(&tried);
	vq_free(dir);
	vq_free(beside);
	return rc < 0 ? rc : VQ_OK;
}

/* A format that keeps towers in files of their own: by name, or beside the model. */
static int add_file(struct vq_ckpt *k, const char *named, const char *beside, struct vq_err *err)
{
	if (named && strcmp(named, "none") == 0)
		return VQ_OK;
	return named || beside ? join(k, named ? named : beside, err) : VQ_OK;
}

/* The rest have it in themselves, or name its folder. */
static int add_folder(struct vq_ckpt *k, const struct vq_open *o, struct vq_err *err)
{
	const char *tower_key = vq_flat_tower_key(vq_ckpt_config(k));
	const json_t *v = vq_ckpt_form(k) == VQ_CKPT_HF
				  ? json_object_get(vq_ckpt_config(k), tower_key)
				  : NULL;

	if (o->vision && !v)
		return vq_fail(
			err, VQ_E_USAGE,
			"--vision: %s names no vision tower of its own ('%s' in config.json)",
			vq_ckpt_path(k), tower_key);
	if (o->vision)
		return join(k, o->vision, err);
	if (!v || json_is_null(v))
		return VQ_OK;
	if (!json_is_string(v) || !json_string_length(v))
		return vq_fail(err, VQ_E_DATA,
			       "%s/config.json: '%s': want the name of a CLIP model",
			       vq_ckpt_path(k), tower_key);
	return find_tower(k, json_string_value(v), err);
}

static int add_tower(struct vq_ckpt *k, const struct vq_open *o, struct vq_err *err)
{
	char *beside = NULL;
	int rc = vq_ckpt_tower(k, o->vision ? NULL : &beside, err);

	if (rc > 0)
		rc = add_file(k, o->vision, beside, err);
	else if (rc == 0)
		rc = add_folder(k, o, err);
	vq_free(beside);
	return rc;
}

int vq_open_aspect(struct vq_config *c, int aspect, struct vq_err *err)
{
	if (aspect == VQ_ASPECT_OWN)
		return VQ_OK;
	if (!c->has_vision)
		return vq_fail(err, VQ_E_USAGE, "--aspect: this model reads no pictures");
	if (c->preproc.tiled)
		return vq_fail(err, VQ_E_USAGE,
			       "--aspect: this model cuts pictures of any shape into tiles");
	c->preproc.aspect = (enum vq_aspect)(aspect - 1);
	return VQ_OK;
}

/* Every tensor is there and has its shape: better said now than after half of the output. */
static int check_tensors(const struct vq_config *c, const struct vq_ckpt *k, struct vq_err *err)
{
	struct vq_name *names = NULL;
	struct vq_tensor t;
	size_t n = 0, i;
	int rc = vq_names_list(c, &names, &n, err);

	for (i = 0; rc >= 0 && i < n; i++)
		rc = vq_names_find(c, k, &names[i], &t, err);
	vq_free(names);
	return rc;
}

int vq_open_model(struct vq_ckpt **k, struct vq_config *c, const struct vq_open *o,
		  struct vq_err *err)
{
	struct vq_ckpt *own = NULL;
	int rc = vq_ckpt_open(&own, o->model, err);

	if (rc == VQ_OK)
		rc = add_tower(own, o, err);
	if (rc == VQ_OK)
		rc = vq_config_from_ckpt(c, own, o->template_name, err);
	if (rc == VQ_OK)
		rc = vq_open_aspect(c, o->aspect, err);
	if (rc == VQ_OK)
		rc = check_tensors(c, own, err);
	if (rc == VQ_OK && !o->shapes_only)
		rc = vq_ckpt_ready(own, err);
	if (rc < 0) {
		vq_ckpt_close(own);
		return rc;
	}
	*k = own;
	return VQ_OK;
}
