/* A checkpoint folder: config.json, model.safetensors or shards with an index, side files. */
#include <string.h>

#include "base/io.h"
#include "base/mem.h"
#include "format/checkpoint_back.h"
#include "format/safetensors.h"

#define MAX_SHARDS 4096u

static const char single_name[] = "model.safetensors";
static const char index_name[] = "model.safetensors.index.json";

struct folder {
	struct vq_st *shards;
	uint32_t n_shards;
};

static int open_shard(struct vq_ckpt *c, const char *name, struct vq_err *err)
{
	struct folder *f = c->priv;
	char *path = vq_path_join(c->path, name, err);
	int rc;

	if (!path)
		return VQ_E_SYS;
	rc = vq_st_open(&f->shards[f->n_shards], path, VQ_E_DATA, err);
	if (rc == VQ_OK)
		f->n_shards++;
	vq_free(path);
	return rc;
}

/* The entries of all shards. */
static int list_tensors(struct vq_ckpt *c, struct vq_err *err)
{
	const struct folder *f = c->priv;
	size_t i, total = 0;
	uint32_t s;

	for (s = 0; s < f->n_shards; s++)
		total += f->shards[s].n;
	c->slots = vq_calloc(total, sizeof(*c->slots), err);
	if (!c->slots)
		return VQ_E_SYS;
	for (s = 0; s < f->n_shards; s++)
		for (i = 0; i < f->shards[s].n; i++)
			c->slots[c->n++] =
				(struct vq_ckpt_slot){.name = f->shards[s].entries[i].name,
						      .t = &f->shards[s].entries[i].t,
						      .where = f->shards[s].path};
	return VQ_OK;
}

/* A shard lies beside its index: a name that leads anywhere else is refused. */
static int check_shard_name(const char *name, const char *tensor, const char *index,
			    struct vq_err *err)
{
	if (!name || !*name || strchr(name, '/') || strchr(name, '\\') || strcmp(name, ".") == 0 ||
	    strstr(name, ".."))
		return vq_fail(err, VQ_E_DATA,
			       "%s: tensor '%s': want the name of a file beside the index, got "
			       "'%s'",
			       index, tensor, name ? name : "no string");
	return VQ_OK;
}

/* Position of the shard's file among those open, or n_shards. */
static uint32_t find_shard(const struct folder *f, const char *name)
{
	uint32_t s;

	for (s = 0; s < f->n_shards; s++) {
		const char *slash = strrchr(f->shards[s].path, '/');

		if (strcmp(slash ? slash + 1 : f->shards[s].path, name) == 0)
			break;
	}
	return s;
}

/* The set of shard names in the weight map, as keys of an object: each once, in order of appearance. */
static int shard_names(json_t *map, json_t *names, const char *index, struct vq_err *err)
{
	const char *tensor;
	json_t *v;

	json_object_foreach(map, tensor, v)
	{
		const char *name = json_string_value(v);
		int rc = check_shard_name(name, tensor, index, err);

		if (rc < 0)
			return rc;
		json_object_set_new(names, name, json_null());
	}
	if (json_object_size(names) == 0 || json_object_size(names) > MAX_SHARDS)
		return vq_fail(err, VQ_E_DATA, "%s: 'weight_map': want 1 to %u shards, got %zu",
			       index, MAX_SHARDS, json_object_size(names));
	return VQ_OK;
}

static int open_indexed(struct vq_ckpt *c, const char *index, struct vq_err *err)
{
	struct folder *f = c->priv;
	int rc = VQ_E_DATA;
	json_t *j = vq_json_file(index, VQ_E_DATA, err), *map;
	json_t *names = json_object(), *v;
	const char *key;

	if (!j)
		goto out;
	map = json_object_get(j, "weight_map");
	if (!json_is_object(map)) {
		rc = vq_fail(err, VQ_E_DATA, "%s: want an object 'weight_map'", index);
		goto out;
	}
	rc = shard_names(map, names, index, err);
	if (rc < 0)
		goto out;
	f->shards = vq_calloc(json_object_size(names), sizeof(*f->shards), err);
	if (!f->shards) {
		rc = VQ_E_SYS;
		goto out;
	}
	json_object_foreach(names, key, v)
	{
		rc = open_shard(c, key, err);
		if (rc < 0)
			goto out;
	}
	json_object_foreach(map, key, v)
	{
		const struct vq_st *st = &f->shards[find_shard(f, json_string_value(v))];

		if (!vq_st_find(st, key)) {
			rc = vq_fail(err, VQ_E_DATA,
				     "%s: tensor '%s' is not in the shard that the index names",
				     st->path, key);
			goto out;
		}
	}
out:
	json_decref(names);
	json_decref(j);
	return rc;
}

static int open_weights(struct vq_ckpt *c, struct vq_err *err)
{
	int rc;
	char *single = vq_path_join(c->path, single_name, err);
	char *index = vq_path_join(c->path, index_name, err);
	struct folder *f = c->priv;

	if (!single || !index) {
		rc = VQ_E_SYS;
	} else if (vq_path_exists(single)) {
		f->shards = vq_calloc(1, sizeof(*f->shards), err);
		rc = f->shards ? open_shard(c, single_name, err) : VQ_E_SYS;
	} else if (vq_path_exists(index)) {
		rc = open_indexed(c, index, err);
	} else {
		rc = vq_fail(err, VQ_E_DATA,
			     "%s: want %s or %s in the folder, found neither; PyTorch .bin files "
			     "must be converted to safetensors first",
			     c->path, single_name, index_name);
	}
	vq_free(single);
	vq_free(index);
	return rc < 0 ? rc : list_tensors(c, err);
}

static int read_file(const struct vq_ckpt *c, const char *name, char **data, size_t *n,
		     struct vq_err *err)
{
	char *path = vq_path_join(c->path, name, err);
	int rc = 0;

	if (!path)
		return VQ_E_SYS;
	if (vq_path_exists(path)) {
		rc = vq_file_read(path, VQ_CKPT_SIDE_LIMIT, VQ_E_DATA, data, n, err);
		rc = rc < 0 ? rc : 1;
	}
	vq_free(path);
	return rc;
}

static int open_config(struct vq_ckpt *c, struct vq_err *err)
{
	char *data = NULL, *path = vq_path_join(c->path, "config.json", err);
	size_t n;
	int rc = path ? read_file(c, "config.json", &data, &n, err) : VQ_E_SYS;

	if (rc == 0)
		rc = vq_fail(err, VQ_E_DATA, "%s: no config.json; want a Hugging Face model folder",
			     c->path);
	if (rc > 0) {
		vq_sha256_of(data, n, c->config_sha);
		c->config = vq_json_parse(data, n, path, err);
		rc = !c->config ? VQ_E_DATA : VQ_OK;
		if (c->config && !json_is_object(c->config))
			rc = vq_fail(err, VQ_E_DATA, "%s: want an object", path);
	}
	vq_free(data);
	vq_free(path);
	return rc;
}

static int takes(const struct vq_ckpt *c)
{
	return vq_path_is_dir(c->path);
}

static int open_folder(struct vq_ckpt *c, struct vq_err *err)
{
	int rc;

	c->priv = vq_calloc(1, sizeof(struct folder), err);
	if (!c->priv)
		return VQ_E_SYS;
	rc = open_config(c, err);
	return rc < 0 ? rc : open_weights(c, err);
}

static void close_folder(struct vq_ckpt *c)
{
	struct folder *f = c->priv;
	uint32_t s;

	for (s = 0; f && s < f->n_shards; s++)
		vq_st_close(&f->shards[s]);
	if (f)
		vq_free(f->shards);
	vq_free(f);
}

static int load_folder(struct vq_ckpt *c, struct vq_err *err)
{
	struct folder *f = c->priv;
	uint32_t i;
	int rc = VQ_OK;

	for (i = 0; rc >= 0 && i < f->n_shards; i++)
		rc = vq_st_load(&f->shards[i], err);
	return rc;
}

static int lock_folder(const struct vq_ckpt *c, struct vq_err *err)
{
	const struct folder *f = c->priv;
	uint32_t i;
	int rc = VQ_OK;

	for (i = 0; rc >= 0 && i < f->n_shards; i++)
		rc = vq_pages_lock(f->shards[i].map.data, f->shards[i].map.n, err);
	return rc;
}

const struct vq_ckpt_back vq_ckpt_folder = {.what = "a folder with config.json and safetensors",
					    .takes = takes,
					    .open = open_folder,
					    .file = read_file,
					    .load = load_folder,
					    .lock = lock_folder,
					    .close = close_folder};
